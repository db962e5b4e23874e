"""A packaged detector, served on this machine: paths in, scores and heatmaps out."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from medgen import io
from medgen.api.detection import load
from medgen.errors import DataError
from medgen.serving.package import package
from medgen.serving.service import ScanService
from medgen.volume import Grid, Volume
from tests.builders.noise_detector import CUBE, save_noise_detector


def scan(path: Path, seed: int) -> Path:
    data = np.random.default_rng(seed).random((1, *CUBE), dtype=np.float32)
    io.write(Volume(data, Grid(CUBE, np.eye(4))), path)
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scans, one of them outside of the folder that may be read, and a detector."""
    root = tmp_path_factory.mktemp("serving")
    (root / "scans").mkdir()
    scan(root / "scans" / "one.nii.gz", 1)
    scan(root / "outside.nii.gz", 2)
    (root / "scans" / "link.nii.gz").symlink_to(root / "outside.nii.gz")
    (root / "scans" / "broken.nii.gz").write_bytes(b"no scan")
    save_noise_detector(root / "model")
    return root


@pytest.fixture(scope="module")
def address(root: Path) -> Iterator[str]:
    """MLflow's scoring server with the packaged detector."""
    package(root / "model", root / "served", scans=root / "scans", heatmaps=root / "heat")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "--host", "127.0.0.1", "--port", str(port)]
    command += ["mlflow.pyfunc.scoring_server.app:app"]
    own = {"__pyfunc_model_path__": str(root / "served"), "MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1"}
    with (root / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, env={**os.environ, **own}, stdout=log, stderr=log, cwd=root)
        try:
            until = time.monotonic() + 120
            while True:
                assert process.poll() is None, (root / "log.txt").read_text()
                assert time.monotonic() < until, (root / "log.txt").read_text()
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/invocations"
        finally:
            process.terminate()
            process.wait(30)


def asked(address: str, *paths: str) -> list[dict[str, object]]:
    body = json.dumps({"inputs": paths}).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["predictions"]


def test_a_served_detector_answers_as_the_library_does(root: Path, address: str) -> None:
    (said,) = asked(address, "one.nii.gz")
    own = load(root / "model").score(root / "scans" / "one.nii.gz")
    assert said["error"] == ""
    assert said["score"] == pytest.approx(own.result.scores[own.result.scan_score], rel=1e-4)
    assert said["p"] == own.p
    assert said["findings"] == len(own.findings)
    heat = io.read(Path(str(said["heatmap"])))
    assert Path(str(said["heatmap"])).parent == root / "heat"
    np.testing.assert_allclose(heat.data, own.result.heatmap.data, rtol=1e-3, atol=1e-3)


def test_the_server_reads_nothing_outside_of_its_folder(root: Path, address: str) -> None:
    paths = ["../outside.nii.gz", str(root / "outside.nii.gz"), "link.nii.gz", "absent.nii.gz"]
    for said in asked(address, *paths):
        assert "below the folder of scans" in str(said["error"])
        assert said["score"] is None


def test_a_file_that_is_no_scan_has_a_reason_and_others_are_answered(root: Path, address: str) -> None:
    broken, fine = asked(address, "broken.nii.gz", "one.nii.gz")
    assert "broken.nii.gz" in str(broken["error"])
    assert fine["error"] == ""


def test_scans_of_one_name_do_not_share_a_heatmap(root: Path, tmp_path: Path) -> None:
    for folder, seed in (("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        scan(tmp_path / folder / "t1.nii.gz", seed)
    service = ScanService.of(root / "model", tmp_path, tmp_path / "heat")
    first, second = (service.answer(f"{folder}/t1.nii.gz")["heatmap"] for folder in ("a", "b"))
    assert first != second


def test_a_package_needs_a_folder_of_scans_and_leaves_nothing_behind(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        package(root / "model", tmp_path / "served", scans=tmp_path / "absent", heatmaps=tmp_path)
    assert list(tmp_path.iterdir()) == []
