import numpy as np
import pytest

from medgen.errors import DataError, GeometryError
from medgen.metrics.segmentation import dice
from medgen.preprocessing.prepared import PreparedScan
from medgen.preprocessing.recipe import prepare_labels
from medgen.transforms.label_maps import resample_labels
from medgen.volume import Grid, Volume, resample


def _spheres(grid: Grid) -> np.ndarray:
    """Labels 1 and 7 (touching spheres) and 300 (a 4 mm rod), drawn from their formulas."""
    points = grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))
    labels = np.zeros(grid.shape, dtype=np.int32)
    labels[np.linalg.norm(points - (-9, 0, 0), axis=-1) < 10] = 1
    labels[np.linalg.norm(points - (10, 3, 2), axis=-1) < 9] = 7
    labels[np.linalg.norm(points[..., :2] - (0, -18), axis=-1) < 2] = 300
    return labels


def _truth(grid: Grid) -> np.ndarray:
    """The label that fills most of each voxel, from 5 x 5 x 5 points per voxel."""
    fine = Grid(
        tuple(5 * n for n in grid.shape),
        grid.affine @ np.array([[0.2, 0, 0, -0.4], [0, 0.2, 0, -0.4], [0, 0, 0.2, -0.4], [0, 0, 0, 1]]),
    )
    i, j, k = grid.shape
    blocks = _spheres(fine).reshape(i, 5, j, 5, k, 5).transpose(0, 2, 4, 1, 3, 5).reshape(*grid.shape, -1)
    values = np.array([0, 1, 7, 300])
    return values[np.stack([(blocks == value).sum(-1) for value in values]).argmax(0)]


@pytest.mark.parametrize(
    ("spacing", "degrees"),
    [((3, 3, 3), (0, 0, 0)), ((2, 2, 2), (10, 20, 5)), ((1, 1, 1), (8, 0, 12)), ((4, 1, 1), (0, 0, 0))],
)
def test_majority_is_more_accurate_than_nearest_neighbour(phantom, spacing, degrees) -> None:
    native = phantom.grid_of((64, 60, 50), (1, 1, 1), axes="LAS")
    target = phantom.grid_of(tuple(int(48 / s) for s in spacing), spacing, degrees=degrees, centre=(0.4, -0.3, 0.2))
    labels, truth = _spheres(native), _truth(target)
    majority = resample_labels(labels, native, target)
    nearest = resample(Volume(labels[None], native), target, order=0).data[0]
    mine, other = (np.mean([dice(x, truth, label) for label in (1, 7)]) for x in (majority, nearest))
    assert mine > 0.96
    assert mine >= other - 0.002
    assert set(np.unique(majority)) <= {0, 1, 7, 300}


def test_identity_is_exact_and_the_border_is_cut(phantom) -> None:
    native = phantom.grid_of((30, 28, 26), (1, 1, 1))
    labels = np.random.default_rng(0).integers(0, 5, size=native.shape)
    assert np.array_equal(resample_labels(labels, native, native), labels)
    larger = phantom.grid_of((40, 38, 36), (1, 1, 1))
    assert np.array_equal(resample_labels(labels, native, larger)[5:-5, 5:-5, 5:-5], labels)
    assert resample_labels(labels, native, larger)[:5].max() == 0
    assert resample_labels(np.zeros_like(labels), native, larger).max() == 0


def test_prepare_labels_checks_grid_and_content(phantom) -> None:
    grid = phantom.grid_of((12, 12, 12), (2, 2, 2))
    empty = np.zeros(grid.shape, dtype=np.float32)
    prepared = PreparedScan(empty[None], empty > 0, grid, grid, ((0.0, 1.0),))
    mask = np.zeros(grid.shape)
    mask[3:6, 3:6, 3:6] = 2
    found = prepare_labels(Volume(mask[None], grid), prepared)
    assert found.dtype == np.uint8
    assert np.array_equal(found, mask)
    with pytest.raises(GeometryError, match="not the scan's"):
        prepare_labels(Volume(mask[None], phantom.grid_of((12, 12, 12), (2, 2, 3))), prepared)
    with pytest.raises(DataError, match="whole"):
        prepare_labels(Volume(mask[None] / 4, grid), prepared)
    with pytest.raises(DataError, match="one channel"):
        prepare_labels(Volume(np.stack([mask, mask]), grid), prepared)
