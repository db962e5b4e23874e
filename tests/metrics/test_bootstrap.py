import numpy as np
import pytest
from scipy import stats

from medgen.errors import DataError
from medgen.metrics.bootstrap import (
    binomial_interval,
    hierarchical_bootstrap,
    holm,
    sign_flip_p,
)
from medgen.metrics.interval import Interval


def test_the_mean_of_one_seed_has_the_normal_width() -> None:
    values = np.random.default_rng(0).normal(3, 2, size=100)
    interval = hierarchical_bootstrap([values], n=4000)
    half = 1.96 * values.std() / 10
    assert interval.estimate == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.06)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.06)
    assert interval == hierarchical_bootstrap([values], n=4000)
    assert interval != hierarchical_bootstrap([values], n=4000, seed=1)
    assert not interval.low <= 0 <= interval.high
    assert interval.low <= interval.estimate <= interval.high


def test_paired_differences_agree_with_scipys_percentiles() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.exponential(2, size=25), rng.exponential(1, size=25)
    mine = hierarchical_bootstrap([a - b], n=20_000)
    reference = stats.bootstrap((a - b,), np.mean, n_resamples=20_000, method="percentile", rng=rng).confidence_interval
    assert mine.low == pytest.approx(reference.low, abs=0.03)
    assert mine.high == pytest.approx(reference.high, abs=0.03)
    assert hierarchical_bootstrap([a - a]) == Interval(0, 0, 0, 25)


def test_subject_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(2)
    trials = [hierarchical_bootstrap([rng.exponential(1, 20) - 1], n=500, seed=i) for i in range(300)]
    covered = np.mean([interval.low <= 0 <= interval.high for interval in trials])
    assert 0.86 <= covered <= 0.98


def test_hierarchical_is_wider_than_subjects_alone_when_seeds_differ() -> None:
    rng = np.random.default_rng(3)
    subjects = rng.normal(size=30)
    same, different = np.tile(subjects, (3, 1)), subjects + np.array([[-1.0], [0], [1]])
    narrow, wide = hierarchical_bootstrap(same), hierarchical_bootstrap(different)
    alone = hierarchical_bootstrap([subjects])
    assert narrow.high - narrow.low == pytest.approx(alone.high - alone.low, rel=0.1)
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)
    assert wide.estimate == pytest.approx(subjects.mean())
    assert wide.n == 30


def test_sign_flips_match_scipy_and_are_never_zero() -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(0.5, 1, size=9)
    expected = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    assert sign_flip_p(values) == pytest.approx(expected)
    assert sign_flip_p(np.ones(40), n=999) == pytest.approx(1 / 1000)
    assert sign_flip_p(np.zeros(5)) == 1


def test_holm_keeps_order_and_is_monotone() -> None:
    assert holm([0.04, 0.01, 0.5, 0.03]) == pytest.approx([0.09, 0.04, 0.5, 0.09])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (1, 200)])
def test_binomial_interval_matches_scipy(k: int, n: int) -> None:
    expected = stats.binomtest(k, n).proportion_ci(0.95, method="exact")
    interval = binomial_interval(k, n)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    assert interval.estimate == k / n


def test_unusable_input_is_refused() -> None:
    with pytest.raises(DataError, match="found none"):
        hierarchical_bootstrap(np.zeros((0, 0)))
    with pytest.raises(DataError, match="not finite"):
        hierarchical_bootstrap([[1, np.nan]])
    with pytest.raises(DataError, match="seeds, subjects"):
        hierarchical_bootstrap([1.0, 2.0])
    with pytest.raises(DataError, match="0 <= k <= n"):
        binomial_interval(3, 2)


def test_a_further_axis_is_resampled_too() -> None:
    rng = np.random.default_rng(0)
    generators = rng.normal(0, 1, (6, 1, 1))
    values = np.broadcast_to(generators, (6, 3, 40)) + rng.normal(0, 0.1, (6, 3, 40))
    interval = hierarchical_bootstrap(values, n=4000)
    # Almost all of the variance is of the six generators: the standard error of their mean decides.
    expected = generators.std() / np.sqrt(6)
    assert (interval.high - interval.low) / (2 * 1.96) == pytest.approx(expected, rel=0.1)
    assert interval.n == 40
    # With one of them it is the interval of seeds and subjects.
    one, alone = hierarchical_bootstrap(values[:1]), hierarchical_bootstrap(values[0])
    assert (one.low, one.high) == pytest.approx((alone.low, alone.high), rel=1e-9)
