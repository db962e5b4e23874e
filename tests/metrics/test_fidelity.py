from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from medgen.errors import DataError
from medgen.metrics.fidelity import (
    compare_diversity,
    compare_features,
    compare_statistics,
    compare_volumes,
    standardised,
)
from medgen.metrics.halves import Measure, subject_splits
from medgen.metrics.interval import Interval
from medgen.metrics.mmd import mmd2, polynomial_kernel

GROUPS = [f"subject {row // 2}" for row in range(48)]


def features(seed: int, n: int = 48, d: int = 20) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def measures(synthetic: np.ndarray, groups: list[str] = GROUPS, seed: int = 0) -> dict[str, Measure]:
    found = compare_features(features(0, len(groups)), groups, synthetic, splits=60, seed=seed)
    return {item.name: item for item in found}


def test_splits_are_disjoint_by_subject_and_of_equal_size() -> None:
    groups = ["a"] * 5 + ["b"] * 2 + ["c", "d", "e"]
    splits = subject_splits(groups, 6, 30, 0)
    assert len(splits) == 30
    for split in splits:
        assert not {groups[row] for row in split.first} & {groups[row] for row in split.second}
        assert len({groups[row] for row in split.first}) == 3
        assert len(split.second) == len(split.synthetic) == len(set(split.synthetic.tolist()))
    assert {len(split.second) for split in splits} == {2}
    assert len({tuple(sorted(split.first)) for split in splits}) > 5
    # Half of the synthetic scans at most, so that these scatter too.
    assert len(subject_splits(GROUPS, 10, 1, 0)[0].synthetic) == 5
    assert subject_splits(["a", "b", "c"], 6, 30, 0) == []
    assert subject_splits(GROUPS, 3, 30, 0) == []


def test_samples_of_one_distribution_meet_every_goal() -> None:
    found = measures(features(1, 60))
    assert list(found) == ["kid", "mmd", "density", "coverage"]
    for name in ("kid", "mmd", "coverage"):
        assert found[name].met
        assert found[name].sure
    assert abs(found["kid"].ratio.estimate) < 2
    assert found["kid"].synthetic.low < 0 < found["kid"].synthetic.high
    assert found["density"].synthetic.estimate == pytest.approx(1, abs=0.35)
    assert found["coverage"].real.estimate > 0.9
    assert found["kid"].synthetic.n == 24


def test_floor_is_the_root_mean_square_between_halves() -> None:
    real, synthetic = features(0), features(1, 60)
    kid = measures(synthetic)["kid"]
    scaled, made = standardised(real, synthetic)
    values, against = [], []
    for split in subject_splits(GROUPS, 60, 60, 0):
        first = scaled[split.first]
        groups = [GROUPS[row] for row in split.first]
        others = [GROUPS[row] for row in split.second]
        values.append(mmd2(first, scaled[split.second], polynomial_kernel, groups, others))
        names = [str(row) for row in split.synthetic]
        against.append(mmd2(first, made[split.synthetic], polynomial_kernel, groups, names))
    assert kid.floor == pytest.approx(math.sqrt(np.mean(np.square(values))))
    assert kid.real.estimate == pytest.approx(np.mean(values))
    assert (kid.synthetic.low, kid.synthetic.high) == pytest.approx(np.quantile(against, [0.025, 0.975]))
    # The unbiased estimate of all scans is what smaller samples give on average.
    assert kid.synthetic.estimate == pytest.approx(np.mean(against), abs=0.5 * kid.floor)
    assert kid.ratio.estimate == pytest.approx(kid.synthetic.estimate / kid.floor)


def test_shifted_collapsed_and_noisy_generators_are_caught() -> None:
    shifted = measures(features(1, 60) + 0.7)
    assert shifted["kid"].met is False
    assert shifted["kid"].sure
    assert shifted["mmd"].met is False
    collapsed = measures(features(0)[:1] + 0.01 * features(2, 60))
    assert collapsed["kid"].met is False
    assert collapsed["coverage"].met is False
    assert collapsed["coverage"].synthetic.estimate < 0.4
    noisy = measures(features(3, 60) * 5)
    assert noisy["density"].synthetic.estimate < 0.05
    assert noisy["coverage"].met is False
    assert noisy["kid"].met is False


