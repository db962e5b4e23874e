"""What a viewer shows: scans to choose from and what lies over them, each small enough for a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medgen.io.nifti import nifti_bytes
from medgen.volume import Grid, Volume

MOST_VOXELS = 1 << 24
"""Voxels of a layer, 256 x 256 x 256; of a larger scan every second is left out along its finest axes."""

NOT_SCORED = -99.0
"""Stands for NaN in an overlay: far below any heat."""

_HEAT_STEP = 0.01
_LEVELS = 32767


@dataclass(frozen=True, eq=False)
class Layer:
    """One image of a viewer.

    Attributes:
        name: What it is called on the page.
        volume: One channel, (1, i, j, k); NaN is air in a scan, no difference, and not scored in an overlay.
        kind: ``scan`` in greys, ``difference`` from blue over black to orange, ``heat`` or ``labels`` over a scan.
        window: What is black and white at first, in the scan's own values; of heat what the colours reach from and to.
        labels: Label → name, of ``labels``.
    """

    name: str
    volume: Volume
    kind: Literal["scan", "difference", "heat", "labels"]
    window: tuple[float, float]
    labels: Mapping[int, str] = field(default_factory=dict)

    def encoded(self) -> bytes:
        """The bytes of a ``.nii.gz`` with 16-bit values: exact to 0.01 for heat, to 1/65534 of the range for scans."""
        volume = thinned(self.volume, hottest=self.kind == "heat")
        data = np.asarray(volume.data[:1], dtype=np.float32)
        if self.kind == "labels":
            return nifti_bytes(Volume(np.nan_to_num(data).astype(np.int16), volume.grid))
        if self.kind == "heat":
            filled = np.nan_to_num(data, nan=NOT_SCORED)
            stored = np.clip(np.rint(filled / _HEAT_STEP), -_LEVELS, _LEVELS).astype(np.int16)
            return nifti_bytes(Volume(stored, volume.grid), slope=_HEAT_STEP)
        # Where nothing is known nothing differs.
        stored, slope, intercept = _stored(np.nan_to_num(data) if self.kind == "difference" else data)
        return nifti_bytes(Volume(stored, volume.grid), slope=slope, intercept=intercept)


def steps_of(grid: Grid) -> tuple[int, int, int]:
    """How many voxels along i, j, k one of a page stands for: powers of two, the finest axis first, as few as needed.

    >>> steps_of(Grid((4, 4, 4), np.eye(4))), steps_of(Grid((600, 300, 100), np.diag([0.5, 1, 1, 1])))
    ((1, 1, 1), (2, 1, 1))
    """
    steps = np.ones(3, dtype=int)
    shape, spacing = np.array(grid.shape), np.array(grid.spacing)
    while np.prod(-(-shape // steps)) > MOST_VOXELS:
        steps[np.argmin(spacing * steps)] *= 2
    i, j, k = steps.tolist()
    return i, j, k


def thinned(volume: Volume, *, hottest: bool = False) -> Volume:
    """A volume of at most :data:`MOST_VOXELS` voxels, each of which stands for some that follow it along the axes.

    Args:
        volume: The whole volume.
        hottest: Whether a voxel has the highest value that it stands for, NaN apart, so that no hot one is lost;
            otherwise its own.
    """
    steps = steps_of(volume.grid)
    if steps == (1, 1, 1):
        return volume
    if hottest:
        data = np.nan_to_num(volume.data, nan=-np.inf)
        for axis, step in enumerate(steps, start=1):
            data = np.maximum.reduceat(data, np.arange(0, data.shape[axis], step), axis=axis)
        data = np.where(np.isneginf(data), np.nan, data)
    else:
        data = volume.data[(slice(None), *(slice(None, None, step) for step in steps))]
    affine = volume.grid.affine @ np.diag([*map(float, steps), 1.0])
    shape = (int(data.shape[1]), int(data.shape[2]), int(data.shape[3]))
    return Volume(data, Grid(shape, affine))


def kept_point(grid: Grid, point: tuple[float, float, float]) -> tuple[float, float, float]:
    """The place of the page's voxel that stands for the voxel at a point; the point itself where all are kept."""
    steps = steps_of(grid)
    if steps == (1, 1, 1):
        return point
    x, y, z = grid.to_world(np.rint(grid.to_voxel(point)) // steps * steps).tolist()
    return x, y, z


def _stored(data: NDArray[np.float32]) -> tuple[NDArray[np.int16], float, float]:
    """16-bit values, slope and intercept; NaN becomes the lowest value."""
    known = data[np.isfinite(data)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    slope, middle = max(high - low, 1e-12) / (2 * _LEVELS), (high + low) / 2
    filled = np.nan_to_num(data, nan=low, posinf=high, neginf=low)
    return np.rint((filled - middle) / slope).astype(np.int16), slope, middle
