"""What a grid must be to be trusted, whatever file says it: perpendicular axes, near the origin of its world."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.faults import FaultyDataError, fail
from medgen.volume import Grid

# Slices tilted by less are rounding to scanners and converters.
SHEAR_DEGREES = 0.3
# No scanner's world is larger; beyond, single precision places voxels wrongly.
FARTHEST_MM = 1e4
# Voxel sizes beyond which a header is more likely in other units than right.
SPACING_MM = (0.01, 20.0)


def sheared(path: Path, grid: Grid) -> FaultyDataError | None:
    """An error for a grid whose axes are not perpendicular, within :data:`SHEAR_DEGREES`."""
    axes = grid.affine[:3, :3] / grid.spacing
    cosines = np.abs(np.triu(axes.T @ axes, 1))
    if cosines.max() <= math.sin(math.radians(SHEAR_DEGREES)):
        return None
    angle = 90 - math.degrees(math.asin(min(cosines.max(), 1.0)))
    found = f"a sheared grid: two axes meet at {angle:.1f} degrees"
    return fail(path, found, "perpendicular axes", "resample it to a regular grid knowingly")


def far(path: Path, grid: Grid) -> FaultyDataError | None:
    """An error for a grid that reaches beyond :data:`FARTHEST_MM`."""
    farthest = float(np.abs(grid.to_world(corners(grid))).max())
    if farthest <= FARTHEST_MM:
        return None
    found = f"voxels {farthest:.4g} mm away from the origin of the world"
    return fail(path, found, f"at most {FARTHEST_MM:g} mm", "correct the orientation or its unit")


def spacing_fault(path: Path, grid: Grid) -> FaultyDataError | None:
    """An error for voxels that no scanner has: of a header in other units, or without any.

    Whatever brings such a scan to a grid in mm would make millions of voxels of it, or one.
    """
    if SPACING_MM[0] <= min(grid.spacing) and max(grid.spacing) <= SPACING_MM[1]:
        return None
    found = f"voxel sizes of {' x '.join(f'{size:.4g}' for size in grid.spacing)} mm"
    expected = f"{SPACING_MM[0]:g} to {SPACING_MM[1]:g} mm"
    return fail(path, found, expected, "correct the units of the header")


def corners(grid: Grid) -> NDArray[Any]:
    """Voxel indices of the eight corners, (8, 3)."""
    return np.array(np.meshgrid(*[(0, n - 1) for n in grid.shape], indexing="ij")).reshape(3, -1).T
