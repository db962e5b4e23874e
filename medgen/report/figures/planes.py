"""Which voxel is seen where: orthogonal slices of a volume as a radiologist expects them.

Radiological convention: in axial and coronal slices the patient's right is on the image's left; axial slices have
anterior at the top, coronal and sagittal slices superior at the top; sagittal slices have anterior (the nose) on the
left. Oblique scans are cut along their own axes, each shown as the anatomical direction it is nearest to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medgen.io.hounsfield import without_padding
from medgen.volume import Grid, Volume

# Pictures larger than this gain nothing in a report; smaller ones are interpolated up to it, in world coordinates.
_MOST, _LEAST = 640, 160


@dataclass(frozen=True)
class View:
    """How a kind of slice lies on the screen, in axes ordered right, anterior, superior (0, 1, 2).

    Attributes:
        name: ``"axial"``, ``"coronal"`` or ``"sagittal"``.
        normal: Axis the slices are stacked along.
        across: Axis that runs from the image's left edge (high) to its right edge (low).
        down: Axis that runs from the top (high) to the bottom (low).
        letters: Patient direction at the left, right, top and bottom edge.
    """

    name: str
    normal: int
    across: int
    down: int
    letters: tuple[str, str, str, str]


VIEWS = {
    "axial": View("axial", 2, 0, 1, ("R", "L", "A", "P")),
    "coronal": View("coronal", 1, 0, 2, ("R", "L", "S", "I")),
    "sagittal": View("sagittal", 0, 1, 2, ("A", "P", "S", "I")),
}


@dataclass(frozen=True)
class Box:
    """A part of the canonical grid in voxel coordinates, edges included: the whole grid is −0.5 to n − 0.5."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Plane:
    """One slice in display orientation.

    Attributes:
        data: Values of shape (rows, columns): row 0 at the top, column 0 at the left; square pixels.
        grid: Where the pixels lie, of shape (rows, columns, 1).
        view: How it lies on the screen.
        position: World coordinate (RAS+ mm) of the slice's middle along its normal's anatomical direction.
    """

    data: NDArray[Any]
    grid: Grid
    view: View
    position: float

    @property
    def pixel(self) -> float:
        """Side of a pixel in mm."""
        return self.grid.spacing[0]


def canonical(grid: Grid) -> Grid:
    """The same voxels with axes permuted and flipped to run nearest to right, anterior and superior."""
    shape, spacing = [0, 0, 0], [0.0, 0.0, 0.0]
    for source, (target, _) in enumerate(grid.axes):
        shape[target], spacing[target] = grid.shape[source], grid.spacing[source]
    return grid.centred(shape, spacing)


def whole(grid: Grid) -> Box:
    """The whole field of view of a canonical grid."""
    i, j, k = grid.shape
    return Box((-0.5, -0.5, -0.5), (i - 0.5, j - 0.5, k - 0.5))


