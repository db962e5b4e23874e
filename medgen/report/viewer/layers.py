"""What a viewer shows: scans to choose from, and one overlay, each small enough for a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medgen.io.nifti import nifti_bytes
from medgen.volume import Grid, Volume

MOST_VOXELS = 1 << 24
"""Voxels of a layer, 256 x 256 x 256; every second of a larger scan is left out along its finest axes."""

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
    """

    name: str
    volume: Volume
    kind: Literal["scan", "difference", "heat", "labels"]
    window: tuple[float, float]

    def encoded(self) -> bytes:
        """The bytes of a ``.nii.gz`` with 16-bit values: exact to 0.01 for heat, to 1/65534 of the range for scans."""
        volume = thinned(self.volume)
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


def thinned(volume: Volume) -> Volume:
    """A volume of at most :data:`MOST_VOXELS` voxels: every second one along the finest axis, as often as needed.

    The voxels that are left keep their values and their places.

    >>> small = Volume(np.zeros((1, 4, 4, 4)), Grid((4, 4, 4), np.eye(4)))
    >>> thinned(small).grid.shape
    (4, 4, 4)
    """
    steps = np.ones(3, dtype=int)
    shape, spacing = np.array(volume.grid.shape), np.array(volume.grid.spacing)
    while np.prod(-(-shape // steps)) > MOST_VOXELS:
        steps[np.argmin(spacing * steps)] *= 2
    if (steps == 1).all():
        return volume
    data = volume.data[(slice(None), *(slice(None, None, step) for step in steps))]
    affine = volume.grid.affine @ np.diag([*steps.astype(float), 1.0])
    return Volume(data, Grid(data.shape[1:], affine))


def _stored(data: NDArray[np.float32]) -> tuple[NDArray[np.int16], float, float]:
    """16-bit values, slope and intercept; NaN becomes the lowest value."""
    known = data[np.isfinite(data)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    slope, middle = max(high - low, 1e-12) / (2 * _LEVELS), (high + low) / 2
    filled = np.nan_to_num(data, nan=low, posinf=high, neginf=low)
    return np.rint((filled - middle) / slope).astype(np.int16), slope, middle
