"""``medgen anomaly adapt``: a new detector for another site with its lineage, and the old one as it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from medgen import io
from medgen.anomaly.adaptation import Adapted
from medgen.anomaly.artifact import from_artifact, to_artifact
from medgen.anomaly.config import AnomalyConfig
from medgen.anomaly.detector import AnomalyDetector
from medgen.data.cases import sha256_of
from medgen.data.layouts.cohort_config import CohortConfig
from medgen.errors import AuditError, CalibrationError
from medgen.models.artifact import TrainedModel
from medgen.models.catalogue import build
from medgen.pipelines.anomaly.adapt import PIPELINE, run
from medgen.pipelines.anomaly.which_detector import for_channels
from medgen.pipelines.given_scans import GivenScan
from medgen.preprocessing.dataset import Dataset
from medgen.preprocessing.recipe import Preprocess
from medgen.report.anomaly.adaptation import refused_words
from medgen.volume import Grid, Volume
from tests.builders.run_outputs import undeclared, unlike_the_run

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


IDS = tuple("abcdefghij")


def detector_of(channels: int, names: tuple[str, ...] = ()) -> AnomalyDetector:
    """Of ten noisy scans, without training."""
    images = torch.rand((10, channels, *CUBE), generator=torch.Generator().manual_seed(0))
    family = {"family": "vae", "shape": CUBE, "widths": (16, 16), "in_channels": channels}
    vaes = [[build(family, seed=fold)] for fold in (1, 2)]
    given = {"folds": 2, "fusion": {"channels": ["intensity"]}, "calibration": {"target_fpr": 0.1}}
    config = AnomalyConfig.model_validate({"gate": {"enabled": False}, "validation": {"enabled": False}, **given})
    recipe = Preprocess(shape=CUBE, spacing=(1, 1, 1))
    foregrounds = torch.ones((10, 1, *CUBE), dtype=torch.bool)
    data = Dataset(IDS, IDS, images, foregrounds)
    return AnomalyDetector.fit(data, [IDS[:5], IDS[5:]], vaes, config, recipe, voxel_scores=(), contrasts=names)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, site: Path) -> Path:
    detector, ids = detector_of(1), IDS
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
    assert unlike_the_run(out) == []


def test_scans_that_the_model_has_learnt_from_and_too_few_are_refused(model: Path, site: Path, tmp_path: Path) -> None:
    with pytest.raises(AuditError, match=r"new-00\.nii\.gz: is a of the scans that the model was made from"):
        run(model.parent / "learnt", healthy=site, out=tmp_path / "a", device="cpu")
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(site.glob("*"))[:9]:
        (few / path.name).write_bytes(path.read_bytes())
    with pytest.raises(CalibrationError, match="at least 10 subjects, found 9"):
        run(model, healthy=few, out=tmp_path / "b", device="cpu")


def test_detectors_for_missing_channels_are_moved_too(site: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    both = {"cases": list(IDS), "inputs": {}}
    to_artifact(detector_of(2, ("T1", "T2")), both).save(old / "model")
    alone = to_artifact(detector_of(1, ("T2",)), {**both, "missing": ["T1"]}).save(old / "model-without" / "T1")
    files = sorted(site.glob("*"))
    lines = [
        f"s{number},{one};{other}"
        for number, (one, other) in enumerate(zip(files, [*files[1:], files[0]], strict=True))
    ]
    (tmp_path / "two.csv").write_text("\n".join(["id,image", *lines]) + "\n")
    (tmp_path / "two.json").write_text(json.dumps({"name": "two", "channels": ["T1", "T2"]}))
    config = CohortConfig(roots=(site,))
    summary = run(old / "model", healthy=tmp_path / "two.csv", cohort=config, out=tmp_path / "new", device="cpu")
    assert any(line.startswith("without T1: 12 healthy subjects of the new site") for line in summary.lines)
    moved = TrainedModel.load(tmp_path / "new" / "model-without" / "T1")
    assert moved.meta["adapted"][0]["from_sha256"] == TrainedModel.load(alone).sha256
    assert from_artifact(moved).calibration.healthy.n == 12
    # The T2 of a scan is the T1 of the next: what was made of all T2 is what a detector of one channel makes of them.
    metrics = json.loads((tmp_path / "new" / "metrics.json").read_text())
    run(alone, healthy=site, out=tmp_path / "one", device="cpu")
    one = json.loads((tmp_path / "one" / "metrics.json").read_text())
    assert metrics["without"]["T1"]["threshold"] == pytest.approx(one["threshold"])
    assert metrics["threshold"] != pytest.approx(one["threshold"])
    assert "Before and after, without T1" in (tmp_path / "new" / "report.html").read_text()
    assert undeclared(tmp_path / "new", PIPELINE) == []
    # Scans without T1 are scored by it; those without T2 are refused with the detectors that there are.
    _, artifact = for_channels(tmp_path / "new" / "model", [GivenScan.parse(Path(f"T2={files[0]}"))], "cpu")
    assert artifact.sha256 == moved.sha256


def test_label_maps_are_no_healthy_scans(model: Path, site: Path, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    shutil.copytree(site, folder)
    labels = np.zeros((1, *CUBE), dtype=np.uint8)
    for number in range(3):
        labels[0, 2:6, 2:8, 2:8], labels[0, 6:10, 2:8, 2 : 7 + number] = 1, 2
        # On a grid of its own: no neighbour tells what it is.
        io.write(Volume(labels, Grid(CUBE, np.diag([1, 1, 1.01, 1]))), folder / f"drawn-{number}.nii.gz")
    summary = run(model, healthy=folder, out=tmp_path / "out", device="cpu")
    assert summary.exit_code == 1
    failures = (tmp_path / "out" / "failures.csv").read_text()
    assert failures.count("few whole numbers in connected pieces, as a label map has") == 3
    assert len(TrainedModel.load(tmp_path / "out" / "model").meta["adapted"][0]["cases"]) == 12


def test_scans_that_the_old_gate_refuses_are_named() -> None:
    names = tuple(f"new-{number}" for number in range(7))
    said = refused_words(Adapted(None, 0.1, names, np.zeros(1), 0))  # type: ignore[arg-type]
    assert "refuses 7 of these scans (new-0, new-1, new-2, new-3, new-4 and 2 more)" in said
    assert refused_words(Adapted(None, 0.1, (), np.zeros(1), 0)) == ""  # type: ignore[arg-type]
