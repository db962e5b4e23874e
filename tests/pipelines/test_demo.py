"""The demo's DICOM tour in small: its model is used again, its lesion is found, your series is scored."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from medgen import io
from medgen.pipelines import demo
from medgen.pipelines.cli.app import main
from medgen.volume import Grid, Volume
from tests.builders.dicom_folders import series
from tests.builders.noise_detector import CUBE, save_noise_detector


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A demo that is there: a cohort of one test scan of noise, and a model of noise."""
    out = tmp_path / "demo"
    scan = Volume(np.random.default_rng(5).random((1, *CUBE)).astype(np.float32), Grid(CUBE, np.eye(4)))
    io.write(scan, out / "cohort" / "images" / "sim-0007.nii.gz")
    save_noise_detector(out / "anomaly" / "model")
    (out / "anomaly" / "splits.csv").write_text("case,subject,part\nsim-0001,sim-0001,fold-1\nsim-0007,sim-0007,test\n")
    (out / "anomaly" / "outputs.json").write_text("{}")
    monkeypatch.setattr(demo, "LESION_MM", 2.5)
    # Whatever trains would need the cohort, which is not there.
    monkeypatch.setattr(demo.anomaly, "run", lambda *_, **__: pytest.fail("trained again"))
    return out


@pytest.mark.slow
def test_the_demo_takes_its_own_series_through_and_one_of_yours(small: Path, tmp_path: Path) -> None:
    done = demo.through_dicom(small, device="cpu", overwrite=False, progress=False)
    assert done.exit_code == 0
    scored = small / "scored"
    assert (scored / "heatmaps" / "demo-scan.nii.gz").is_file()
    assert {path.name for path in (scored / "dicom" / "demo-scan").iterdir()} == {"seg.dcm", "pmap.dcm", "sc", "sr.dcm"}
    assert 'href="dicom/demo-scan/seg.dcm"' in (scored / "report.html").read_text()
    viewer = scored / "viewers" / "demo-scan.html"
    assert viewer.is_file()
    assert f"viewer:   {viewer}" in done.lines
    # The lesion that was put in is the one that is found: the peak lies in its outline, which the series has with it.
    with (scored / "findings.csv").open(newline="") as file:
        first = next(csv.DictReader(file))
    heat = io.read(scored / "heatmaps" / "demo-scan.nii.gz", allow_nan=True)
    peak = heat.grid.to_world([int(first[f"voxel_{axis}"]) for axis in "ijk"])
    made, original = (
        io.read(path).resample(heat.grid, order=0)
        for path in (small / "series" / "demo-scan", small / "cohort" / "images" / "sim-0007.nii.gz")
    )
    changed = np.abs(made.data - original.data) > 0.1
    assert 0 < changed.sum() < changed.size / 4
    assert changed[0][tuple(heat.grid.to_voxel(peak).round().astype(int))]
    # Results are there, so they are not replaced unasked; the series and the model are used again.
    before = (small / "series" / "seg.dcm").read_bytes()
    with pytest.raises(demo.ConfigError, match="pass --overwrite to replace it, the model stays"):
        demo.through_dicom(small, device="cpu", overwrite=False, progress=False)
    data = (np.random.default_rng(3).random(CUBE) * 3000).astype(np.uint16)
    own = series(tmp_path / "mine", data=data, spacing=(1, 1), step=(0, 0, 1))
    done = demo.through_dicom(small, own, device="cpu", overwrite=True, progress=False)
    assert done.exit_code == 0
    assert "say nothing of this scan" in done.lines[-1]
    assert (scored / "viewers" / "mine.html").is_file()
    assert not (scored / "viewers" / "demo-scan.html").exists()
    assert json.loads((scored / "findings.json").read_text())["scans"].keys() == {"mine"}
    assert (small / "series" / "seg.dcm").read_bytes() == before


def test_what_cannot_be_done_is_said_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["medgen", "demo", "--out", str(tmp_path / "demo")]
    monkeypatch.setattr(demo.anomaly, "run", lambda *_, **__: pytest.fail("trained"))
    other, file = tmp_path / "other", tmp_path / "scan.nii.gz"
    other.mkdir()
    (other / "note.txt").write_text("no series")
    io.write(Volume(np.ones((1, *CUBE), np.float32), Grid(CUBE, np.eye(4))), file)
    broken = series(tmp_path / "broken", data=np.ones(CUBE, np.uint16), spacing=(1, 1), step=(0, 0, 1))
    first = min(broken.iterdir())
    first.write_bytes(first.read_bytes()[:400])
    for given, said in (
        ([str(tmp_path)], "a series is for --dicom"),
        (["--dicom", str(tmp_path / "nothing")], "no such file or folder"),
        (["--dicom", str(other)], "no DICOM images"),
        (["--dicom", str(file)], "not DICOM; expected the folder of a series"),
        (["--dicom", str(broken)], "truncated or damaged"),
    ):
        monkeypatch.setattr("sys.argv", [*command, *given])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        assert said in capsys.readouterr().err
    monkeypatch.setattr("medgen.io.dicom.objects.wanted.PACKAGE", "no-such-package")
    monkeypatch.setattr("sys.argv", [*command, "--dicom"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "pip install 'medgen[dicom]'" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()