def test_few_subjects_give_numbers_without_a_floor() -> None:
    kid = measures(features(1, 12), ["a", "a", "b", "b", "c", "c"])["kid"]
    assert math.isfinite(kid.synthetic.estimate)
    assert math.isnan(kid.floor)
    assert math.isnan(kid.ratio.estimate)
    assert kid.met is None
    assert not kid.sure


def test_same_seed_same_numbers() -> None:
    assert measures(features(1)) == measures(features(1))
    assert measures(features(1)) != measures(features(1), seed=1)


def test_unusable_features_are_refused() -> None:
    bad = features(1)
    bad[4, 2] = np.nan
    with pytest.raises(DataError, match="synthetic scan number 5 are not finite"):
        measures(bad)
    with pytest.raises(DataError, match="one length"):
        measures(features(1, d=19))
    constant = np.column_stack([features(0), np.full(48, 7.0)])
    scaled, made = standardised(constant, constant + 1)
    assert np.allclose(scaled[:, -1], 0)
    assert np.allclose(made[:, -1], 1)


def likeness(n: int, level: float, seed: int) -> np.ndarray:
    table = level + 0.02 * np.random.default_rng(seed).normal(size=(n, n))
    return (table + table.T) / 2


def test_a_generator_that_repeats_itself_is_too_alike() -> None:
    groups = [str(row) for row in range(20)]
    real = likeness(20, 0.5, 0)
    good = compare_diversity(real, groups, likeness(15, 0.52, 1))
    assert good.ratio.estimate == pytest.approx(1.04, abs=0.01)
    assert good.ratio.low < good.ratio.estimate < good.ratio.high
    assert good.met
    assert good.sure
    for level in (0.9, 0.2):
        assert compare_diversity(real, groups, likeness(15, level, 1)).met is False


def test_volumes_shift_by_their_wasserstein_distance() -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(1000, 50, 48)
    same = compare_volumes(real, GROUPS, rng.normal(1000, 50, 60), "volume_1", splits=60)
    assert same.ratio.estimate == pytest.approx(1, abs=0.6)
    shifted = compare_volumes(real, GROUPS, real + 300, "volume_1", splits=60)
    # The distance of a sample and its shifted copy is the shift, in closed form.
    assert shifted.synthetic.estimate == pytest.approx(300, rel=0.03)
    assert shifted.ratio.low > 5
    few = compare_volumes(real[:6], ["a", "a", "b", "b", "c", "c"], real[:6] + 300, "volume_1")
    assert few.synthetic.estimate == pytest.approx(300)
    assert math.isnan(few.floor)


def test_statistics_that_differ_are_named() -> None:
    rng = np.random.default_rng(0)
    real = {"same": rng.normal(size=48), "moved": rng.normal(size=48)}
    made = {"same": rng.normal(size=40), "moved": rng.normal(size=40) + 3}
    same, moved = compare_statistics(real, GROUPS, made, 4, splits=40)
    assert (same.label, same.statistic, moved.statistic) == (4, "same", "moved")
    assert moved.unlike
    assert not same.unlike
    assert moved.difference == pytest.approx(3, abs=0.5)
    splits = subject_splits(GROUPS, 40, 40, 0)
    exact = [stats.ks_2samp(real["same"][s.first], made["same"][s.synthetic]).statistic for s in splits]
    assert same.ks == pytest.approx(np.mean(exact))
    assert moved.real == pytest.approx((real["moved"].mean(), real["moved"].std(ddof=1)))


def test_goals_are_judged_by_the_whole_interval() -> None:
    def item(low: float, value: float, high: float) -> Measure:
        ratio = Interval(value, low, high, 10)
        return Measure("kid", ratio, ratio, 1.0, ratio, (-math.inf, 3.0))

    assert (item(1, 2, 2.5).met, item(1, 2, 2.5).sure) == (True, True)
    assert (item(1, 2, 3.5).met, item(1, 2, 3.5).sure) == (True, False)
    assert (item(2.5, 4, 5).met, item(2.5, 4, 5).sure) == (False, False)
    assert (item(3.5, 4, 5).met, item(3.5, 4, 5).sure) == (False, True)
    assert item(1, math.nan, 2).met is None
    assert replace(item(1, 2, 3), goal=None).met is None
    assert replace(item(1, 2, 3), goal=(1.5, math.inf), judged="synthetic").met
