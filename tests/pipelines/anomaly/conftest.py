"""A small detector for new scans, one folder for runs, and pictures that cost nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medgen import io
from medgen.report.figures.mosaic import mosaic
from medgen.report.html import png
from medgen.volume import Grid, Volume
from tests.builders.noise_detector import CUBE, save_noise_detector


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector of ten scans of noise, in two folds."""
    return save_noise_detector(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all runs: they share its MLflow store, which is slow to set up."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def write_cubes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, float], list[Path]]:
    """Writes so many scans of noise, each with a brighter cube than the one before."""

    def write(count: int, step: float) -> list[Path]:
        folder, paths = tmp_path_factory.mktemp("scans"), []
        for number in range(count):
            data = np.random.default_rng(number).random((1, *CUBE)).astype(np.float32)
            data[:, 4:8, 4:8, 4:8] += step * number
            paths.append(folder / f"scan-{number:02d}.nii.gz")
            io.write(Volume(data, Grid(CUBE, np.eye(4))), paths[-1])
        return paths

    return write


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures that are drawn once: what is held, and what is written when, does not depend on them."""
    picture = png(mosaic(Volume(np.eye(12, dtype=np.float32)[None, None].repeat(12, 1), Grid(CUBE, np.eye(4)))))
    monkeypatch.setattr("medgen.report.anomaly.scored.scoring.mosaic", lambda *_, **__: picture)
    monkeypatch.setattr("medgen.report.anomaly.pictures.comparison", lambda *_, **__: picture)
    monkeypatch.setattr("medgen.report.anomaly.scored.viewer.mosaic", lambda *_, **__: picture)
