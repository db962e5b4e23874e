from __future__ import annotations

import numpy as np
import pytest

from medgen.anomaly.normative.config import NormativeConfig
from medgen.anomaly.normative.maps import Adjustment, Normative, normative_of
from medgen.anomaly.normative.moments import Moments
from medgen.errors import DataError
from medgen.transforms.masked_smoothing import smooth

SHAPE = (12, 10, 8)
EVERYWHERE = np.ones(SHAPE, dtype=bool)


def moments(maps, masks=None):
    masks = np.ones_like(maps, dtype=bool) if masks is None else masks
    return Moments.of([values[mask] for values, mask in zip(maps, masks, strict=True)], masks, SHAPE)


def test_without_blur_and_prior_it_is_mean_and_sample_sd():
    maps = np.random.default_rng(0).normal(3, 2, size=(30, *SHAPE))
    result = normative_of(moments(maps), EVERYWHERE, NormativeConfig(blur=0, prior=0))
    np.testing.assert_allclose(result.mean, maps.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(result.sd, maps.std(axis=0, ddof=1), rtol=1e-3)


def test_the_variance_is_shrunk_by_the_prior():
    maps = np.random.default_rng(0).normal(0, np.linspace(0.5, 3, SHAPE[0])[:, None, None], size=(20, *SHAPE))
    own = maps.var(axis=0, ddof=1)
    average = own.mean()
    result = normative_of(moments(maps), EVERYWHERE, NormativeConfig(blur=0, prior=10))
    weight = 10 / 30
    np.testing.assert_allclose(result.sd**2, (1 - weight) * own + weight * average, rtol=1e-3)


def test_fresh_healthy_maps_have_standard_z():
    rng = np.random.default_rng(1)
    place = rng.normal(size=SHAPE)
    healthy = lambda n: 5 + smooth(place, EVERYWHERE, 2) * 4 + rng.normal(0, 2, size=(n, *SHAPE))  # noqa: E731
    result = normative_of(moments(healthy(60)), EVERYWHERE, NormativeConfig(blur=1))
    z = np.stack([result.z(values) for values in healthy(60)])
    assert abs(z.mean()) < 0.05
    assert z.std() == pytest.approx(1, abs=0.08)


def test_leaving_a_fold_out_by_subtraction_is_the_same_as_never_having_it():
    rng = np.random.default_rng(2)
    maps = rng.normal(size=(12, *SHAPE))
    masks = rng.random(size=(12, *SHAPE)) < 0.7
    rest = moments(maps, masks) - moments(maps[:4], masks[:4])
    direct = moments(maps[4:], masks[4:])
    for config in (NormativeConfig(), NormativeConfig(blur=0, prior=0)):
        one, other = normative_of(rest, EVERYWHERE, config), normative_of(direct, EVERYWHERE, config)
        np.testing.assert_allclose(one.mean, other.mean, atol=1e-5)
        np.testing.assert_allclose(one.sd, other.sd, rtol=1e-4)


def test_places_that_no_healthy_scan_covers_get_the_average():
    maps = np.random.default_rng(3).normal(7, 2, size=(20, *SHAPE))
    masks = np.ones_like(maps, dtype=bool)
    masks[:, :2] = False
    result = normative_of(moments(maps, masks), EVERYWHERE, NormativeConfig(blur=0))
    assert result.mean[0, 0, 0] == pytest.approx(7, abs=0.1)
    assert result.sd[0, 0, 0] == pytest.approx(2, rel=0.05)
    assert np.isfinite(result.mean).all()
    assert (result.sd > 0).all()


def test_constant_maps_give_finite_z():
    result = normative_of(moments(np.ones((5, *SHAPE))), EVERYWHERE, NormativeConfig())
    assert np.isfinite(result.z(np.full(SHAPE, 2.0))).all()


def test_one_scan_is_not_enough():
    with pytest.raises(DataError, match="at least 2 healthy scans, found 1"):
        normative_of(moments(np.ones((1, *SHAPE))), EVERYWHERE, NormativeConfig())


def test_smoothing_keeps_constants_up_to_the_edge_and_zero_outside():
    mask = np.zeros(SHAPE, dtype=bool)
    mask[2:9, 3:8, 1:6] = True
    values = np.where(mask, 4.0, np.nan)
    result = smooth(values, mask, 1.5)
    np.testing.assert_allclose(result[mask], 4, rtol=1e-5)
    assert (result[~mask] == 0).all()


@pytest.mark.parametrize("adjusted", [True, False])
def test_moved_z_are_those_of_the_person_moved(adjusted):
    rng = np.random.default_rng(0)
    shape = (4, 5, 3)
    own = Adjustment(
        rng.normal(size=(2, *shape)).astype(np.float32),
        rng.uniform(-0.4, 0.4, (2, *shape)).astype(np.float32),
        np.diag([0.05, 0.1]),
        np.eye(2),
    )
    mean, sd = rng.normal(size=shape).astype(np.float32), rng.uniform(0.5, 2, shape).astype(np.float32)
    normative = Normative(mean, sd, own if adjusted else None)
    values, shift, scale = rng.normal(size=shape), rng.normal(size=shape), rng.uniform(0.5, 2, shape)
    moved = normative.moved(shift, scale)
    for person in (np.array([1.5, -1.0]), np.array([0.0, np.nan]), None):
        expected = (normative.at(person).z(values) - shift) / scale
        np.testing.assert_allclose(moved.at(person).z(values), expected, rtol=1e-4, atol=1e-4)
        again = moved.moved(scale, scale).at(person).z(values)
        np.testing.assert_allclose(again, (expected - scale) / scale, rtol=1e-4, atol=1e-4)
