"""Where an implant goes: random blobs and real lesion shapes, placed inside the foreground with soft edges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medgen.errors import DataError

# Least share of a shape that lies in the foreground where it is placed.
INSIDE = 0.8
_TRIES = 400


@dataclass(frozen=True, eq=False)
class Region:
    """A part of an image that an implant may change.

    Attributes:
        box: Slices of the image that contain the region.
        weight: Float32 of the box's shape, 0 outside, rising to 1 over a soft edge that lies inside the region.
        rho: Float32 of the box's shape, 0 at the centre, 1 on the region's surface, above 1 outside.
        centre: Voxel coordinates (i, j, k) of the centre in the image.
        radius_mm: Radius of the ball of the region's nominal volume.
        spacing: Voxel sizes (mm).
    """

    box: tuple[slice, slice, slice]
    weight: NDArray[np.float32]
    rho: NDArray[np.float32]
    centre: NDArray[np.float64]
    radius_mm: float
    spacing: tuple[float, float, float]

    def voxels(self) -> NDArray[np.float64]:
        """Voxel coordinates in the image of every voxel of the box, shape (3, *box)."""
        axes = [np.arange(part.start, part.stop, dtype=np.float64) for part in self.box]
        return np.stack(np.meshgrid(*axes, indexing="ij"))


@dataclass(frozen=True, eq=False)
class Shape:
    """A region that has no place yet: ``rho`` and ``weight`` on a box, and the voxel of it that is put on tissue."""

    rho: NDArray[np.float32]
    weight: NDArray[np.float32]
    centre: tuple[int, int, int]


# Draws where an implant is and in which form, from what :func:`one_region` takes.
Placer = Callable[
    [
        NDArray[np.bool_],
        np.random.Generator,
        float,
        tuple[float, float, float],
        NDArray[Any] | None,
        NDArray[np.bool_] | None,
    ],
    Region,
]


def random_blob(rng: np.random.Generator, radius_mm: float, spacing: Sequence[float]) -> Shape:
    """An ellipsoid with random axes and orientation and a smoothly undulating surface.

    In the ellipsoid's own coordinates u (unit: mm over half axis) the surface is |u| = R(u/|u|), with R = 1 plus four
    random plane waves on the unit sphere: star-shaped, so ``rho`` = |u|/R is a radial coordinate.

    Args:
        rng: Source of randomness.
        radius_mm: Radius of the ball of about the same volume.
        spacing: Voxel sizes (mm).
    """
    step = np.asarray(spacing, dtype=np.float64)
    stretch = np.exp(rng.uniform(-0.25, 0.25, size=3))
    half_axes = radius_mm * stretch / np.cbrt(stretch.prod())
    rotation, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    waves, phases = 1.5 * rng.standard_normal((4, 3)), rng.uniform(0, 2 * np.pi, 4)

    reach = np.ceil(1.35 * half_axes.max() / step).astype(int)
    axes = [np.arange(-n, n + 1) * s for n, s in zip(reach, step, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    ellipsoid = (points @ rotation) / half_axes
    length = np.linalg.norm(ellipsoid, axis=-1)
    direction = ellipsoid / np.maximum(length, 1e-9)[..., None]
    surface = 1 + 0.07 * np.cos(direction @ waves.T + phases).sum(-1)
    rho = (length / surface).astype(np.float32)
    edge = float(np.clip(1.5 * step.mean() / radius_mm, 0.25, 1))
    weight = _smoothstep((1 - rho) / edge)
    centre = (int(reach[0]), int(reach[1]), int(reach[2]))
    weight[centre] = 1  # a blob smaller than a voxel still has one
    return Shape(rho, weight, centre)


def shape_of_mask(
    mask: NDArray[np.bool_], rng: np.random.Generator, radius_mm: float, spacing: Sequence[float]
) -> Shape:
    """A real shape: scaled to the volume of a ball of ``radius_mm``, randomly mirrored along each axis.

    Args:
        mask: (i, j, k), voxels taken as cubes of any size (only the form counts).
        rng: Source of randomness.
        radius_mm: Radius of the ball of the same volume.
        spacing: Voxel sizes of the image it goes to (mm).

    Raises:
        DataError: If the mask has no voxel.
    """
    mask = np.asarray(mask, dtype=bool)
    if mask.ndim != 3 or not mask.any():
        raise DataError(
            f"expected a lesion mask of shape (i, j, k) with voxels above 0, found {mask.shape} without any"
        )
    mask = np.pad(mask[ndimage.find_objects(mask.astype(np.uint8))[0]], 2)
    mask = mask[tuple(slice(None, None, int(rng.choice((-1, 1)))) for _ in range(3))]
    # A signed distance stays smooth when scaled; its zero level is the surface, half a voxel outside the last centres.
    distance = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
    voxel_mm = radius_mm / np.cbrt(3 * mask.sum() / (4 * np.pi))
    step = np.asarray(spacing, dtype=np.float64)
    shape = np.maximum(np.ceil(np.array(mask.shape) * voxel_mm / step).astype(int), 3)
    matrix = step / voxel_mm
    offset = (np.array(mask.shape) - 1) / 2 - matrix * (shape - 1) / 2
    inside = ndimage.affine_transform(distance, matrix, offset, tuple(shape.tolist()), order=1, mode="nearest")
    inside = inside * voxel_mm
    deepest = np.unravel_index(int(inside.argmax()), inside.shape)
    depth = max(float(inside[deepest]), 1e-3)
    rho = (1 - inside / depth).astype(np.float32)
    weight = _smoothstep((inside / min(1.5 * float(step.mean()), depth)).astype(np.float32))
    centre = (int(deepest[0]), int(deepest[1]), int(deepest[2]))
    weight[centre] = 1
    return Shape(rho, weight, centre)


def place(
    shape: Shape,
    foreground: NDArray[np.bool_],
    rng: np.random.Generator,
    radius_mm: float,
    spacing: tuple[float, float, float],
    where: NDArray[np.bool_] | None = None,
) -> Region:
    """Put a shape at a random place where at least 80 % of it lies in the foreground.

    Args:
        shape: What to place.
        foreground: (i, j, k) boolean.
        rng: Source of randomness.
        radius_mm: Nominal radius, kept in the result.
        spacing: Voxel sizes (mm), kept in the result.
        where: (i, j, k) boolean, the part of the foreground that the shape's centre may lie in; default: all of it.

    Raises:
        DataError: If none of 400 random places is good enough: the radius is too large for this foreground.
    """
    candidates = np.flatnonzero(foreground if where is None else foreground & where)
    if candidates.size == 0:
        raise DataError(
            "the foreground is empty; there is no place for an implant"
            if where is None
            else "no foreground voxel is in the part that the implant's centre is restricted to"
        )
    support = shape.weight > 0
    total = int(support.sum())
    for index in rng.choice(candidates, size=_TRIES):
        centre = np.array(np.unravel_index(int(index), foreground.shape))
        start = centre - np.array(shape.centre)
        stop = start + np.array(support.shape)
        low = np.maximum(start, 0)
        high = np.minimum(stop, foreground.shape)
        box = _box(low, high)
        inner = _box(low - start, high - start)
        if np.count_nonzero(support[inner] & foreground[box]) >= INSIDE * total:
            weight = shape.weight[inner] * foreground[box]
            return Region(box, weight, shape.rho[inner], centre.astype(np.float64), radius_mm, spacing)
    raise DataError(
        f"an implant of radius {radius_mm:g} mm does not fit the foreground of {foreground.sum()} voxels of "
        f"{'x'.join(f'{s:g}' for s in spacing)} mm; use a smaller radius_mm"
    )


def one_region(
    foreground: NDArray[np.bool_],
    rng: np.random.Generator,
    radius_mm: float,
    spacing: tuple[float, float, float],
    shape: NDArray[Any] | None,
    where: NDArray[np.bool_] | None,
) -> Region:
    """A random place for a random blob, or for the form of a mask.

    Args:
        foreground: (i, j, k) boolean.
        rng: Source of randomness.
        radius_mm: Radius of the ball of about the region's volume.
        spacing: Voxel sizes (mm).
        shape: Mask of a real lesion with cubic voxels; None for a blob.
        where: (i, j, k) boolean, the part of the foreground that the centre may lie in; None for all of it.

    Raises:
        DataError: As :func:`shape_of_mask` and :func:`place`.
    """
    if shape is not None:
        form = shape_of_mask(np.asarray(shape) > 0, rng, radius_mm, spacing)
    else:
        form = random_blob(rng, radius_mm, spacing)
    return place(form, foreground, rng, radius_mm, spacing, where)


def merge(regions: Sequence[Region]) -> Region:
    """The union of several regions of one image as one region (largest weight, smallest rho), centred on the first."""
    starts = np.array([[part.start for part in region.box] for region in regions])
    stops = np.array([[part.stop for part in region.box] for region in regions])
    low, high = starts.min(0), stops.max(0)
    weight = np.zeros(high - low, dtype=np.float32)
    rho = np.full(high - low, 2, dtype=np.float32)
    for region, start, stop in zip(regions, starts, stops, strict=True):
        inner = _box(start - low, stop - low)
        weight[inner] = np.maximum(weight[inner], region.weight)
        rho[inner] = np.minimum(rho[inner], region.rho)
    first = regions[0]
    return Region(_box(low, high), weight, rho, first.centre, first.radius_mm, first.spacing)


def _box(low: NDArray[np.int_], high: NDArray[np.int_]) -> tuple[slice, slice, slice]:
    i, j, k = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return i, j, k


def _smoothstep(values: NDArray[np.float32]) -> NDArray[np.float32]:
    t = np.clip(values, 0, 1)
    result: NDArray[np.float32] = (t * t * (3 - 2 * t)).astype(np.float32)
    return result
