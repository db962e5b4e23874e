"""Scored series as DICOM objects: the same heat, findings and numbers as in the other files of the run."""

from __future__ import annotations

import csv
from pathlib import Path

import highdicom
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from medgen import io
from medgen.errors import ConfigError
from medgen.pipelines.anomaly import score as scoring
from medgen.pipelines.cli.app import main
from tests.builders.dicom_folders import series
from tests.builders.run_outputs import undeclared

CUBE = (12, 12, 12)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Noise with a bright cube off the middle: a sagittal series against its normal, one without a frame, a NIfTI."""
    folder = tmp_path_factory.mktemp("given")
    data = (np.random.default_rng(3).random(CUBE) * 1000).astype(np.uint16)
    data[2:5, 6:10, 1:5] += 2200
    options = {"data": data, "spacing": (1, 1)}
    scans = {
        "sagittal": series(folder / "sagittal", orientation=(0, 1, 0, 0, 0, -1), step=(1, 0, 0), **options),
        "adrift": series(folder / "adrift", _adrift, step=(0, 0, 1), **options),
    }
    io.write(io.read(scans["sagittal"]), folder / "plain.nii.gz")
    return {**scans, "plain": folder / "plain.nii.gz"}


def _adrift(index: int, item: Dataset) -> None:
    del item.FrameOfReferenceUID


@pytest.mark.usefixtures("quick")
def test_objects_hold_what_the_other_files_of_the_run_hold(model: Path, given: dict[str, Path], runs: Path) -> None:
    out = runs / "objects"
    summary = scoring.score(
        list(given.values()), model=model, out=out, device="cpu", viewers="none", dicom=("seg", "pmap", "sc", "sr")
    )
    assert summary.exit_code == 0
    assert undeclared(out, scoring.PIPELINE) == []
    said = {line.partition(":")[0]: line for line in summary.lines}
    assert said["plain"].endswith("; no DICOM objects: plain.nii.gz is no DICOM series")
    assert "; no DICOM objects: " in said["adrift"]
    assert "no FrameOfReferenceUID" in said["adrift"]
    assert said["DICOM"] == f"DICOM:    {out / 'dicom'}: with patients' names and numbers, as their series have them"
    assert {path.name for path in (out / "dicom").iterdir()} == {"sagittal"}
    with (out / "findings.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    folder = out / "dicom" / "sagittal"
    assert len(list((folder / "sc").iterdir())) == CUBE[2]
    # Both maps at every voxel, met in the world: RAS+ of the NIfTI, LPS+ of the object.
    heat = io.read(out / "heatmaps" / "sagittal.nii.gz", allow_nan=True)
    pmap = highdicom.pm.ParametricMap.from_file(folder / "pmap.dcm").get_volume()
    seg = highdicom.seg.segread(folder / "seg.dcm")
    index = np.argwhere(np.ones(CUBE, bool))
    for volume, of in ((pmap, "heat"), (seg.get_volume(segment_numbers=[seg.number_of_segments]), "scored")):
        world = (index @ volume.affine[:3, :3].T + volume.affine[:3, 3]) * (-1, -1, 1)
        own = heat.data[0][tuple(heat.grid.to_voxel(world).round().astype(int).T)]
        stored = np.asarray(volume.array).ravel()
        if of == "heat":
            np.testing.assert_array_equal(stored[~np.isnan(own)], own[~np.isnan(own)])
        else:
            np.testing.assert_array_equal(stored != 0, ~np.isnan(own))
    # The numbers of every finding, and the volume of its segment.
    found = [row for row in rows if row["case"] == "sagittal"]
    assert found
    numbers = [
        float(element.value[0].NumericValue)
        for element in dcmread(folder / "sr.dcm").iterall()
        if element.keyword == "MeasuredValueSequence"
    ]
    expected = [len(found), None]
    for row in found:
        expected += [float(row[key]) for key in ("above_threshold_ml", "peak", "expected_false", "p_max")]
    expected[1] = numbers[1]
    assert numbers == pytest.approx(expected, rel=1e-9)
    for number, row in enumerate(found, start=1):
        assert seg.get_segment_description(number).SegmentLabel == f"Finding {row['finding']}"
        volume = seg.get_volume(segment_numbers=[number]).array.sum() / 1000
        assert volume == pytest.approx(float(row["above_threshold_ml"]))


def test_a_missing_extra_and_a_slip_are_said_before_anything_is_scored(
    model: Path,
    given: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    command = [
        "medgen",
        "anomaly",
        "score",
        str(given["sagittal"]),
        "--model",
        str(model),
        "--out",
        str(out),
        "--dicom",
    ]
    monkeypatch.setattr("sys.argv", [*command, "seg,smap"])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    assert "--dicom: found 'smap'; expected seg, pmap, sc, sr or all" in capsys.readouterr().err
    monkeypatch.setattr("medgen.io.dicom.objects.wanted.PACKAGE", "no-such-package")
    monkeypatch.setattr("sys.argv", [*command, "seg"])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    assert "pip install 'medgen[dicom]'" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="is not installed"):
        scoring.score([given["sagittal"]], model=model, out=out, device="cpu", dicom=["seg"])
    assert not out.exists()
