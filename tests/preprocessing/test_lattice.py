"""Model grids of a scan's own voxel size lie on its voxels, so that nothing is interpolated."""

from __future__ import annotations

import numpy as np
import pytest

from medgen.preprocessing.recipe import Preprocess, prepare_labels
from medgen.volume import Grid, Volume


def rotated(degrees: float, spacing: tuple[float, float, float]) -> np.ndarray:
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(spacing) @ np.diag([-1, 1, 1])
    affine[:3, 3] = (13.2, -7.9, 4.4)
    return affine


@pytest.mark.parametrize("shape", [(11, 14, 9), (12, 13, 10), (9, 9, 9)])
@pytest.mark.parametrize("degrees", [0, 17])
def test_centred_grids_of_equal_spacing_copy_voxels(shape: tuple[int, int, int], degrees: float) -> None:
    grid = Grid(shape, rotated(degrees, (1.0, 1.0, 1.0)))
    rng = np.random.default_rng(0)
    scan = Volume(rng.random((1, *shape)).astype(np.float32) + 0.5, grid)
    labels = Volume(rng.integers(0, 4, (1, *shape)).astype(np.uint8), grid)
    recipe = Preprocess(shape=(16, 16, 12), spacing=(1.0, 1.0, 1.0))
    prepared = recipe.apply(scan)
    assert np.abs(prepared.grid.center - grid.center).max() <= 0.5 * np.sqrt(3)
    there = prepare_labels(labels, prepared)
    assert np.array_equal(recipe.restore(there, prepared, order=0, fill=0).data, labels.data)


def test_only_shared_steps_are_snapped() -> None:
    native = Grid((10, 11, 12), np.diag([1.0, 1.0, 2.5, 1.0]))
    grid = native.centred((12, 12, 12), (1.0, 1.0, 1.0))
    snapped = grid.on_lattice(native)
    offset = native.to_voxel(snapped.affine[:3, 3])
    assert np.allclose(offset[:2], np.round(offset[:2]))
    assert snapped.affine[2, 3] == pytest.approx(grid.affine[2, 3])
    assert np.array_equal(snapped.affine[:3, :3], grid.affine[:3, :3])
    assert snapped.on_lattice(native).same_as(snapped)
