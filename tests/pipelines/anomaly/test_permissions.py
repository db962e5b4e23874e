"""What a command writes of patients can be read by nobody else: the run, and the store beside it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np

from medgen import io
from medgen.volume import Grid, Volume
from tests.builders.noise_detector import CUBE


def test_a_scored_scan_and_its_store_are_their_owners(model: Path, tmp_path: Path) -> None:
    scan = tmp_path / "scan.nii.gz"
    noise = np.random.default_rng(0).random((1, *CUBE)).astype(np.float32)
    io.write(Volume(noise, Grid(CUBE, np.eye(4))), scan)
    out = tmp_path / "runs" / "scored"
    program = [sys.executable, "-c", "from medgen.pipelines.cli.app import main; main()"]
    command = [*program, "anomaly", "score", str(scan), "--model", str(model), "--out", str(out), "--quiet"]
    own = {name: value for name, value in os.environ.items() if name not in ("MLFLOW_TRACKING_URI", "MEDGEN_UMASK")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=own, umask=0o000, timeout=250)
    assert done.returncode == 0, done.stderr
    found = {path.relative_to(tmp_path).as_posix(): path.lstat() for path in (tmp_path / "runs").rglob("*")}
    assert {"runs/mlflow.db", "runs/mlartifacts", "runs/scored/report.html", "runs/scored/heatmaps"} <= found.keys()
    wide = {name: oct(stat.S_IMODE(own.st_mode)) for name, own in found.items() if own.st_mode & 0o077}
    assert wide == {}
    assert stat.S_IMODE((tmp_path / "runs").stat().st_mode) == 0o700
