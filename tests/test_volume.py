"""Property tests of grids and resampling, on oblique, anisotropic, flipped and left-handed grids."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from medgen.errors import GeometryError
from medgen.volume import Grid, Volume, resample

CENTRE = np.array([12.0, -31.0, 47.0])


def any_grid(rng, extent=64.0) -> Grid:
    """A random grid around CENTRE: any rotation, axis order, handedness and spacing of 0.8 to 2.5 mm."""
    spacing = rng.uniform(0.8, 2.5, 3)
    shape = tuple(int(n) for n in np.ceil(extent / spacing) + rng.integers(0, 4, 3))
    turn = Rotation.random(random_state=rng).as_matrix() if rng.random() < 0.6 else np.eye(3)
    signs, order = rng.choice([-1.0, 1.0], 3), rng.permutation(3)
    affine = np.eye(4)
    affine[:3, :3] = (turn[:, order] * signs) * spacing
    affine[:3, 3] = CENTRE + rng.uniform(-1, 1, 3) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


def blob(grid: Grid, centre, sigma=4.0) -> Volume:
    voxels = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), axis=-1)
    squared = ((grid.to_world(voxels) - centre) ** 2).sum(axis=-1)
    return Volume(np.exp(-squared / (2 * sigma**2)).astype(np.float32)[None], grid)


def centre_of_mass(volume: Volume):
    return np.array(ndimage.center_of_mass(volume.data[0].astype(np.float64)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_blob_keeps_its_place_on_any_other_grid_and_comes_back(seed):
    rng = np.random.default_rng(seed)
    native, other = any_grid(rng), any_grid(rng)
    place = CENTRE + rng.uniform(-6, 6, 3)
    volume = blob(native, place)
    there = resample(volume, other)
    assert np.abs(other.to_world(centre_of_mass(there)) - place).max() < 0.1 * min(other.spacing)
    back = there.resample(native)
    assert np.abs(centre_of_mass(back) - native.to_voxel(place)).max() < 0.1
    # The mass is kept, so nothing was scaled or cut off; linear interpolation on two coarse grids moves up to 3 %.
    mass = [float(v.data.sum()) * v.grid.voxel_volume for v in (volume, there, back)]
    np.testing.assert_allclose(mass[1:], mass[0], rtol=0.04)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_world_and_voxel_are_inverse(seed):
    rng = np.random.default_rng(seed)
    grid = any_grid(rng)
    points = rng.uniform(-20, 80, (7, 3))
    np.testing.assert_allclose(grid.to_voxel(grid.to_world(points)), points, atol=1e-9)
    np.testing.assert_allclose(grid.to_world(np.zeros(3)), grid.affine[:3, 3])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_flips_and_permutations_only_reorder_values(seed):
    """Resampling to a reordered version of the same voxels must equal numpy's own reordering, for every order."""
    rng = np.random.default_rng(seed)
    grid = Grid((5, 6, 7), any_grid(rng).affine)
    data = rng.normal(size=(2, 5, 6, 7)).astype(np.float32)
    order, flips = rng.permutation(3), rng.random(3) < 0.5
    matrix, offset = np.zeros((3, 3)), np.zeros(3)
    for new, old in enumerate(order):
        matrix[old, new] = -1 if flips[new] else 1
        offset[old] = grid.shape[old] - 1 if flips[new] else 0
    mapping = np.eye(4)
    mapping[:3, :3], mapping[:3, 3] = matrix, offset
    expected = data.transpose(0, *(order + 1))
    expected = np.flip(expected, [axis + 1 for axis in range(3) if flips[axis]])
    target = Grid(expected.shape[1:], grid.affine @ mapping)
    for interpolation in (0, 1, 3):
        result = resample(Volume(data, grid), target, order=interpolation)
        np.testing.assert_allclose(result.data, expected, atol=2e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_centred_keeps_centre_and_directions(seed):
    rng = np.random.default_rng(seed)
    grid = any_grid(rng)
    target = grid.centred((9, 10, 11), (2.0, 3.0, 1.5))
    np.testing.assert_allclose(target.center, grid.center, atol=1e-9)
    np.testing.assert_allclose(target.spacing, (2.0, 3.0, 1.5))
    directions = target.affine[:3, :3] / target.spacing
    ours = grid.affine[:3, :3] / grid.spacing
    np.testing.assert_allclose(np.sort(np.abs(directions.T @ ours), axis=1)[:, :2], 0, atol=1e-9)
    moved = target.moved(np.diag([1, 1, 1, 1]) + np.array([[0, 0, 0, 5.0]] + [[0] * 4] * 3))
    np.testing.assert_allclose(moved.center - target.center, (5, 0, 0), atol=1e-9)


def test_half_a_voxel_beyond_the_outermost_centres_belongs_to_the_image():
    source = Volume(np.full((1, 4, 4, 4), 7.0, np.float32), Grid((4, 4, 4), np.eye(4)))
    affine = np.eye(4)
    affine[:3, 3] = (-0.75, 1, 1)
    affine[0, 0] = 0.25
    line = resample(source, Grid((20, 1, 1), affine), fill=-1).data[0, :, 0, 0]
    positions = -0.75 + 0.25 * np.arange(20)
    np.testing.assert_array_equal(line, np.where((positions >= -0.5) & (positions <= 3.5), 7.0, -1.0))


def test_downsampling_blurs_as_scipy_does():
    rng = np.random.default_rng(0)
    data = rng.normal(size=(1, 40, 40, 40)).astype(np.float32)
    source = Grid((40, 40, 40), np.eye(4))
    target = Grid((10, 20, 40), np.array([[4.0, 0, 0, 1.5], [0, 2, 0, 0.5], [0, 0, 1, 0], [0, 0, 0, 1]]))
    ours = resample(Volume(data, source), target).data[0]
    fwhm = 2 * np.sqrt(2 * np.log(2))
    smooth = ndimage.gaussian_filter(data[0], np.sqrt([15.0, 3.0, 0.0]) / fwhm, mode="nearest", truncate=3)
    i, j, k = np.meshgrid(1.5 + 4 * np.arange(10), 0.5 + 2 * np.arange(20), np.arange(40), indexing="ij")
    np.testing.assert_allclose(ours, ndimage.map_coordinates(smooth, [i, j, k], order=1, mode="nearest"), atol=1e-5)
    assert ours.std() < 0.5 * data.std()


@pytest.mark.parametrize("order", [1, 3])
def test_oblique_resampling_agrees_with_map_coordinates(order):
    rng = np.random.default_rng(1)
    data = rng.normal(size=(1, 20, 22, 24)).astype(np.float32)
    source = Grid((20, 22, 24), np.eye(4))
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [10, 20, 30], degrees=True).as_matrix()
    affine[:3, 3] = (4, 3, 5)
    target = Grid((8, 9, 10), affine)
    points = target.to_world(np.stack(np.meshgrid(*map(np.arange, target.shape), indexing="ij"), -1))
    inside = ((points >= 0) & (points <= np.array(source.shape) - 1)).all(axis=-1)
    expected = ndimage.map_coordinates(data[0], np.moveaxis(points, -1, 0), order=order, mode="nearest")
    ours = resample(Volume(data, source), target, order=order).data[0]
    np.testing.assert_allclose(ours[inside], expected[inside], atol=1e-4)


