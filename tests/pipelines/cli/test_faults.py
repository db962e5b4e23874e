"""What was refused badly once: names that are not UTF-8, voxels without a size, scans given twice, leftovers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from medgen import io
from medgen.volume import Grid, Volume
from tests.builders.noise_detector import CUBE, save_noise_detector

MEDGEN = Path(sys.executable).parent / "medgen"
STRANGE = os.fsdecode(b"m\xfcller")


def medgen(*arguments, cwd):
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    return subprocess.run(
        [MEDGEN, *map(str, arguments)],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=250,
        check=False,
        cwd=cwd,
        env=environment,
    )


@pytest.fixture
def place(tmp_path):
    save_noise_detector(tmp_path / "model")
    for number, name in enumerate(("a", "b", STRANGE)):
        data = np.random.default_rng(number).random((1, *CUBE)).astype(np.float32)
        io.write(Volume(data, Grid(CUBE, np.eye(4))), tmp_path / "scans" / f"{name}.nii.gz")
    return tmp_path


@pytest.mark.parametrize(
    "line",
    [
        ["data", "simulate", STRANGE, "-n", "1"],
        ["data", "import", "scans", STRANGE],
        ["data", "implant", "scans", STRANGE],
        ["data", "prepare", "scans", STRANGE],
        ["card", "new", f"{STRANGE}.md"],
        ["anomaly", "score", "scans/a.nii.gz", "--model", "model", "--out", STRANGE],
        ["anomaly", "score", f"scans/{STRANGE}.nii.gz", "--model", "model", "--out", "out"],
        ["anomaly", "evaluate", "scans", "scans", "--out", STRANGE],
        ["augment", "sample", "--model", "model", "--out", STRANGE],
        ["train", "vae", "data=scans", f"out={STRANGE}"],
        ["train", "vae", "data=scans", "out=out", "check_resources=false"],
    ],
    ids=lambda line: " ".join(line).encode("ascii", "replace").decode(),
)
def test_a_name_that_is_not_utf8_is_refused_and_leaves_nothing(line, place):
    before = sorted(place.rglob("*"))
    ended = medgen(*line, cwd=place)
    assert ended.returncode == 2, ended.stderr
    assert "UTF-8" in ended.stderr
    assert sorted(place.rglob("*")) == before


def test_a_cohort_with_such_names_can_be_imported(place):
    noted = medgen("data", "check", "scans", cwd=place)
    assert noted.returncode == 0
    assert "a run refuses it, medgen data import gives it another" in noted.stderr
    assert medgen("data", "import", "scans", "imported", cwd=place).returncode == 0
    assert medgen("data", "check", "imported", cwd=place).returncode == 0


def test_a_scan_given_twice_is_refused(place):
    (place / "link.nii.gz").symlink_to(place / "scans" / "a.nii.gz")
    before = sorted(place.rglob("*"))
    given = ["scans/a.nii.gz", "scans/b.nii.gz", place / "scans" / "a.nii.gz", "link.nii.gz"]
    ended = medgen("anomaly", "score", *given, "--model", "model", "--out", "out", cwd=place)
    assert ended.returncode == 2
    assert "scans/a.nii.gz: given 3 times; expected each scan once" in ended.stderr
    assert sorted(place.rglob("*")) == before


def test_a_refused_scoring_leaves_neither_folder_nor_store(place):
    tiny = Volume(np.random.default_rng(0).random((1, *CUBE)).astype(np.float32), Grid(CUBE, np.diag([1e-6] * 3 + [1])))
    io.write(tiny, place / "tiny.nii.gz")
    before = sorted(place.rglob("*"))
    ended = medgen("anomaly", "score", "tiny.nii.gz", "--model", "model", "--out", "out", cwd=place)
    assert ended.returncode == 2, ended.stderr
    assert "tiny.nii.gz: voxel sizes of 1e-06 x 1e-06 x 1e-06 mm; expected 0.01 to 20 mm" in ended.stderr
    assert sorted(place.rglob("*")) == before


def test_resume_says_where_there_is_nothing_to_go_on_with(place):
    line = ["anomaly", "score", "scans/a.nii.gz", "--model", "model", "--out", "out", "--resume"]
    first, again = medgen(*line, cwd=place), medgen(*line, cwd=place)
    assert first.returncode == again.returncode == 0, first.stderr
    assert "out: holds no run to go on with; starts from the beginning" in first.stderr
    assert "starts from the beginning" not in again.stderr
    # What is scored is tracked.
    assert (place / "mlflow.db").exists()
