from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from medgen.anomaly.fusion import FusionConfig, Tail, fuse, heat
from medgen.config import parse_config
from medgen.errors import ConfigError


def test_the_tail_of_normal_values_is_the_normal_tail():
    tail = Tail.of(np.random.default_rng(0).normal(size=400_000).astype(np.float32))
    for z in (0.0, 1.0, 2.0, 3.0):
        assert tail(np.float32(z)) == pytest.approx(-stats.norm.logsf(z) / np.log(10), abs=0.03)


def test_beyond_the_data_an_exponential_tail_goes_on_exactly():
    tail = Tail.of(np.random.default_rng(0).exponential(size=400_000).astype(np.float32))
    for value in (5.0, 10.0, 30.0):
        assert tail(np.float32(value)) == pytest.approx(value / np.log(10), rel=0.05)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**31 - 1),
    st.sampled_from(["normal", "heavy", "ties", "constant", "single"]),
)
def test_tails_are_monotone_and_finite_whatever_the_healthy_values(seed, kind):
    rng = np.random.default_rng(seed)
    healthy = {
        "normal": lambda: rng.normal(size=3000),
        "heavy": lambda: rng.standard_cauchy(size=3000),
        "ties": lambda: rng.integers(0, 3, size=3000).astype(float),
        "constant": lambda: np.full(50, 2.5),
        "single": lambda: np.array([rng.normal()]),
    }[kind]()
    tail = Tail.of(healthy.astype(np.float32))
    grid = np.sort(np.concatenate([healthy, rng.normal(scale=100, size=200)])).astype(np.float32)
    surprise = tail(grid)
    assert np.isfinite(surprise).all()
    assert (np.diff(surprise) >= 0).all()
    assert surprise.min() >= 0
    assert tail(np.float32(1e6)) > tail(np.float32(1e5))


def test_a_tail_survives_its_array():
    tail = Tail.of(np.random.default_rng(0).normal(size=5000).astype(np.float32))
    again = Tail.from_array(tail.to_array())
    values = np.linspace(-5, 9, 100, dtype=np.float32)
    np.testing.assert_array_equal(tail(values), again(values))


def test_fusion_is_monotone_in_every_channel():
    rng = np.random.default_rng(0)
    maps = [rng.exponential(size=(4, 5, 6)).astype(np.float32) for _ in range(3)]
    raised = [maps[0], maps[1] + 0.5, maps[2]]
    assert (fuse(raised) > fuse(maps)).all()
    np.testing.assert_allclose(fuse(maps), np.linalg.norm(maps, axis=0) / np.sqrt(3), rtol=1e-6)


def test_heat_is_the_normal_quantile_and_never_infinite():
    p = np.array([0.9, 0.5, 0.01, 1e-8])
    np.testing.assert_allclose(heat(-np.log10(p)), stats.norm.isf(p), rtol=1e-5, atol=1e-6)
    extremes = heat(np.array([0.0, 1e9], dtype=np.float32))
    assert extremes[0] == pytest.approx(-3)
    assert np.isfinite(extremes).all()


def test_a_channel_counts_once():
    with pytest.raises(ConfigError, match="named twice"):
        parse_config(FusionConfig, {"channels": ["pca", "pca"]}, "test")
