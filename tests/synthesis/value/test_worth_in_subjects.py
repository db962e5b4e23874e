"""The worth in real scans: known curves are read right, and nothing beyond their ends."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from medgen.errors import DataError
from medgen.synthesis.value.worth_in_subjects import best_over_sizes, equivalent, worth
from tests.builders.made_up import made_up

SIZES = (5, 10, 20, 40)


def curve(size: float) -> float:
    return 0.01 * math.log(size / 5)


def test_a_known_worth_is_recovered() -> None:
    gains = {n: {"standard": curve(n), "standard+deform": curve(min(2.4 * n, 70))} for n in SIZES}
    rows = made_up(gains, rng=np.random.default_rng(0), test=80, noise=0.002, per_subject=0.001, per_seed=0.0)
    found = worth(rows, "standard+deform", 5, "standard", seed=0, bootstrap=500)
    assert found is not None
    assert found.low < 12 < found.high
    assert found.estimate == pytest.approx(12, rel=0.15)
    assert 0.3 < found.high - found.low < 6
    assert "5 real subjects with synthetic scans (standard+deform) are worth 1" in found.sentence
    beyond = worth(rows, "standard+deform", 40, "standard", seed=0, bootstrap=500)
    assert beyond is not None
    assert beyond.text == "> 40 [> 40, > 40]"
    # An arm is worth exactly what it is, in every resample, where its own curve rises.
    itself = worth(rows, "standard", 10, "standard", seed=0, bootstrap=500)
    assert itself is not None
    assert (itself.estimate, itself.low, itself.high) == (10, 10, 10)


def test_harm_is_below_the_curve_and_one_size_is_no_curve() -> None:
    rows = made_up(
        {n: {"standard": curve(n), "standard+deform": -0.1} for n in (5, 10)}, rng=np.random.default_rng(0), test=20
    )
    found = worth(rows, "standard+deform", 5, "standard", seed=0, bootstrap=200)
    assert found is not None
    assert found.text == "< 5 [< 5, < 5]"
    single = [row for row in rows if row["subjects"] == 5]
    assert worth(single, "standard+deform", 5, "standard", seed=0, bootstrap=200) is None
    assert worth(rows, "standard+joint", 5, "standard", seed=0, bootstrap=200) is None


def test_an_uncertain_worth_has_an_open_interval() -> None:
    gains = {n: {"standard": curve(n), "standard+deform": curve(30)} for n in SIZES}
    rows = made_up(gains, rng=np.random.default_rng(3), test=20, noise=0.01, per_subject=0.012, per_seed=0.004)
    found = worth(rows, "standard+deform", 5, "standard", seed=0, bootstrap=500)
    assert found is not None
    assert math.isinf(found.high)
    assert found.text.endswith("> 40]")


def test_a_curve_with_a_dent_is_read_like_scikit_learn_does() -> None:
    values = [0.80, 0.83, 0.82, 0.86]
    fitted = IsotonicRegression().fit_transform(np.log(SIZES), values)
    target = 0.84
    expected = math.exp(np.interp(target, fitted[2:], np.log(SIZES[2:])))
    assert equivalent(SIZES, values, target) == pytest.approx(expected)
    assert equivalent(SIZES, values, 0.8) == 5
    assert equivalent(SIZES, values, 0.79) == -math.inf
    assert equivalent(SIZES, values, 0.87) == math.inf
    # On a flat stretch the fewest subjects count.
    assert equivalent(SIZES, values, float(fitted[1])) == pytest.approx(10)
    with pytest.raises(DataError, match="ascending"):
        equivalent([10, 5], [0.1, 0.2], 0.15)


def test_the_best_arm_is_one_that_was_run_everywhere() -> None:
    means = {"a": {5: 0.8, 10: 0.85}, "b": {5: 0.7, 10: 0.96}, "c": {10: 0.99}}
    assert best_over_sizes(means) == "b"
    assert best_over_sizes({"a": {5: 0.8}}) is None
