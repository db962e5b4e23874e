"""Orientation of pictures: a blob in a known corner of the patient is on the expected side of the image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medgen.report.figures import planes as geometry
from medgen.volume import Grid, Volume

BLOB = np.array([18.0, 12.0, 8.0])  # mm right, anterior, superior of the centre
CENTRE = np.array([-5.0, 40.0, 7.0])


def oriented(codes: str, spacing=(1.0, 1.5, 2.5), rotation=None, shape=(60, 50, 44)) -> Grid:
    """A grid around CENTRE whose axes run to the directions named by ``codes``."""
    axes = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
    affine = np.eye(4)
    affine[:3, :3] = 0
    for column, code in enumerate(codes):
        axis, sign = axes[code]
        affine[axis, column] = sign * spacing[column]
    if rotation is not None:
        affine[:3, :3] = rotation @ affine[:3, :3]
    affine[:3, 3] = CENTRE - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


def scan(grid: Grid, offset: np.ndarray = BLOB) -> Volume:
    """A bright blob of 3 mm at an offset (mm) from the centre, in world directions."""
    world = grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))
    distance = np.linalg.norm(world - (CENTRE + offset), axis=-1)
    return Volume(np.exp(-0.5 * (distance / 3) ** 2)[None].astype(np.float32), grid)


def centroid(plane: geometry.Plane) -> tuple[float, float]:
    """Right and down of the image's middle, in mm."""
    weight = np.nan_to_num(plane.data)
    rows, columns = np.indices(weight.shape)
    right = (weight * columns).sum() / weight.sum() - (weight.shape[1] - 1) / 2
    down = (weight * rows).sum() / weight.sum() - (weight.shape[0] - 1) / 2
    return right * plane.pixel, down * plane.pixel


TILT = Rotation.from_euler("xyz", (12, -8, 15), degrees=True).as_matrix()
GRIDS = {
    "RAS": oriented("RAS"),
    "LPS": oriented("LPS"),
    "PIR": oriented("PIR"),
    "ASL": oriented("ASL"),
    "left-handed LAS": oriented("LAS"),
    "left-handed SPL": oriented("SPL"),
}


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize(("view", "right", "down"), [("axial", -18, -12), ("coronal", -18, -8), ("sagittal", -12, -8)])
def test_right_anterior_superior_blob_is_where_a_radiologist_expects_it(name, view, right, down):
    (plane,) = geometry.planes(scan(GRIDS[name]), view, focus=CENTRE + BLOB)
    assert centroid(plane) == pytest.approx((right, down), abs=0.3)
    # Square pixels of equal size in all views: the blob is round although the voxels are not cubes.
    rows, columns = np.nonzero(np.nan_to_num(plane.data) > 0.5 * np.nanmax(plane.data))
    assert np.ptp(rows) == pytest.approx(np.ptp(columns), abs=3)
    assert plane.position == pytest.approx((CENTRE + BLOB)[plane.view.normal], abs=1.5)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "LAS"])
def test_oblique_scans_are_cut_along_their_own_axes(codes):
    grid = oriented(codes, rotation=TILT)
    for view, right, down in (("axial", -18, -12), ("coronal", -18, -8), ("sagittal", -12, -8)):
        (plane,) = geometry.planes(scan(grid, TILT @ BLOB), view, focus=CENTRE + TILT @ BLOB)
        assert centroid(plane) == pytest.approx((right, down), abs=0.3)


@settings(max_examples=25, deadline=None)
@given(
    order=st.permutations("RAS"),
    flips=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    spacing=st.tuples(*[st.floats(0.8, 2.5)] * 3),
)
def test_all_48_axis_orders_give_one_picture(order, flips, spacing):
    other = {"R": "L", "A": "P", "S": "I"}
    codes = "".join(other[code] if flip else code for code, flip in zip(order, flips, strict=True))
    shape = tuple(int(70 / step) for step in spacing)
    (plane,) = geometry.planes(scan(oriented(codes, spacing, shape=shape)), "axial", focus=CENTRE + BLOB)
    assert centroid(plane) == pytest.approx((-18, -12), abs=0.5)


def test_canonical_keeps_every_voxel():
    for grid in GRIDS.values():
        own = geometry.canonical(grid)
        assert own.axcodes == "RAS"
        assert np.prod(own.shape) == np.prod(grid.shape)
        volume = scan(grid)
        assert np.sort(volume.resample(own, order=0).data.ravel()) == pytest.approx(np.sort(volume.data.ravel()))


def test_overlay_on_another_grid_falls_on_the_same_pixels():
    image, overlay = scan(GRIDS["PIR"]), scan(oriented("LAS", (2.0, 2.0, 2.0), shape=(40, 40, 50)))
    (grid,) = geometry.slices(image.grid, "coronal", 1, CENTRE + BLOB)
    shift = [
        centroid(geometry.Plane(geometry.cut(volume, grid), grid, geometry.VIEWS["coronal"], 0.0))
        for volume in (image, overlay)
    ]
    assert shift[0] == pytest.approx(shift[1], abs=0.3)


def test_slices_stay_in_the_box_and_one_goes_through_the_focus():
    grid = GRIDS["RAS"]
    top = grid.to_world((np.array(grid.shape) - 1) * [0.5, 0.5, 1])
    found = [geometry.position(g, "axial") for g in geometry.slices(grid, "axial", 5, top)]
    assert len(set(found)) == 5
    assert any(value == pytest.approx(top[2], abs=1e-6) for value in found)
    far = geometry.slices(grid, "axial", 3, CENTRE + np.array([0, 0, 500]))
    assert max(geometry.position(g, "axial") for g in far) == pytest.approx(top[2], abs=1e-6)
    assert len(geometry.slices(grid, "sagittal", 4)) == 4
    with pytest.raises(ValueError, match="axial, coronal, sagittal"):
        geometry.slices(grid, "transverse", 1)


def test_bounding_box_leaves_out_the_air():
    grid = GRIDS["PIR"]
    world = grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))
    ball = np.linalg.norm(world - CENTRE, axis=-1) < 15
    box = geometry.bounding_box(Volume(ball[None].astype(np.float32), grid), margin=5)
    size = (np.array(box.high) - np.array(box.low)) * geometry.canonical(grid).spacing
    assert (size > 35).all()
    assert (size < 47).all()
    empty = Volume(np.zeros((1, *grid.shape), np.float32), grid)
    assert geometry.bounding_box(empty) == geometry.whole(geometry.canonical(grid))


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("name", GRIDS)
def test_a_slice_of_a_part_is_the_slice_of_the_whole(name, order):
    volume = scan(oriented("RAS", rotation=TILT))
    for view in geometry.VIEWS:
        for grid in geometry.slices(GRIDS[name], view, 3):
            whole = volume.resample(grid, order=order, fill=0 if order == 0 else float("nan")).data[0, :, :, 0]
            np.testing.assert_allclose(geometry.cut(volume, grid, order), whole, atol=1e-5)
    (far,) = geometry.slices(GRIDS[name].moved(np.eye(4) + 500 * np.eye(4, k=3)), "axial", 1)
    assert np.isnan(geometry.cut(volume, far)).all()
