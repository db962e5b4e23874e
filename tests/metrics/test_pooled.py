import time

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from medgen.errors import DataError
from medgen.metrics.detection import average_precision
from medgen.metrics.interval import subject_weights
from medgen.metrics.pooled import bin_scores, pooled_ap_bootstrap, pooled_ap_paired

Cohort = list[tuple[np.ndarray, np.ndarray]]


def _cohort(kind: str, subjects: int = 12, voxels: int = 6000, seed: int = 0, strength: float = 1.5) -> Cohort:
    rng = np.random.default_rng(seed)
    cohort = []
    for _ in range(subjects):
        truth = rng.random(voxels) < 0.02 * rng.uniform(0.2, 2)
        scores = rng.gamma(1, 1, voxels) + truth * rng.gamma(strength, rng.uniform(0.5, 2.5), voxels)
        scores = {"smooth": scores, "ties": np.round(scores, 1), "binary": scores > 3, "heavy": np.exp(3 * scores)}[
            kind
        ]
        cohort.append((scores.reshape(10, -1), truth.reshape(10, -1)))
    return cohort


@pytest.mark.parametrize("kind", ["smooth", "ties", "binary", "heavy"])
def test_resamples_match_scikit_learn_within_a_thousandth(kind: str) -> None:
    cohort = _cohort(kind)
    weights = subject_weights(len(cohort), 6, seed=3)
    found = bin_scores(cohort).average_precision(weights)
    for row, value in zip(weights, found, strict=True):
        drawn = [unit for unit, count in zip(cohort, row, strict=True) for _ in range(int(count))]
        scores = np.concatenate([unit[0].ravel() for unit in drawn])
        truth = np.concatenate([unit[1].ravel() for unit in drawn])
        assert value == pytest.approx(average_precision_score(truth, scores), rel=1e-3)


def test_estimate_is_exact_and_inside_the_interval() -> None:
    cohort = _cohort("smooth")
    interval = pooled_ap_bootstrap(cohort, n=300)
    scores, truth = (np.concatenate([unit[part].ravel() for unit in cohort]) for part in (0, 1))
    assert interval.estimate == pytest.approx(average_precision(scores.astype(np.float32), truth), rel=1e-9)
    assert interval.low < interval.estimate < interval.high
    assert interval.n == len(cohort)
    assert interval == pooled_ap_bootstrap(bin_scores(cohort), n=300)


def test_pairs_share_their_resamples() -> None:
    strong = _cohort("smooth", strength=3)
    noisy = [(unit[0] + np.random.default_rng(i).normal(size=unit[0].shape), unit[1]) for i, unit in enumerate(strong)]
    result = pooled_ap_paired(strong, noisy, n=300)
    assert result.difference.low > 0
    assert result.ratio.low > 1
    alone = [pooled_ap_bootstrap(cohort, n=300) for cohort in (strong, noisy)]
    assert result.difference.estimate == pytest.approx(alone[0].estimate - alone[1].estimate)
    # Subjects that are hard are hard for both: the pairing makes the difference's interval narrower than the AP's own.
    assert result.difference.high - result.difference.low < alone[0].high - alone[0].low
    itself = pooled_ap_paired(strong, strong, n=50)
    assert (itself.difference.low, itself.difference.high, itself.ratio.estimate) == (0, 0, 1)


def test_nothing_positive_is_nan_and_bad_input_is_refused() -> None:
    healthy = [(np.arange(5.0), np.zeros(5)), (np.arange(5.0), np.zeros(5))]
    assert np.isnan(pooled_ap_bootstrap(healthy, n=10).estimate)
    with pytest.raises(DataError, match="same subjects"):
        pooled_ap_paired(healthy, [(np.arange(5.0), np.ones(5))] * 2, n=10)
    with pytest.raises(DataError, match="at least one subject"):
        bin_scores([])
    with pytest.raises(DataError, match="scored voxels"):
        bin_scores([(np.zeros(0), np.zeros(0))])
    with pytest.raises(DataError, match="NaN"):
        bin_scores([(np.array([np.nan]), np.ones(1))])


def test_a_million_voxels_take_a_fraction_of_a_second() -> None:
    cohort = _cohort("smooth", subjects=10, voxels=100_000)
    start = time.process_time()
    pooled_ap_bootstrap(cohort, n=1000)
    assert time.process_time() - start < 2.0
