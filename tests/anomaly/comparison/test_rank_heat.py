from __future__ import annotations

import numpy as np
from scipy import stats

from medgen.anomaly.comparison.rank_heat import RankHeat


def test_heat_of_normal_voxels_is_their_z():
    z = np.random.default_rng(0).normal(size=50_000).astype(np.float16)
    heat = RankHeat([z[:20_000], z[20_000:]])
    places = np.array([-2, -1, 0, 1, 2, 3], np.float16)
    np.testing.assert_allclose(heat(places), places, atol=0.06)


def test_heat_depends_on_the_order_alone_and_ranks_have_ties_in_the_middle():
    rng = np.random.default_rng(1)
    values = rng.integers(0, 50, size=3000).astype(np.float16)
    expected = stats.norm.ppf((stats.rankdata(values, "average") - 0.5) / values.size)
    np.testing.assert_allclose(RankHeat([values])(values), expected, rtol=1e-5, atol=1e-6)
    stretched = np.exp(values / 10).astype(np.float16)
    np.testing.assert_allclose(RankHeat([stretched])(stretched), expected, rtol=1e-5, atol=1e-6)


def test_voxels_beyond_the_hottest_healthy_one_stay_in_order_on_the_rows_own_scale():
    healthy = np.random.default_rng(2).exponential(size=5000).astype(np.float16)
    heat = RankHeat([healthy])
    beyond = float(healthy.max()) + np.array([0, 1, 2, 4, 8], np.float16)
    steps = np.diff(heat(beyond.astype(np.float16)))
    np.testing.assert_allclose(steps, steps[0] * np.array([1, 1, 2, 4]), rtol=0.02)
    # A line through heat 2 and the hottest: twice as far above the voxel of heat 2, twice the height over 2.
    at_two = np.quantile(healthy.astype(float), stats.norm.cdf(2))
    far = np.float16(2 * float(healthy.max()) - at_two)
    assert abs(float(heat(np.array([far]))[0]) - (2 * float(heat(beyond[:1].astype(np.float16))[0]) - 2)) < 0.05
    assert np.all(np.diff(heat(np.sort(np.append(healthy, far)))) >= 0)


def test_rows_of_few_or_equal_voxels_have_heats_too():
    assert RankHeat([np.zeros(9, np.float16)])(np.array([-1, 0, 2], np.float16)).tolist() == [0.0, 0.0, 2.0]
    few = RankHeat([np.arange(5, dtype=np.float16)])(np.arange(8, dtype=np.float16))
    assert np.all(np.diff(few) > 0)
