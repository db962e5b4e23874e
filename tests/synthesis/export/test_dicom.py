"""Exported cohorts as DICOM: the labels of every scan voxel by voxel, from any layout, of unaltered files only."""

from __future__ import annotations

from pathlib import Path

import highdicom
import numpy as np
import pytest

from medgen import io
from medgen.errors import AuditError, ConfigError, DataError
from medgen.pipelines.cli.app import main
from medgen.synthesis.export.dicom import write_dicom
from medgen.synthesis.sources import Sources
from tests.builders.exported_cohorts import LABELS, exported
from tests.builders.labelled_scans import blobs


@pytest.mark.parametrize("layout", ["nnunet", "msd", "bids"])
def test_labels_of_every_scan_are_read_back_from_any_layout(layout: str, sources: Sources, tmp_path: Path) -> None:
    pool = exported(tmp_path / "cohort", blobs(2, 9, "new"), sources, layout=layout)
    said: list[tuple[int, int]] = []
    made = write_dicom(tmp_path / "cohort", tmp_path / "dicom", progress=lambda *done: said.append(done))
    assert (made.scans, made.verdict, said) == (2, "", [(1, 2), (2, 2)])
    assert {path.name for path in (tmp_path / "dicom").iterdir()} == {"syn-0001", "syn-0002"}
    for candidate in pool.accepted():
        folder = tmp_path / "dicom" / candidate.id
        scan, truth = io.read(folder / "image"), candidate.synthetic
        assert truth is not None
        segments = highdicom.seg.segread(folder / "seg.dcm")
        assert segments.get_segment_numbers() == [1, 2]
        for number, (value, name) in enumerate(LABELS.items(), start=1):
            assert segments.get_segment_description(number).segment_label == name
            volume = segments.get_volume(segment_numbers=[number])
            index = np.argwhere(np.asarray(volume.array).reshape(volume.spatial_shape))
            world = (index @ volume.affine[:3, :3].T + volume.affine[:3, 3]) * (-1, -1, 1)
            voxels = world / 2  # The cohort's grid is 2 mm along the axes of the world.
            np.testing.assert_allclose(voxels, voxels.round(), atol=1e-6)
            there = np.zeros(truth.labels.shape, bool)
            there[tuple(voxels.round().astype(int).T)] = True
            np.testing.assert_array_equal(there, truth.labels == value)
        image = scan.data[0][tuple(scan.grid.to_voxel(2.0 * np.argwhere(truth.labels >= 0)).round().astype(int).T)]
        level = float(np.ptp(truth.image)) / 65535
        np.testing.assert_allclose(image, truth.image[0].reshape(-1), atol=0.51 * level)


def test_altered_and_missing_cohorts_are_refused(sources: Sources, tmp_path: Path) -> None:
    exported(tmp_path / "cohort", blobs(2, 9, "new"), sources)
    label = tmp_path / "cohort" / "labelsTr" / "syn-0002.nii.gz"
    io.write(io.read(label).with_data(io.read(label).data * 0), label)
    with pytest.raises(AuditError, match=r"syn-0002.nii.gz: is not the file that was exported"):
        write_dicom(tmp_path / "cohort", tmp_path / "dicom")
    assert not (tmp_path / "dicom").exists()
    with pytest.raises(DataError, match="holds no synthetic cohort"):
        write_dicom(tmp_path, tmp_path / "dicom")
    with pytest.raises(ConfigError, match="exists and is not empty"):
        write_dicom(tmp_path / "cohort", tmp_path)


def test_the_command_says_what_is_there(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    exported(tmp_path / "cohort", blobs(1, 9, "new"), sources, n=1)
    command = ["medgen", "augment", "dicom", str(tmp_path / "cohort"), "--out", str(tmp_path / "dicom")]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert f"{tmp_path / 'dicom'}: 1 synthetic scans, each with a series and seg.dcm" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "exists and is not empty" in capsys.readouterr().err