def bounding_box(volume: Volume, margin: float = 6.0) -> Box:
    """The box around the object, in voxels of :func:`canonical`, so that air does not fill the picture.

    The object is what exceeds 5 % of the range between the darkest and the 99.5th percentile value of channel 0.

    Args:
        volume: Scan, (c, i, j, k).
        margin: Air to keep around it, in mm.
    """
    grid = canonical(volume.grid)
    data = without_padding(volume.data[0])
    sample = data[:: max(1, data.shape[0] // 64), :: max(1, data.shape[1] // 64), :: max(1, data.shape[2] // 64)]
    sample = sample[np.isfinite(sample)]
    if sample.size == 0:
        return whole(grid)
    dark = float(sample.min())
    mask = data > dark + 0.05 * (float(np.percentile(sample, 99.5)) - dark)
    if not mask.any():
        return whole(grid)
    ranges = []
    for axis in range(3):
        # Single bright voxels in the air, such as noise, do not make an object.
        count = mask.sum(axis=tuple(other for other in range(3) if other != axis))
        inside = np.flatnonzero(count > 0.002 * mask.size / mask.shape[axis])
        ranges.append((inside[0], inside[-1]) if inside.size else (0, mask.shape[axis] - 1))
    corners = np.array(np.meshgrid(*ranges, indexing="ij"), dtype=np.float64).reshape(3, -1).T
    there = grid.to_voxel(volume.grid.to_world(corners))
    pad = margin / np.array(grid.spacing) + 0.5
    edge = whole(grid)
    low = np.maximum(there.min(axis=0) - pad, edge.low)
    high = np.minimum(there.max(axis=0) + pad, edge.high)
    return Box(tuple(low.tolist()), tuple(high.tolist()))


def slices(
    grid: Grid, view: str, n: int, focus: ArrayLike | None = None, box: Box | None = None, step: float | None = None
) -> list[Grid]:
    """Pixel grids of ``n`` slices, each of shape (rows, columns, 1).

    Args:
        grid: Grid of the scan that sets directions, extent and pixel size.
        view: ``"axial"``, ``"coronal"`` or ``"sagittal"``.
        n: Number of slices, at least 1. Evenly over the box; with a focus one of them goes through it.
        focus: World point (RAS+ mm), shape (3,).
        box: Part to show, in voxels of :func:`canonical`; default: all.
        step: Distance of slices in mm around a focus; default: a tenth of the box, at least a voxel.

    Raises:
        ValueError: If the view is unknown or ``n`` is below 1.
    """
    if view not in VIEWS or n < 1:
        raise ValueError(f"expected a view of {', '.join(VIEWS)} and at least one slice, found {view!r} and {n}")
    chosen, own = VIEWS[view], canonical(grid)
    box = box or whole(own)
    low, high, spacing = np.array(box.low), np.array(box.high), np.array(own.spacing)
    pixel = pixel_size(own, box)
    directions = own.affine[:3, :3] / spacing
    axis = chosen.normal
    count = tuple(max(1, round((high - low)[a] * spacing[a] / pixel)) for a in (chosen.down, chosen.across))
    columns = [-directions[:, chosen.down] * pixel, -directions[:, chosen.across] * pixel, own.affine[:3, axis]]
    result = []
    for position in _positions(low[axis], high[axis], spacing[axis], n, focus, own, axis, step):
        first = high - 0.5 * pixel / spacing
        first[axis] = position
        affine = np.eye(4)
        affine[:3, :3] = np.stack(columns, axis=1)
        affine[:3, 3] = own.to_world(first)
        result.append(Grid((count[0], count[1], 1), affine))
    return result


def pixel_size(grid: Grid, box: Box) -> float:
    """Side of the square pixels in mm: the finest spacing; finer for small, coarser for very large fields of view."""
    extent = float(((np.array(box.high) - np.array(box.low)) * np.array(grid.spacing)).max())
    return min(max(min(grid.spacing), extent / _MOST), extent / _LEAST)


def _positions(
    low: float, high: float, spacing: float, n: int, focus: ArrayLike | None, own: Grid, axis: int, step: float | None
) -> list[float]:
    """Slice positions in voxels, on voxel centres: between two centres a slice would be blurred."""
    first, last = int(np.ceil(low)), int(np.floor(high))
    if focus is None:
        # Not at the very ends, where there is little to see.
        return [float(np.clip(round(low + (k + 1) / (n + 1) * (high - low)), first, last)) for k in range(n)]
    distance = max(1, round(step / spacing if step else 0.1 * (high - low)))
    middle = int(np.clip(round(float(own.to_voxel(focus)[axis])), first, last))
    # At the edge of the box the other slices move to the side that is left, and the focus keeps its own.
    start = middle - min(n // 2, (middle - first) // distance) * distance
    start -= max(0, -((last - start - (n - 1) * distance) // distance)) * distance
    return [float(np.clip(start + k * distance, first, last)) for k in range(n)]


def cut(volume: Volume, grid: Grid, order: int = 1, channel: int = 0) -> NDArray[Any]:
    """The values of one channel on a slice grid, (rows, columns); NaN (0 for ``order`` 0) outside the field of view."""
    part = _around(volume, grid, channel)
    if order == 0:
        return part.resample(grid, order=0, fill=0).data[0, :, :, 0]
    return part.resample(grid, order=order, fill=float("nan")).data[0, :, :, 0]


def _around(volume: Volume, grid: Grid, channel: int) -> Volume:
    """The voxels near a slice as a volume of their own: resampling a slice of a large scan then costs a slice."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in grid.shape], indexing="ij")).reshape(3, -1).T
    there = volume.grid.to_voxel(grid.to_world(corners))
    # Linear interpolation needs one voxel more, the blur before downsampling a few.
    pad = 2 + np.ceil(3 * max(grid.spacing[:2]) / np.array(volume.grid.spacing))
    last = np.array(volume.grid.shape) - 1
    low = np.clip(np.floor(there.min(axis=0)) - pad, 0, last).astype(int)
    high = np.clip(np.ceil(there.max(axis=0)) + pad, 0, last).astype(int)
    window = tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))
    affine = volume.grid.affine.copy()
    affine[:3, 3] = volume.grid.to_world(low)
    return Volume(volume.data[channel : channel + 1][:, *window], Grid(tuple(high - low + 1), affine))


def planes(
    volume: Volume,
    view: str = "axial",
    n: int = 1,
    *,
    focus: ArrayLike | None = None,
    box: Box | None = None,
    order: int = 1,
    channel: int = 0,
) -> list[Plane]:
    """Slices of a volume in display orientation; see :func:`slices` for where they lie."""
    return [
        Plane(cut(volume, grid, order, channel), grid, VIEWS[view], position(grid, view))
        for grid in slices(volume.grid, view, n, focus, box)
    ]


def position(grid: Grid, view: str) -> float:
    """World coordinate of a slice grid's middle along the view's normal, in mm."""
    return float(grid.center[VIEWS[view].normal])


def slice_number(grid: Grid, plane: Grid, view: str) -> tuple[str, int]:
    """Axis (``"i"``, ``"j"`` or ``"k"``) and voxel index, from 0, of a slice in the volume that it was cut from.

    Args:
        grid: Grid of the volume.
        plane: Grid of the slice, one voxel thick.
        view: ``"axial"``, ``"coronal"`` or ``"sagittal"``.
    """
    targets = [int(target) for target, _ in grid.axes]
    source = targets.index(VIEWS[view].normal)
    return "ijk"[source], round(float(grid.to_voxel(plane.center)[source]))


def same_extent(grids: Sequence[Grid]) -> tuple[float, float]:
    """Largest width and height of slice grids in mm."""
    return (
        max(grid.shape[1] * grid.spacing[1] for grid in grids),
        max(grid.shape[0] * grid.spacing[0] for grid in grids),
    )


def middle_point(inside: NDArray[np.bool_], grid: Grid) -> NDArray[np.float64]:
    """World point of the voxel of a mask, (i, j, k), that is nearest to its middle; empty: the grid's centre."""
    voxels = np.argwhere(inside)
    if not len(voxels):
        return grid.center
    return grid.to_world(voxels[np.linalg.norm(voxels - voxels.mean(axis=0), axis=1).argmin()])
