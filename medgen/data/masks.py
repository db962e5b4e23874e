"""Label maps as files hold them: whole numbers that storing may have moved, on a grid that should be their image's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen import io
from medgen.errors import GeometryError
from medgen.faults import fail
from medgen.io.channels import difference, near
from medgen.volume import Grid, Volume

# How far a label may lie from a whole number for having been stored with a scale.
_ROUNDING = 1e-3
# Of a voxel: how far a cropped grid may lie beside the voxels of the image.
_BESIDE = 0.1


def read_labels(path: Path, *, unscaled: bool = False) -> Volume:
    """Read a label map as integers, (1, i, j, k); ``unscaled`` as in :func:`medgen.io.read`.

    Numbers that storing has moved off whole ones are rounded: single precision (1.0000001), and integers with a scale
    (0.99998; up to half a step of an 8-bit map, but never by more than a hundredth).

    Raises:
        FaultyDataError: If it has several channels, or fractional or negative labels.
    """
    mask = io.read(path, unscaled=unscaled)
    if mask.data.shape[0] != 1:
        raise fail(path, f"{mask.data.shape[0]} channels", "one label map", "store labels as one map of integers")
    data = mask.data
    if data.dtype.kind == "f":
        whole = np.round(data)
        largest = float(np.abs(whole).max())
        apart = np.abs(whole - data) > min(max(_ROUNDING, 0.51 * largest / 255), 10 * _ROUNDING)
        if apart.any():
            found = f"{int(apart.sum())} voxels with fractional labels, such as {float(data[apart][0]):.4g}"
            action = "give the labels before they were resampled or smoothed, or threshold probabilities"
            raise fail(path, found, "whole numbers", action)
        if largest <= np.iinfo(np.int32).max:
            data = whole.astype(np.int32)
    if data.min() < 0:
        raise fail(path, f"negative labels down to {int(data.min())}", "labels of 0 and more", "renumber the labels")
    if data.max() > np.iinfo(np.int32).max:
        raise fail(path, f"labels up to {float(data.max()):g}", "label numbers", "renumber the labels")
    return mask.with_data(data)


def renumber(data: NDArray[Any], relabel: Mapping[int, int]) -> NDArray[np.int32]:
    """Labels with the numbers that a mapping gives them; those it does not name become 0."""
    values, places = np.unique(data, return_inverse=True)
    numbers = np.array([relabel.get(int(value), 0) for value in values], dtype=np.int32)
    return numbers[places].reshape(data.shape)


def on_grid(mask: Volume, image: Volume, name: str, of: str, *, move: bool) -> Volume:
    """A label map on the grid of its image: as it is, or the label nearest to each voxel.

    Args:
        mask: Whole numbers, (1, i, j, k).
        image: Its image.
        name: Name of the mask's file, for messages.
        of: Name of the image's file, for messages.
        move: Whether a mask on another grid is brought to that of the image; else it is refused.

    Raises:
        GeometryError: Saying how they differ, if it is not to be moved; or if it is, and most of what is labelled would
            lie outside of the image.
    """
    if near(mask.grid, image.grid):
        return Volume(mask.data, image.grid)
    start = crop_of(mask.grid, image.grid)
    if not move and start is not None:
        raise GeometryError(
            f"{name}: {difference(mask.grid, image.grid)} {of}: it was cropped, and begins at voxel {start} of it; "
            "expected the mask on the grid of its image; save it at the image's full size, with zeros around, or "
            "declare that it may be resampled (cohort.resample_masks=true)"
        )
    if not move:
        raise GeometryError(
            f"{name}: {difference(mask.grid, image.grid)} {of}; expected the mask on the grid of its image; "
            "resample the mask (nearest neighbour), or declare that it may be (cohort.resample_masks=true)"
        )
    moved = mask.resample(image.grid, order=0, fill=0)
    before = np.count_nonzero(mask.data) * mask.grid.voxel_volume
    after = np.count_nonzero(moved.data) * image.grid.voxel_volume
    # A small structure on a coarse grid loses and gains some of its volume, one elsewhere all of it.
    if after < 0.5 * before:
        raise GeometryError(
            f"{name}: {after / 1000:.3g} of {before / 1000:.3g} ml that it labels lie in {of}; expected a mask of the "
            "same part of the body; correct its orientation, or give the mask of this image"
        )
    return moved


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
    if drift > _BESIDE or np.abs(start - whole).max() > _BESIDE or not inside:
        return None
    i, j, k = (int(value) for value in whole)
    return i, j, k
