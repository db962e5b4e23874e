"""Synthetic cohorts as BIDS, Medical Segmentation Decathlon and nnU-Net know them: valid, and read back as made."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medgen.synthesis.sources import Sources
from tests.builders.bids_validator import bids_errors
from tests.builders.exported_cohorts import LABELS, exported
from tests.builders.labelled_scans import blobs


@pytest.mark.parametrize("modality", ["MR T1", "FLAIR", "CT", "unknown"])
def test_the_bids_validator_finds_no_error(modality: str, sources: Sources, tmp_path: Path) -> None:
    out = tmp_path / "bids"
    pool = exported(out, blobs(2, 9, "new"), sources, layout="bids", modality=modality)
    assert bids_errors(out) == []
    suffix = {"MR T1": "T1w", "FLAIR": "FLAIR", "CT": "ct", "unknown": "anat"}[modality]
    for candidate in pool.accepted():
        name = f"sub-{candidate.id.replace('-', '')}"
        _same(candidate, out / name / "anat" / f"{name}_{suffix}.nii.gz", out / name / "anat" / f"{name}_dseg.nii.gz")
        said = json.loads((out / name / "anat" / f"{name}_{suffix}.json").read_text())
        assert said["Synthetic"] is True
        share = np.mean(candidate.synthetic.image[0] == 0)
        assert said["SkullStripped"] is bool(share >= 0.1)
    lines = (out / "dseg.tsv").read_text().splitlines()
    assert lines == ["index\tname", "0\tbackground", *(f"{value}\t{text}" for value, text in LABELS.items())]
    about = json.loads((out / "dataset_description.json").read_text())
    assert (about["DatasetType"], about["GeneratedBy"][0]["Name"]) == ("derivative", "medgen")


def test_what_bids_does_not_know_is_an_error_unless_it_is_named(sources: Sources, tmp_path: Path) -> None:
    exported(tmp_path / "bids", blobs(1, 9, "new"), sources, n=1, layout="bids", modality="CT")
    (tmp_path / "bids" / ".bidsignore").unlink()
    assert any(error.startswith("NOT_INCLUDED") for error in bids_errors(tmp_path / "bids"))


def test_a_decathlon_task_lists_what_is_there(sources: Sources, tmp_path: Path) -> None:
    pool = exported(tmp_path, blobs(3, 9, "new"), sources, n=3, layout="msd")
    task = json.loads((tmp_path / "dataset.json").read_text())
    needed = {"name", "description", "reference", "licence", "release", "tensorImageSize", "modality", "labels"}
    assert needed | {"numTraining", "numTest", "training", "test"} <= set(task)
    assert (task["tensorImageSize"], task["modality"], task["numTest"], task["test"]) == ("3D", {"0": "MR T1"}, 0, [])
    assert task["labels"] == {"0": "background", **{str(value): name for value, name in LABELS.items()}}
    assert task["numTraining"] == len(task["training"]) == 3
    for candidate, listed in zip(pool.accepted(), task["training"], strict=True):
        _same(candidate, tmp_path / listed["image"], tmp_path / listed["label"])


def test_an_nnunet_data_set_is_read_back(sources: Sources, tmp_path: Path) -> None:
    pool = exported(tmp_path, blobs(2, 9, "new"), sources, layout="nnunet")
    about = json.loads((tmp_path / "dataset.json").read_text())
    assert (about["numTraining"], about["file_ending"], about["channel_names"]) == (2, ".nii.gz", {"0": "MR T1"})
    assert about["labels"] == {"background": 0, **{name: value for value, name in LABELS.items()}}
    images = sorted(path.name for path in (tmp_path / "imagesTr").iterdir())
    assert images == [f"{candidate.id}_0000.nii.gz" for candidate in pool.accepted()]
    for candidate in pool.accepted():
        name = f"{candidate.id}.nii.gz"
        _same(candidate, tmp_path / "imagesTr" / images[int(name[4:8]) - 1], tmp_path / "labelsTr" / name)


def _same(candidate, image: Path, labels: Path) -> None:
    """Nibabel reads what was made, on the cohort's grid of 2 mm."""
    for path, data in ((image, candidate.synthetic.image[0]), (labels, candidate.synthetic.labels)):
        read = nibabel.load(path)
        np.testing.assert_array_equal(np.asanyarray(read.dataobj), data)
        np.testing.assert_allclose(read.affine, np.diag([2.0, 2.0, 2.0, 1.0]))
