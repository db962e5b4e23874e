"""``medgen anomaly adapt``: a new detector for another site with its lineage, and the old one as it was."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from medgen import io
from medgen.anomaly.artifact import from_artifact, to_artifact
from medgen.anomaly.config import AnomalyConfig
from medgen.anomaly.detector import AnomalyDetector
from medgen.data.cases import sha256_of
from medgen.errors import AuditError, CalibrationError
from medgen.models.artifact import TrainedModel
from medgen.models.catalogue import build
from medgen.pipelines.anomaly.adapt import PIPELINE, run
from medgen.preprocessing.dataset import Dataset
from medgen.preprocessing.recipe import Preprocess
from medgen.volume import Grid, Volume
from tests.builders.run_outputs import undeclared

CUBE = (12, 12, 12)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve healthy scans, noisier than those of the model."""
    folder = tmp_path_factory.mktemp("site") / "scans"
    folder.mkdir()
    for number in range(12):
        data = 2 * np.random.default_rng(100 + number).random((1, *CUBE)).astype(np.float32) - 0.5
        io.write(Volume(data, Grid(CUBE, np.eye(4))), folder / f"new-{number:02d}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, site: Path) -> Path:
    ids = tuple("abcdefghij")
    images = torch.rand((10, 1, *CUBE), generator=torch.Generator().manual_seed(0))
    vaes = [[build({"family": "vae", "shape": CUBE, "widths": (16, 16)}, seed=fold)] for fold in (1, 2)]
    given = {"folds": 2, "fusion": {"channels": ["intensity"]}, "calibration": {"target_fpr": 0.1}}
    config = AnomalyConfig.model_validate({**given, "gate": {"enabled": False}, "validation": {"enabled": False}})
    recipe = Preprocess(shape=CUBE, spacing=(1, 1, 1))
    data = Dataset(ids, ids, images, images >= 0)
    detector = AnomalyDetector.fit(data, [ids[:5], ids[5:]], vaes, config, recipe, voxel_scores=())
    inputs = {"a": {"image": sha256_of(site / "new-00.nii.gz")}}
    learnt = {"cases": list(ids), "inputs": inputs, "training_sha256": "0"}
    folder = tmp_path_factory.mktemp("models")
    to_artifact(detector, learnt).save(folder / "learnt")
    return to_artifact(detector, {**learnt, "inputs": {}}).save(folder / "model")


def test_a_new_detector_is_made_and_says_what_from(model: Path, site: Path, tmp_path: Path) -> None:
    before = TrainedModel.load(model)
    out = tmp_path / "adapted"
    summary = run(model, healthy=site, out=out, device="cpu")
    assert summary.exit_code == 0
    assert TrainedModel.load(model).sha256 == before.sha256
    new = TrainedModel.load(out / "model")
    detector = from_artifact(new)
    assert detector.calibration.healthy.n == 12
    assert new.meta["adapted"][0]["from_sha256"] == before.sha256
    assert len(new.meta["adapted"][0]["cases"]) == 12
    assert "training_sha256" not in new.meta
    metrics = json.loads((out / "metrics.json").read_text())
    words = "12 healthy subjects of the new site have "
    assert any(line.startswith(words) for line in summary.lines)
    page = (out / "report.html").read_text()
    assert words in page
    assert before.sha256 in page
    assert metrics["threshold"] == pytest.approx(detector.calibration.threshold)
    assert undeclared(out, PIPELINE) == []


def test_scans_that_the_model_has_learnt_from_and_too_few_are_refused(model: Path, site: Path, tmp_path: Path) -> None:
    with pytest.raises(AuditError, match=r"new-00\.nii\.gz: is a of the scans that the model was made from"):
        run(model.parent / "learnt", healthy=site, out=tmp_path / "a", device="cpu")
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(site.glob("*"))[:9]:
        (few / path.name).write_bytes(path.read_bytes())
    with pytest.raises(CalibrationError, match="at least 10 subjects, found 9"):
        run(model, healthy=few, out=tmp_path / "b", device="cpu")
