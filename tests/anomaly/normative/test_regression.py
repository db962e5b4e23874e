from __future__ import annotations

import numpy as np
import pytest

from medgen.anomaly.normative.config import NormativeConfig
from medgen.anomaly.normative.maps import normative_of, with_spread
from medgen.anomaly.normative.moments import Moments
from medgen.anomaly.normative.regression import regress

SHAPE = (8, 7, 6)
EVERYWHERE = np.ones(SHAPE, dtype=bool)
AS_IT_IS = NormativeConfig(blur=0, prior=0)


def people(n, d, seed=0):
    rows = np.random.default_rng(seed).normal(size=(n, d))
    return (rows - rows.mean(0)) / rows.std(0)


def moments(maps, rows=None, masks=None):
    masks = np.ones(maps.shape, dtype=bool) if masks is None else masks
    return Moments.of([values[mask] for values, mask in zip(maps, masks, strict=True)], masks, SHAPE, rows)


def effects(n, slope, seed=1, d=2):
    """Maps of unit variance about slopes (d, i, j, k), and the people."""
    rows = people(n, d)
    noise = np.random.default_rng(seed).normal(size=(n, *SHAPE))
    return noise + np.einsum("nd,d...->n...", rows, slope), rows


def test_a_strong_effect_is_the_least_squares_slope():
    slope = np.zeros((2, *SHAPE))
    slope[0], slope[1, :4] = 5, -8
    maps, rows = effects(60, slope)
    fit = regress(moments(maps, rows), EVERYWHERE, 0, 10)
    design = np.column_stack([np.ones(60), rows])
    direct, rest = np.linalg.lstsq(design, maps.reshape(60, -1), rcond=None)[:2]
    # Shrunk by n β² / (n β² + σ²).
    np.testing.assert_allclose(fit.slopes[0], direct[1], rtol=5e-3)
    np.testing.assert_allclose(fit.intercept, direct[0], atol=1e-6)
    strong = slope[1].ravel() != 0
    np.testing.assert_allclose(fit.slopes[1][strong], direct[2][strong], rtol=5e-3)
    assert (fit.spread >= rest - 1e-9).all()
    assert fit.freedom[strong] == pytest.approx(57, abs=0.01)


def test_without_an_effect_slopes_are_shrunk_and_cost_little():
    maps, rows = effects(20, np.zeros((2, *SHAPE)))
    fit = regress(moments(maps, rows), EVERYWHERE, 1.5, 10)
    direct = np.linalg.lstsq(np.column_stack([np.ones(20), rows]), maps.reshape(20, -1), rcond=None)[0][1:]
    assert (fit.slopes**2).mean() < 0.2 * (direct**2).mean()
    assert np.abs(fit.uncertainty).max() < 0.05


def test_an_effect_in_one_part_stays_there():
    slope = np.zeros((1, *SHAPE))
    slope[0, :3] = 1.0
    maps, rows = effects(40, slope, d=1)
    fit = regress(moments(maps, rows), EVERYWHERE, 1.0, 10)
    found = fit.slopes[0].reshape(SHAPE)
    assert found[:2].mean() == pytest.approx(1, abs=0.1)
    assert abs(found[5:].mean()) < 0.05


def test_slopes_are_those_of_rows_that_were_never_there():
    rng = np.random.default_rng(2)
    maps, rows = effects(24, rng.normal(size=(2, *SHAPE)))
    masks = rng.random(size=maps.shape) < 0.8
    rest = moments(maps, rows, masks) - moments(maps[:6], rows[:6], masks[:6])
    direct = moments(maps[6:], rows[6:], masks[6:])
    config, covariance = NormativeConfig(), np.cov(rows, rowvar=False)
    one, other = (normative_of(own, EVERYWHERE, config, covariance) for own in (rest, direct))
    for part in ("mean", "sd"):
        np.testing.assert_allclose(getattr(one, part), getattr(other, part), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(one.adjustment.slopes, other.adjustment.slopes, atol=1e-5)
    np.testing.assert_allclose(one.adjustment.uncertainty, other.adjustment.uncertainty, atol=1e-8)


def test_fresh_people_have_standard_z_whatever_they_are():
    rng = np.random.default_rng(3)
    slope = 0.8 * rng.choice([-1, 1], size=(1, *SHAPE))

    def draw(n):
        rows = rng.uniform(-1.7, 1.7, size=(n, 1))
        noise = rng.normal(size=(n, *SHAPE)) * np.exp(0.3 * rows)[:, :, None, None]
        return noise + np.einsum("nd,d...->n...", rows, slope), rows

    maps, rows = draw(60)
    flat, masks = [values[EVERYWHERE] for values in maps], [EVERYWHERE] * 60
    config, covariance = NormativeConfig(blur=1.0), np.atleast_2d(np.var(rows))
    plain = normative_of(Moments.of(flat, masks, SHAPE), EVERYWHERE, config)
    own = normative_of(Moments.of(flat, masks, SHAPE, rows), EVERYWHERE, config, covariance)
    own = with_spread(own, flat, masks, rows, EVERYWHERE, config)
    for age in (-1.5, 0.0, 1.5):
        fresh, _ = draw(400)
        person = np.array([age])
        fresh = rng.normal(size=(200, *SHAPE)) * np.exp(0.3 * age) + age * slope[0]
        adjusted, unadjusted = own.at(person).z(fresh), plain.z(fresh)
        assert adjusted.std() == pytest.approx(1, abs=0.12)
        assert abs((adjusted * np.sign(slope[0])).mean()) < 0.12
        if age:
            assert abs((unadjusted * np.sign(slope[0])).mean()) > 0.6
    # Of somebody unknown mean and variance are those of the cohort as a whole.
    everybody, _ = draw(400)
    z = own.at(np.array([np.nan])).z(everybody)
    assert abs(z.mean()) < 0.1
    assert z.std() == pytest.approx(1, abs=0.12)
    np.testing.assert_array_equal(own.at(None).sd, own.at(np.array([np.nan])).sd)


def test_places_where_x_does_not_vary_have_finite_slopes():
    maps, rows = effects(12, np.ones((1, *SHAPE)), d=1)
    masks = np.ones(maps.shape, dtype=bool)
    # Two scans cover the first plane, of people who are alike in all that is known.
    rows[:2] = 0.3
    masks[2:, 0] = False
    own = normative_of(moments(maps, rows, masks), EVERYWHERE, NormativeConfig(), np.eye(1))
    assert np.isfinite(own.adjustment.slopes).all()
    assert (own.at(np.array([2.0])).sd > 0).all()
