"""Moving a detector to another site: its scans have other noise and contrast, and healthy ones are normal again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from medgen.anomaly.adaptation import adapt
from medgen.anomaly.artifact import from_artifact, to_artifact
from medgen.anomaly.config import AnomalyConfig
from medgen.anomaly.detector import AnomalyDetector
from medgen.errors import CalibrationError, DataError
from medgen.models.catalogue import build
from medgen.preprocessing.dataset import Dataset, prepared_record
from medgen.preprocessing.recipe import Preprocess

CUBE = (14, 14, 14)
RECIPE = Preprocess(shape=CUBE, spacing=(2, 2, 2))


def site(count: int, seed: int, noise: float = 1.0, slope: float = 0.0) -> Dataset:
    """Smooth anatomy and noise; at another site more noise, and intensities that rise from left to right."""
    rng = np.random.default_rng(seed)
    grid = np.linspace(-1, 1, CUBE[0])
    anatomy = np.cos(3 * grid)[:, None, None] * np.cos(2 * grid)[None, :, None] * np.ones(CUBE)
    data = anatomy + 0.3 * noise * rng.normal(size=(count, 1, *CUBE)) + slope * grid[:, None, None]
    names = tuple(f"s{seed}-{number}" for number in range(count))
    images = torch.from_numpy(data.astype(np.float32))
    made = Dataset(names, names, images, torch.ones((count, 1, *CUBE), dtype=torch.bool))
    return replace(made, prepared=tuple(prepared_record(made, row, RECIPE.spacing) for row in range(count)))


@pytest.fixture(scope="module")
def detector() -> AnomalyDetector:
    data = site(20, 1)
    vaes = [[build({"family": "vae", "shape": CUBE, "widths": (16, 16)}, seed=fold)] for fold in (1, 2)]
    given = {"folds": 2, "fusion": {"channels": ["zscore"]}, "validation": {"enabled": False}}
    config = AnomalyConfig.model_validate({**given, "gate": {"enabled": False}, "calibration": {"target_fpr": 0.1}})
    return AnomalyDetector.fit(data, [data.ids[::2], data.ids[1::2]], vaes, config, RECIPE, voxel_scores=())


def flagged(own: AnomalyDetector, data: Dataset, blob: float = 0.0) -> float:
    share = []
    for row in range(len(data)):
        image = data.images[row].clone()
        image[:, 5:8, 5:8, 5:8] += blob
        result = own.result(data.prepared[row], own.measure(image, data.foregrounds[row]))
        share.append(result.p_values["max"] <= own.config.calibration.target_fpr + 1e-9)
    return float(np.mean(share))


def test_healthy_scans_of_the_new_site_are_normal_after_adaptation_and_lesions_are_found(detector):
    new = adapt(detector, site(12, 2, noise=1.6, slope=0.5))
    fresh = site(15, 3, noise=1.6, slope=0.5)
    before, after = flagged(detector, fresh), flagged(new.detector, fresh)
    assert before > 0.9
    assert after <= 0.3
    assert flagged(new.detector, fresh, blob=2.0) > 0.9
    assert new.passing == 12
    assert new.false_findings.mean() > 2
    assert new.target == 0.1
    assert new.detector.calibration.folds.tolist() == [-1] * 12
    # The old one is as it was, and the new one can be kept.
    assert len(detector.calibration.maxima) == 20
    again = from_artifact(to_artifact(new.detector))
    image, foreground = fresh.images[0], fresh.foregrounds[0]
    np.testing.assert_allclose(
        again.measure(image, foreground).heat, new.detector.measure(image, foreground).heat, atol=1e-6
    )


def test_the_calibration_is_what_scoring_without_the_scan_would_give(detector):
    data = site(11, 4, noise=1.3)
    whole, without = adapt(detector, data), adapt(detector, data.subset(data.ids[1:]))
    scored = without.detector.result(data.prepared[0], without.detector.measure(data.images[0], data.foregrounds[0]))
    assert whole.detector.calibration.scores["max"][0] == pytest.approx(scored.scores["max"], rel=1e-4)


def test_adapting_to_the_same_site_changes_little(detector):
    new = adapt(detector, site(14, 5))
    fresh = site(1, 6)
    assert new.passing <= 4
    image, foreground = fresh.images[0], fresh.foregrounds[0]
    z, moved = (own.measure(image, foreground).z["zscore"] for own in (detector, new.detector))
    assert np.corrcoef(z.ravel(), moved.ravel())[0, 1] > 0.9


def test_fewer_than_ten_subjects_are_refused_and_the_target_follows_the_number(detector):
    with pytest.raises(CalibrationError, match="at least 10 subjects, found 9; add scans"):
        adapt(detector, site(9, 7))
    strict = replace(
        detector,
        config=detector.config.model_copy(update={"calibration": type(detector.config.calibration)(target_fpr=0.05)}),
    )
    assert adapt(strict, site(10, 8)).target == pytest.approx(0.091)


def test_scans_with_other_channels_are_refused(detector):
    with pytest.raises(DataError, match="2 contrasts; expected 1, as the model has"):
        adapt(detector, site(10, 8).of_channels([0, 0]))
