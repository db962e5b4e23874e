"""A small detector for new scans, one folder for runs, and pictures that cost nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medgen.anomaly.artifact import to_artifact
from medgen.anomaly.config import AnomalyConfig
from medgen.anomaly.detector import AnomalyDetector
from medgen.models.catalogue import build
from medgen.preprocessing.dataset import Dataset
from medgen.preprocessing.recipe import Preprocess
from medgen.report.figures.mosaic import mosaic
from medgen.report.html import png
from medgen.volume import Grid, Volume

CUBE = (12, 12, 12)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector of ten scans of noise, in two folds."""
    ids = tuple("abcdefghij")
    images = torch.rand((10, 1, *CUBE), generator=torch.Generator().manual_seed(0))
    vaes = [[build({"family": "vae", "shape": CUBE, "widths": (16, 16)}, seed=fold)] for fold in (1, 2)]
    given = {"folds": 2, "fusion": {"channels": ["zscore"]}, "calibration": {"target_fpr": 0.1}}
    config = AnomalyConfig.model_validate({**given, "gate": {"enabled": False}, "validation": {"enabled": False}})
    recipe = Preprocess(shape=CUBE, spacing=(1, 1, 1))
    data = Dataset(ids, ids, images, images >= 0)
    detector = AnomalyDetector.fit(data, [ids[:5], ids[5:]], vaes, config, recipe, voxel_scores=())
    return to_artifact(detector, {"cases": list(ids)}).save(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all runs: they share its MLflow store, which is slow to set up."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures that are drawn once: what is held, and what is written when, does not depend on them."""
    picture = png(mosaic(Volume(np.eye(12, dtype=np.float32)[None, None].repeat(12, 1), Grid(CUBE, np.eye(4)))))
    monkeypatch.setattr("medgen.report.anomaly.scoring.mosaic", lambda *_, **__: picture)
    monkeypatch.setattr("medgen.report.anomaly.pictures.comparison", lambda *_, **__: picture)
    monkeypatch.setattr("medgen.report.viewer.scored.mosaic", lambda *_, **__: picture)
