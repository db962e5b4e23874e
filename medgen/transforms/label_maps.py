"""Label maps on another grid: the label that fills most of each voxel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medgen.volume import Grid, Volume


def resample_labels(data: NDArray[Any], native: Grid, grid: Grid) -> NDArray[np.int32]:
    """Bring a label map to another grid by majority.

    Every label's indicator is resampled linearly, with anti-aliasing, and the largest share wins; background is what
    the others leave. Nearest neighbour looks at one point per voxel instead: on coarser grids thin structures break
    up and volumes jitter, on shifted grids borders move by up to half a voxel. Labels are resampled in their own
    bounding box, so a hundred small structures cost little more than one.

    Args:
        data: Whole, non-negative numbers, (i, j, k) on ``native``; 0 is background.
        native: Where they lie.
        grid: Target grid; beyond the native field of view there is background.

    Returns:
        (i, j, k) on ``grid``.
    """
    labels = np.asarray(data).astype(np.int32)
    best = np.zeros(grid.shape, dtype=np.float32)
    total = np.zeros_like(best)
    winner = np.zeros(grid.shape, dtype=np.int32)
    for index, box in enumerate(ndimage.find_objects(labels)):
        if box is None:
            continue
        share, place = _share(labels, index + 1, box, native, grid)
        total[place] += share
        better = share > best[place]
        best[place][better] = share[better]
        winner[place][better] = index + 1
    winner[best <= 1 - total] = 0
    return winner


def _share(
    labels: NDArray[np.int32], label: int, box: tuple[slice, ...], native: Grid, grid: Grid
) -> tuple[NDArray[np.float32], tuple[slice, ...]]:
    """How much of each voxel of ``grid`` one label fills, and the part of ``grid`` it can reach."""
    step = np.linalg.norm((np.linalg.inv(native.affine) @ grid.affine)[:3, :3], axis=1)
    # Three standard deviations of the anti-aliasing blur (0.425 steps each) and the interpolation's own voxel.
    margin = np.ceil(1.3 * step).astype(int) + 2
    low = np.maximum([side.start for side in box] - margin, 0)
    high = np.minimum([side.stop for side in box] + margin, labels.shape)
    part = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    corners = np.stack(np.meshgrid(*[(a - 0.5, b - 0.5) for a, b in zip(low, high, strict=True)]), axis=-1)
    reach = grid.to_voxel(native.to_world(corners.reshape(-1, 3)))
    first = np.clip(np.floor(reach.min(axis=0)).astype(int), 0, np.array(grid.shape) - 1)
    last = np.clip(np.ceil(reach.max(axis=0)).astype(int) + 1, first + 1, grid.shape)
    place = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    indicator = (labels[part] == label).astype(np.float32)[None]
    source = Volume(indicator, _cropped(native, low, high))
    return source.resample(_cropped(grid, first, last)).data[0], place


def _cropped(grid: Grid, low: NDArray[np.int64], high: NDArray[np.int64]) -> Grid:
    affine = grid.affine.copy()
    affine[:3, 3] = grid.to_world(low)
    size = (high - low).tolist()
    return Grid((size[0], size[1], size[2]), affine)
