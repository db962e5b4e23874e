"""Masks that were cropped to what they show: same voxels as the image, fewer of them."""

from __future__ import annotations

import numpy as np

from medgen.volume import Grid

# Of a voxel: how far a cropped grid may lie beside the voxels of the image.
_TOLERANCE = 0.1


def crop_of(small: Grid, large: Grid) -> tuple[int, int, int] | None:
    """The voxel of a grid at which a smaller one begins that consists of some of its voxels.

    Returns:
        None if it is no such part of it.

    >>> whole = Grid((8, 8, 8), np.eye(4))
    >>> part = np.eye(4); part[:3, 3] = (2, 3, 4)
    >>> crop_of(Grid((4, 4, 4), part), whole), crop_of(whole, whole) is None
    ((2, 3, 4), True)
    """
    if small.shape == large.shape:
        return None
    mapped = np.linalg.inv(large.affine) @ small.affine
    start = mapped[:3, 3]
    whole = np.round(start)
    # What a step of one voxel differs by adds up over the grid.
    drift = np.abs(mapped[:3, :3] - np.eye(3)).max() * max(small.shape)
    inside = (whole >= 0).all() and (whole + small.shape <= large.shape).all()
    if drift > _TOLERANCE or np.abs(start - whole).max() > _TOLERANCE or not inside:
        return None
    i, j, k = (int(value) for value in whole)
    return i, j, k
