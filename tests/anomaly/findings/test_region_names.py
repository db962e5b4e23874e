from __future__ import annotations

import numpy as np
import pytest

from medgen.anomaly.findings.region_names import regions
from medgen.preprocessing.recipe import Preprocess
from medgen.volume import Grid, Volume

SPACING = (2.0, 3.0, 4.0)


def ball(shape=(50, 40, 30), radius=40.0):
    """A ball of that radius in mm in the middle of the grid, and its voxels' positions from the middle in mm."""
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, SPACING, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    return np.linalg.norm(points, axis=-1) <= radius, points


def at(*millimetres):
    """Voxel at a place right, anterior and superior of the middle."""
    return (np.array((50, 40, 30)) - 1) / 2 + np.array(millimetres) / SPACING


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ((-20, 20, 20), "left anterior superior, near the surface"),
        ((20, -20, -20), "right posterior inferior, near the surface"),
        ((-12, 0, 0), "left central, deep"),
        ((4, 0, 20), "midline superior, deep"),
        ((-4, -18, 0), "midline posterior, deep"),
        ((35, 0, 0), "right central, near the surface"),
    ],
)
def test_places_in_a_ball(place, words):
    assert regions(at(*place), ball()[0], SPACING, registered=True) == [words]


def test_near_the_surface_is_up_to_ten_millimetres():
    """In a ball the depth is radius minus distance to the middle, up to the size of a voxel."""
    mask, points = ball()
    voxels = np.argwhere(mask)
    depth = 40 - np.linalg.norm(points[mask], axis=-1)
    near = np.array([text.endswith("near the surface") for text in regions(voxels, mask, SPACING, registered=True)])
    assert near[depth < 10 - 4].all()
    assert not near[depth > 10 + 4].any()


def test_a_ventricle_is_no_surface():
    mask, points = ball()
    hollow = mask & (np.linalg.norm(points, axis=-1) > 6)
    assert regions(at(0, 0, 0), hollow, SPACING, registered=True) == ["midline central, deep"]


def test_the_middle_is_the_organs_where_the_grid_is_a_templates():
    mask, _ = ball()
    moved = np.zeros_like(mask)
    moved[5:] = mask[:-5]
    # 10 mm to the right of the grid's middle is the middle of the moved ball.
    assert regions(at(10, 0, 0), moved, SPACING, registered=True) == ["midline central, deep"]
    assert regions(at(10, 0, 0), moved, SPACING, registered=False) == ["right of the field's middle, central, deep"]


def test_a_field_inside_an_organ_has_no_surface():
    whole = np.ones((10, 10, 10), dtype=bool)
    found = regions([(5, 5, 5), (0, 0, 9)], whole, (3, 3, 3), registered=False)
    assert found == ["middle of the field, central", "left of the field's middle, posterior superior"]
    with pytest.raises(ValueError, match="at least one voxel"):
        regions([(1, 1, 1)], ~whole, (3, 3, 3), registered=False)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_same_world_position_has_the_same_words_in_las_and_ras(side):
    recipe = Preprocess(shape=(20, 20, 20), spacing=(3.0, 3.0, 3.0))
    right = Grid((30, 30, 30), np.array([[2.0, 0, 0, -29], [0, 2, 0, -29], [0, 0, 2, -29], [0, 0, 0, 1]]))
    world = right.to_world(np.moveaxis(np.indices(right.shape), 0, -1))
    values = np.where(np.linalg.norm(world, axis=-1) < 26, 100 + world[..., 0], 0).astype(np.float32)
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = 29
    scans = [
        Volume(values[None], right),
        Volume(values[None, ::-1].copy(), Grid(right.shape, right.affine @ flip)),
    ]
    assert [scan.grid.axcodes for scan in scans] == ["RAS", "LAS"]
    place = np.array([-12.0 if side == "left" else 12.0, 14.0, 14.0])
    found = []
    for scan in scans:
        prepared = recipe.apply(scan)
        voxel = prepared.grid.to_voxel(place)
        found += regions(voxel, prepared.foreground, recipe.spacing, registered=True)
    assert found == [f"{side} anterior superior, near the surface"] * 2
