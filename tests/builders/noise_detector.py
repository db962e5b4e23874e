"""A detector of ten scans of noise, in two folds, that is made in a second."""

from __future__ import annotations

from pathlib import Path

import torch

from medgen.anomaly.artifact import to_artifact
from medgen.anomaly.config import AnomalyConfig
from medgen.anomaly.detector import AnomalyDetector
from medgen.models.catalogue import build
from medgen.preprocessing.dataset import Dataset
from medgen.preprocessing.recipe import Preprocess

CUBE = (12, 12, 12)


def save_noise_detector(folder: Path) -> Path:
    """Write its artifact into a new folder and return that."""
    ids = tuple("abcdefghij")
    images = torch.rand((10, 1, *CUBE), generator=torch.Generator().manual_seed(0))
    vaes = [[build({"family": "vae", "shape": CUBE, "widths": (16, 16)}, seed=fold)] for fold in (1, 2)]
    given = {"folds": 2, "fusion": {"channels": ["zscore"]}, "calibration": {"target_fpr": 0.1}}
    config = AnomalyConfig.model_validate({**given, "gate": {"enabled": False}, "validation": {"enabled": False}})
    recipe = Preprocess(shape=CUBE, spacing=(1, 1, 1))
    data = Dataset(ids, ids, images, images >= 0)
    detector = AnomalyDetector.fit(data, [ids[:5], ids[5:]], vaes, config, recipe, voxel_scores=())
    return to_artifact(detector, {"cases": list(ids)}).save(folder)
