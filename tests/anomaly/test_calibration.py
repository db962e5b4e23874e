from __future__ import annotations

import numpy as np
import pytest

from medgen.anomaly.calibration import check_target, p_value, scans_needed, significant, threshold
from medgen.errors import CalibrationError


@pytest.mark.parametrize(("target", "needed"), [(0.05, 19), (0.01, 99), (0.1, 9), (0.2, 4), (1 / 3, 2)])
def test_the_smallest_p_value_decides_how_many_scans_are_needed(target, needed):
    assert scans_needed(target) == needed
    check_target(target, needed)
    with pytest.raises(CalibrationError):
        check_target(target, needed - 1)
    assert p_value(np.zeros(needed), 1.0) <= target + 1e-12


def test_an_unreachable_target_is_refused_with_what_is_needed_and_what_is_reachable():
    with pytest.raises(CalibrationError, match=r"5 % needs at least 19 healthy scans.*found 9.*0\.1 or more"):
        check_target(0.05, 9)


@pytest.mark.parametrize("n", [1, 2, 5, 9, 13, 17])
def test_the_target_that_a_refusal_names_is_reachable(n):
    with pytest.raises(CalibrationError) as caught:
        check_target(0.001, n)
    named = float(str(caught.value).split("target_fpr to ")[1].split()[0])
    check_target(named, n)


@pytest.mark.parametrize("target", [0.05, 0.1, 0.25])
def test_threshold_and_p_value_agree(target):
    scores = np.random.default_rng(0).normal(size=40)
    limit = threshold(scores, target)
    for value in np.linspace(scores.min() - 1, scores.max() + 1, 400):
        assert (value > limit) == (p_value(scores, float(value)) <= target + 1e-12)


def test_p_values_of_exchangeable_scores_are_valid():
    rng = np.random.default_rng(1)
    p = np.array([p_value(scores[1:], scores[0]) for scores in rng.exponential(size=(4000, 20))])
    for alpha in (0.05, 0.1, 0.3):
        # Super-uniform, up to three standard errors of the simulation.
        assert (p <= alpha).mean() <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / len(p))


def test_rounding_does_not_decide():
    assert all(significant(k / 60, k / 60) and not significant((k + 1) / 60, k / 60) for k in range(1, 59))