@pytest.mark.parametrize(("order", "dtype"), [(1, np.float32), (0, np.uint8), (0, np.int16), (0, np.float32)])
def test_large_oblique_grids_are_resampled_as_scipy_does(order, dtype):
    rng = np.random.default_rng(2)
    data = (100 * rng.random((1, 30, 34, 26))).astype(dtype)
    source = Grid((30, 34, 26), np.eye(4))
    affine = np.eye(4)
    # Sheared as well as turned, from before the first voxel to behind the last.
    affine[:3, :3] = Rotation.from_euler("xyz", [10, 20, 30], degrees=True).as_matrix() @ np.diag([0.6, 0.5, 0.55])
    affine[0, 1] += 0.05
    affine[:3, 3] = (-6, -3, -4)
    target = Grid((70, 80, 60), affine)
    points = target.to_world(np.stack(np.meshgrid(*map(np.arange, target.shape), indexing="ij"), -1))
    near = ((points >= -0.5) & (points <= np.array(source.shape) - 0.5)).all(axis=-1)
    expected = ndimage.map_coordinates(data[0], np.moveaxis(points, -1, 0), order=order, mode="nearest")
    ours = resample(Volume(data, source), target, order=order, fill=7).data[0]
    assert ours.dtype == dtype
    # In the outermost half voxel, too, and nothing beyond it.
    assert 0.2 < near.mean() < 0.8
    np.testing.assert_allclose(ours[near], expected[near], rtol=1e-5)
    assert (ours[~near] == 7).all()


