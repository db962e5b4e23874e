import itertools

import numpy as np
import pytest
from scipy import ndimage

from medgen.separable import Axes, gaussian, interpolate
from medgen.volume import Grid, Volume

RNG = np.random.default_rng(0)
PERMUTED = list(itertools.permutations(range(3)))


def mapping_of(source, steps, offsets):
    mapping = np.eye(4)
    mapping[:3, :3] = 0
    for target, axis in enumerate(source):
        mapping[axis, target] = steps[target]
        mapping[axis, 3] = offsets[target]
    return mapping


def exact(data, mapping, shape, sigma):
    """SciPy in double precision, by the general way."""
    smooth = data.astype(np.float64)
    if sigma is not None:
        smooth = ndimage.gaussian_filter(smooth, sigma, mode="nearest", truncate=3)
    return ndimage.affine_transform(
        smooth, mapping[:3, :3], offset=mapping[:3, 3], output_shape=shape, order=1, mode="nearest"
    )


@pytest.mark.parametrize("source", PERMUTED)
@pytest.mark.parametrize("blurred", [False, True])
def test_as_scipy_in_double_precision(source, blurred):
    for trial in range(4):
        n, shape = RNG.integers(1, 12, 3), tuple(RNG.integers(1, 14, 3).tolist())
        data = RNG.uniform(-1000, 1000, n).astype(np.float32)
        steps = RNG.uniform(0.4, 2.5, 3) * RNG.choice([-1, 1], 3)
        mapping = mapping_of(source, steps, RNG.uniform(-3, 9, 3))
        sigma = np.array([0.0, 0.4, 1.3])[RNG.permutation(3)] if blurred else None
        axes = Axes.of(mapping)
        assert axes is not None
        got = interpolate(data, axes, shape, sigma)
        assert got.shape == shape
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, exact(data, mapping, shape, sigma), atol=1e-6 * 2000, err_msg=str(trial))


@pytest.mark.parametrize("source", PERMUTED)
def test_shared_voxels_are_copied_exactly(source):
    data = RNG.normal(size=(5, 6, 7)).astype(np.float32)
    shape = tuple(data.shape[axis] for axis in source)
    flips = [-1, 1, -1]
    offsets = [n - 1 if flip < 0 else 0 for n, flip in zip(shape, flips, strict=True)]
    axes = Axes.of(mapping_of(source, flips, offsets))
    np.testing.assert_array_equal(interpolate(data, axes, shape, None), data.transpose(source)[::-1, :, ::-1])


def test_rounding_does_not_depend_on_the_order_of_memory():
    data = RNG.normal(size=(9, 10, 11)).astype(np.float32)
    axes = Axes.of(mapping_of((1, 2, 0), (1.3, -0.7, 1.1), (0.2, 9.1, 0.4)))
    expected = interpolate(data, axes, (6, 12, 8), np.array([0.5, 0.6, 0.7]))
    for layout in PERMUTED:
        other = np.ascontiguousarray(data.transpose(layout)).transpose(np.argsort(layout))
        np.testing.assert_array_equal(interpolate(other, axes, (6, 12, 8), np.array([0.5, 0.6, 0.7])), expected)


def test_oblique_axes_are_none():
    assert Axes.of(np.eye(4)) == Axes((0, 1, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    tilted = np.eye(4)
    tilted[0, 1] = 1e-6
    assert Axes.of(tilted) is None
    assert Axes.of(np.array([[1.0, 1, 0, 0], [0.1, 0.2, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])) is None


@pytest.mark.parametrize("fill", [0.0, -7.0, float("nan")])
@pytest.mark.parametrize("order", [0, 1])
def test_outside_is_filled_as_on_oblique_grids(fill, order):
    data = RNG.normal(size=(1, 6, 7, 8)).astype(np.float32)
    source = Volume(data, Grid((6, 7, 8), np.array([[0, 0, 2.0, 1], [-1, 0, 0, 3], [0, 1.5, 0, -4], [0, 0, 0, 1]])))
    target = Grid((20, 12, 17), np.diag([1.1, 0.9, 1.2, 1.0]) + 0.0)
    got = source.resample(target, order=order, fill=fill).data[0]
    voxels = source.grid.to_voxel(target.to_world(np.moveaxis(np.indices(target.shape), 0, -1)))
    inside = ((voxels >= -0.5 - 1e-6) & (voxels <= np.array(source.grid.shape) - 0.5 + 1e-6)).all(axis=-1)
    assert 0 < inside.sum() < inside.size
    np.testing.assert_array_equal(got[~inside], np.full((~inside).sum(), fill, np.float32))
    assert not (got[inside] == fill).any()
    assert np.isfinite(got[inside]).all()


def test_infinite_voxels_stay_where_they_are():
    data = np.zeros((1, 8, 8, 8), np.float32)
    data[0, 4, 4, 4] = np.inf
    volume = Volume(data, Grid((8, 8, 8), np.eye(4)))
    moved = volume.resample(Grid((8, 8, 8), np.diag([-1.0, 1, 1, 1]) + np.array([[0, 0, 0, 7.25]] + [[0] * 4] * 3)))
    assert np.isfinite(moved.data[0, :, :3]).all()
    assert np.isinf(moved.data).any()


@pytest.mark.parametrize("shape", [(30, 41, 22), (1, 5, 3), (140, 6, 7)])
@pytest.mark.parametrize("sigma", [0.7, 2.0, 9.0])
def test_gaussians_are_those_of_scipy(shape, sigma):
    data = RNG.normal(size=shape).astype(np.float32)
    expected = ndimage.gaussian_filter(data.astype(np.float64), sigma, mode="constant", truncate=3)
    got = gaussian(data, sigma)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-6)
    np.testing.assert_array_equal(gaussian(np.asfortranarray(data), sigma), got)


def test_a_gaussian_of_nothing_is_nothing_and_ends_at_three_standard_deviations():
    data = np.zeros((40, 9, 9), np.float32)
    data[3, 4, 4] = 1
    got = gaussian(data, 2.0)
    assert got[3 + 6, 4, 4] > 0
    assert not got[3 + 7 :].any()
