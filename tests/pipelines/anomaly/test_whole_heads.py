"""A whole head from the scanner is scored by a model of stripped brains: stripped, scored, and nothing outside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from medgen import io
from medgen.anomaly.artifact import to_artifact
from medgen.anomaly.config import AnomalyConfig
from medgen.anomaly.detector import AnomalyDetector
from medgen.data.cases import Case, Manifest
from medgen.data.simulation import SubjectDrawer, cohort_grid
from medgen.io.nifti import read_nifti
from medgen.models.catalogue import build
from medgen.pipelines.anomaly import score as scoring
from medgen.preprocessing.automatic import fit_preprocess
from medgen.preprocessing.brain_extraction import BrainExtraction
from medgen.preprocessing.dataset import prepare_dataset
from medgen.volume import Grid, Volume
from tests.builders.whole_heads import WholeHead, whole_head


@pytest.fixture(scope="module")
def brain() -> Volume:
    return SubjectDrawer(cohort_grid(5.0)).draw(2, 0).image


@pytest.fixture(scope="module")
def head(brain) -> WholeHead:
    return whole_head(brain, 4)


@pytest.fixture(scope="module")
def model(brain, tmp_path_factory) -> Path:
    """A detector of ten noisy copies of the brain, stripped; its recipe is the one that such a cohort gets."""
    folder = tmp_path_factory.mktemp("cohort")
    cases = []
    for number in range(10):
        rng = np.random.default_rng(number)
        shading = ndimage.gaussian_filter(rng.standard_normal(brain.data.shape), (0, 5, 5, 5))
        noise = 1 + 0.15 * shading / shading.std() + 0.05 * rng.standard_normal(brain.data.shape)
        scan = brain.with_data(np.round(brain.data * noise).clip(0).astype(np.int16))
        io.write(scan, folder / f"b{number}.nii.gz")
        cases.append(Case(f"b{number}", f"b{number}", (folder / f"b{number}.nii.gz",)))
    manifest = Manifest("brains", folder, tuple(cases))
    wanted = {"shape": [24, 28, 24], "spacing": [8, 8, 8], "align": "center", "center_on": "foreground"}
    recipe = fit_preprocess(manifest, wanted, 64)
    assert (recipe.modality, recipe.brain) == ("MR", "auto")
    data, failures = prepare_dataset(manifest, recipe)
    assert not failures
    given = {"folds": 2, "fusion": {"channels": ["zscore"]}, "calibration": {"target_fpr": 0.1}}
    config = AnomalyConfig.model_validate({**given, "validation": {"enabled": False}})
    vaes = [[build({"family": "vae", "shape": recipe.shape, "widths": (16, 16)}, seed=fold)] for fold in (1, 2)]
    folds = [data.ids[:5], data.ids[5:]]
    detector = AnomalyDetector.fit(data, folds, vaes, config, recipe, voxel_scores=())
    return to_artifact(detector, {"cases": list(data.ids)}).save(folder / "model")


def test_a_head_is_stripped_scored_and_explained(model, head, tmp_path, monkeypatch) -> None:
    truth = head.brain.data > 0
    found = BrainExtraction(head.brain.with_data(truth), 1321.0, 0.7, 0.95, 0.0, np.eye(4))
    monkeypatch.setattr("medgen.preprocessing.cleaning.extract_brain", lambda scan: found)
    io.write(head.image, tmp_path / "head.nii.gz")
    scoring.score([tmp_path / "head.nii.gz"], model=model, out=tmp_path / "out", ungated=True)
    heat = read_nifti(tmp_path / "out" / "heatmaps" / "head.nii.gz", allow_nan=True)
    assert heat.grid.same_as(head.image.grid)
    scored = np.isfinite(heat.data)
    # The surface of 8 mm voxels.
    assert (scored & truth).sum() > 0.85 * truth.sum()
    assert not scored[0][ndimage.distance_transform_edt(~truth[0]) * 5 > 8].any()
    page = (tmp_path / "out" / "report.html").read_text()
    assert "The brain was extracted from the whole head: 1321 ml" in page
    assert "as it was read and as it was scored" in page
    assert "extracted from whole heads, stripped scans are left as they are" in page


def test_a_head_whose_brain_is_not_found_is_refused_with_the_reason(model, tmp_path) -> None:
    """A ball of the size of a head."""
    grid = Grid((44, 50, 50), np.diag([5.0, 5, 5, 1]))
    points = np.indices(grid.shape) * 5 - np.array([107, 122, 122])[:, None, None, None]
    inside = np.linalg.norm(points / np.array([75, 95, 110])[:, None, None, None], axis=0) < 1
    noise = np.random.default_rng(0)
    ball = np.where(inside, noise.normal(500, 60, grid.shape), np.abs(noise.normal(0, 8, grid.shape)))
    io.write(Volume(ball[None].astype(np.float32), grid), tmp_path / "ball.nii.gz")
    scoring.score([tmp_path / "ball.nii.gz"], model=model, out=tmp_path / "out")
    said = (tmp_path / "out" / "failures.csv").read_text()
    assert "set preprocess.brain=keep" in said or "strip it with another tool" in said
    assert "gate" in said