def test_labels_are_never_invented():
    data = np.random.default_rng(0).choice([0, 3, 200], (1, 12, 12, 12)).astype(np.uint8)
    rng = np.random.default_rng(4)
    source = Grid((12, 12, 12), any_grid(rng).affine)
    result = resample(Volume(data, source), source.centred((9, 9, 9), (3.0, 1.0, 1.3)), order=0)
    assert result.data.dtype == np.uint8
    assert set(np.unique(result.data)) <= {0, 3, 200}
    signed = resample(Volume(data.astype(np.int8), source), source, order=0, fill=-1)
    np.testing.assert_array_equal(signed.data, data.astype(np.int8))
    mask = resample(Volume(data > 0, source), source, order=0)
    assert mask.data.dtype == bool
    np.testing.assert_array_equal(mask.data, data > 0)
    with pytest.raises(GeometryError, match="does not fit"):
        resample(Volume(data, source), source, order=0, fill=np.nan)


def test_nan_takes_no_part():
    data = np.ones((1, 16, 16, 16), np.float32)
    data[0, 8:] = np.nan
    source = Volume(data, Grid((16, 16, 16), np.eye(4)))
    shifted = np.eye(4)
    shifted[0, 3] = 0.3
    fine = resample(source, Grid((15, 16, 16), shifted)).data[0]
    # Between voxels 7 (known) and 8 (missing), 70 % of the weight is known: the value is there and undimmed.
    np.testing.assert_array_equal(np.isnan(fine[:, 4, 4]), np.arange(15) >= 8)
    np.testing.assert_allclose(fine[:8], 1, atol=1e-6)
    coarse = resample(source, source.grid.centred((8, 8, 8), (2, 2, 2))).data[0]
    np.testing.assert_allclose(coarse[~np.isnan(coarse)], 1, atol=1e-5)
    np.testing.assert_array_equal(np.isnan(coarse[:, 4, 4]), np.arange(8) >= 4)
    far = np.eye(4)
    far[0, 3] = 100
    assert np.isnan(resample(source, Grid((2, 2, 2), far), fill=np.nan).data).all()


@pytest.mark.parametrize(
    ("shape", "affine"),
    [
        ((2, 2), np.eye(4)),
        ((2, 0, 2), np.eye(4)),
        ((2, 2, 2), np.eye(3)),
        ((2, 2, 2), np.diag([1.0, 0, 1, 1])),
        ((2, 2, 2), np.diag([1.0, np.nan, 1, 1])),
        ((2, 2, 2), np.diag([1.0, 1, 1, 2])),
        ((2, 2, 2), np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])),
    ],
)
def test_invalid_grids_are_refused(shape, affine):
    with pytest.raises(GeometryError):
        Grid(shape, affine)


def test_volumes_are_guarded():
    grid = Grid((2, 3, 4), np.eye(4))
    volume = Volume(np.zeros((1, 2, 3, 4)), grid)
    with pytest.raises(ValueError, match="read-only"):
        volume.data[0, 0, 0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 0] = 2
    with pytest.raises(GeometryError, match="expected data of shape"):
        Volume(np.zeros((2, 3, 4)), grid)
    with pytest.raises(GeometryError, match="does not fit"):
        volume.with_data(np.zeros((3, 3, 4)))
    assert volume.with_data(np.zeros((2, 3, 4))).data.shape == (1, 2, 3, 4)
    with pytest.raises(GeometryError, match="order"):
        resample(volume, grid, order=2)
    assert not grid.same_as(Grid((2, 3, 4), np.diag([1, 1, 1.01, 1])))
    assert grid.same_as(Grid((2, 3, 4), np.diag([1, 1, 1.0001, 1])))
