"""A small detector for new scans, one folder for runs, and pictures that cost nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

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


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures that are drawn once: what is held, and what is written when, does not depend on them."""
    picture = png(mosaic(Volume(np.eye(12, dtype=np.float32)[None, None].repeat(12, 1), Grid(CUBE, np.eye(4)))))
    monkeypatch.setattr("medgen.report.anomaly.scored.scoring.mosaic", lambda *_, **__: picture)
    monkeypatch.setattr("medgen.report.anomaly.pictures.comparison", lambda *_, **__: picture)
    monkeypatch.setattr("medgen.report.anomaly.scored.viewer.mosaic", lambda *_, **__: picture)
