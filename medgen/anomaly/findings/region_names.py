"""Where a voxel of the model grid lies, in words: side, thirds of the organ, near its surface or deep."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

MIDLINE_MM = 5.0
"""Up to this far from the middle, left and right are not told apart."""

SURFACE_MM = 10.0
"""Up to this far below the organ's surface, a place is near it: a distance and no anatomical name."""

_PARTS = (("left", "right"), ("posterior", "anterior"), ("inferior", "superior"))


def regions(
    voxels: ArrayLike, foreground: NDArray[np.bool_], spacing: Sequence[float], *, registered: bool
) -> list[str]:
    """Words for places on the model grid, such as ``"left anterior superior, near the surface"``.

    On a registered grid the middle is that of the template's foreground between its leftmost and its rightmost voxel,
    which for a whole organ is the midline. A grid that is only centred on the scan knows no midline: there the side is
    said relative to the middle of the field, in words that say so.

    Front and top are the outer thirds of the foreground's extent; in the middle third of both, the place is
    "central". Voxels at the edge of the grid are not taken for the surface: a field of view may cut through an organ.

    Args:
        voxels: (n, 3) model voxels (i, j, k), axes to the right, anterior and superior; may lie between centres.
        foreground: (i, j, k) boolean, the template's for a registered grid, else the scan's own.
        spacing: Voxel size in mm along i, j, k.
        registered: Whether the grid is a template's.

    Returns:
        One text for each voxel.

    Raises:
        ValueError: If the foreground is empty.
    """
    points = np.asarray(voxels, dtype=np.float64).reshape(-1, 3)
    low, high = _ends(foreground)
    middle = middle_of(foreground)[0] if registered else (foreground.shape[0] - 1) / 2
    # Fluid-filled holes inside an organ are not its surface.
    filled = ndimage.binary_fill_holes(foreground)
    # The surface lies between the outermost voxel and the next.
    depth = None if filled.all() else ndimage.distance_transform_edt(filled, sampling=tuple(spacing)) - min(spacing) / 2
    # Voxels are boxes: the extent reaches half a voxel beyond the outermost centres.
    shares = (points - low + 0.5) / (high - low + 1)
    words = []
    for point, share in zip(points, shares, strict=True):
        side = _side((point[0] - middle) * spacing[0], registered)
        third = " ".join(
            _PARTS[axis][0 if share[axis] < 1 / 3 else 1] for axis in (1, 2) if not 1 / 3 <= share[axis] <= 2 / 3
        )
        start = f"{side} {third or 'central'}" if registered else f"{side}, {third or 'central'}"
        words.append(", ".join([start, *_depth(point, depth)]))
    return words


def middle_of(foreground: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Middle of the box around a foreground (i, j, k), in voxels, (3,): where left meets right on a registered grid.

    Raises:
        ValueError: If the foreground is empty.
    """
    low, high = _ends(foreground)
    return np.asarray((low + high) / 2, dtype=np.float64)


def _ends(foreground: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """First and last foreground voxel along each axis, (3,) each."""
    ends = [np.flatnonzero(foreground.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    if not ends[0].size:
        raise ValueError("a place can be named in a foreground of at least one voxel only")
    return np.array([end[0] for end in ends], dtype=float), np.array([end[-1] for end in ends], dtype=float)


def _side(offset: float, registered: bool) -> str:
    """``offset`` in mm to the right of the middle."""
    if abs(offset) <= MIDLINE_MM:
        return "midline" if registered else "middle of the field"
    side = _PARTS[0][int(offset > 0)]
    return side if registered else f"{side} of the field's middle"


def _depth(point: NDArray[np.float64], depth: NDArray[np.float64] | None) -> list[str]:
    if depth is None:
        # The organ fills the grid: where its surface is cannot be seen.
        return []
    i, j, k = np.clip(np.rint(point).astype(int), 0, np.array(depth.shape) - 1).tolist()
    if depth[i, j, k] > SURFACE_MM:
        return ["deep"]
    return ["near the surface"]
