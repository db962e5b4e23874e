"""Grids and volumes: an array is never apart from its geometry, and geometry changes in :func:`resample` only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from medgen import affines
from medgen.axes import assigned
from medgen.errors import GeometryError
from medgen.separable import Axes, interpolate

# Full width at half maximum to standard deviation of a Gaussian.
_FWHM = 1.0 / (2.0 * np.sqrt(2.0 * np.log(2.0)))
# Voxels from which on ITK is worth its import, and the types that it takes.
_LARGE = 1 << 17
_OF_ITK = tuple(map(np.dtype, ("=f4", "=f8", "=u1", "=i1", "=u2", "=i2", "=u4", "=i4")))


@dataclass(frozen=True, eq=False)
class Grid:
    """A mapped voxel space: shape (i, j, k) and an affine from voxel indices to RAS+ millimetres.

    >>> grid = Grid((4, 5, 6), np.diag([-1.0, 1.0, 2.5, 1.0]))  # i runs from right to left
    >>> grid.axcodes, grid.spacing
    ('LAS', (1.0, 1.0, 2.5))
    >>> grid.to_world((1, 0, 2)).tolist()  # millimetres to the right, to the front and to the top
    [-1.0, 0.0, 5.0]

    Attributes:
        shape: Numbers of voxels along i, j, k; each at least 1.
        affine: 4 × 4 float64, read-only, invertible; the centre of voxel (0, 0, 0) is ``affine[:3, 3]``.

    Raises:
        GeometryError: If the shape is not three positive integers or the affine is not a finite, invertible 4 × 4
            matrix with last row (0, 0, 0, 1).
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        if len(shape) != 3 or min(shape) < 1:
            raise GeometryError(f"expected a shape of three positive integers, found {tuple(self.shape)}")
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise GeometryError(f"expected a finite 4 x 4 affine, found shape {affine.shape}: {affine.tolist()}")
        if not np.array_equal(affine[3], (0, 0, 0, 1)):
            raise GeometryError(f"expected (0, 0, 0, 1) as the affine's last row, found {affine[3].tolist()}")
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        if lengths.min() <= 0 or abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-6:
            raise GeometryError(f"the affine is singular: {affine[:3, :3].tolist()}")
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between voxel centres along i, j, k in mm."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)

    @property
    def voxel_volume(self) -> float:
        """Volume of one voxel in mm³."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @property
    def center(self) -> NDArray[np.float64]:
        """World position (RAS+ mm) of the middle of the field of view, shape (3,)."""
        return self.to_world((np.array(self.shape) - 1) / 2)

    @property
    def axcodes(self) -> str:
        """Nearest anatomical direction of each array axis, such as ``"RAS"`` or ``"PSR"``."""
        return "".join("RAS"[axis] if flip > 0 else "LPI"[axis] for axis, flip in self.axes)

    @property
    def directions(self) -> NDArray[np.float64]:
        """Unit vectors along i, j, k in the RAS+ world, one per column, (3, 3)."""
        return np.asarray(self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def axes(self) -> tuple[tuple[int, int], ...]:
        """For i, j, k the world axis (0 R, 1 A, 2 S) each is assigned to, and 1 or -1 for along or against it."""
        return assigned(self.directions)

    def to_world(self, voxels: ArrayLike) -> NDArray[np.float64]:
        """Map voxel coordinates of shape (..., 3) to RAS+ mm."""
        return np.asarray(voxels, dtype=np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_voxel(self, world: ArrayLike) -> NDArray[np.float64]:
        """Map RAS+ mm of shape (..., 3) to (fractional) voxel coordinates."""
        return (np.asarray(world, dtype=np.float64) - self.affine[:3, 3]) @ np.linalg.inv(self.affine[:3, :3]).T

    def same_as(self, other: Grid, tolerance: float = 1e-3) -> bool:
        """Whether shapes agree and every voxel lies within ``tolerance`` mm of its counterpart."""
        if self.shape != other.shape:
            return False
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape], indexing="ij")).reshape(3, -1).T
        return bool(np.abs(self.to_world(corners) - other.to_world(corners)).max() <= tolerance)

    def moved(self, world: ArrayLike) -> Grid:
        """The same voxels after the world is mapped by a 4 × 4 affine: ``world @ affine``."""
        return Grid(self.shape, affines.product(np.asarray(world, dtype=np.float64), self.affine))

    def centred(self, shape: Sequence[int], spacing: Sequence[float], frame: ArrayLike | None = None) -> Grid:
        """A grid of another shape and spacing around the same centre, with axes along this grid's, ordered as RAS+.

        The axes are this grid's own directions, permuted and flipped to the nearest R, A and S: an oblique scan
        keeps its obliqueness, and no voxel is mirrored. See :func:`medgen.axes.assigned` for what is nearest.

        Args:
            shape: Voxels along the new axes.
            spacing: Their size in mm.
            frame: Directions to order the axes by instead of R, A and S, one per column, (3, 3).
        """
        order = assigned(self.directions, frame, spacing=self.spacing, wanted=spacing)
        axes = np.zeros((3, 3))
        for source, (target, flip) in enumerate(order):
            axes[:, target] = self.directions[:, source] * flip
        size = np.array(tuple(int(n) for n in shape))
        linear = axes * np.asarray(spacing, dtype=np.float64)
        return Grid(tuple(size.tolist()), affines.affine(linear, self.center - linear @ ((size - 1) / 2)))

    def on_lattice(self, other: Grid) -> Grid:
        """This grid, moved by at most half a voxel of ``other`` along each axis, so that voxel centres coincide.

        Only along axes that both share with the same step; elsewhere the grid stays as it is. A scan that is brought
        to a grid of its own voxel size is then copied and not interpolated: half a voxel of shift would blur it, and
        a label map that goes there and back would lose a tenth of its overlap on structures a few voxels thick.
        """
        mapping = affines.product(affines.inverse(other.affine), self.affine)
        steps = np.abs(mapping[:3, :3])
        shared = (np.abs(steps.max(axis=1) - 1) < 1e-3) & (np.abs(steps.sum(axis=1) - 1) < 1e-3)
        origin = np.where(shared, np.floor(mapping[:3, 3] + 0.5), mapping[:3, 3])
        affine = self.affine.copy()
        affine[:3, 3] = other.to_world(origin)
        return Grid(self.shape, affine)


@dataclass(frozen=True, eq=False)
class Volume:
    """An array of shape (c, i, j, k) on a :class:`Grid`; no arithmetic and no slicing, so geometry cannot drift.

    >>> scan = Volume(np.ones((1, 4, 5, 6), np.float32), Grid((4, 5, 6), np.diag([1.0, 1.0, 2.5, 1.0])))
    >>> finer = scan.resample(scan.grid.centred(shape=(4, 5, 15), spacing=(1, 1, 1)))
    >>> finer.data.shape, finer.grid.spacing
    ((1, 4, 5, 15), (1.0, 1.0, 1.0))
    >>> scan.with_data(np.zeros((4, 5, 7)))
    Traceback (most recent call last):
    medgen.errors.GeometryError: data of shape (4, 5, 7) does not fit a grid of shape (4, 5, 6)

    Attributes:
        data: The values; the array is made read-only, not copied.
        grid: Where its voxels lie.

    Raises:
        GeometryError: If the array is not 4D or its last three axes differ from the grid's shape.
    """

    data: NDArray[Any]
    grid: Grid

    def __post_init__(self) -> None:
        data = np.asarray(self.data)
        if data.ndim != 4 or data.shape[0] < 1:
            raise GeometryError(f"expected data of shape (channel, i, j, k), found {data.shape}")
        if data.shape[1:] != self.grid.shape:
            raise GeometryError(f"data of shape {data.shape[1:]} does not fit a grid of shape {self.grid.shape}")
        view = data.view()
        view.setflags(write=False)
        object.__setattr__(self, "data", view)

    def with_data(self, data: NDArray[Any]) -> Volume:
        """Other values on the same grid; a 3D array becomes one channel.

        Raises:
            GeometryError: If the spatial shape differs.
        """
        data = np.asarray(data)
        return Volume(data[None] if data.ndim == 3 else data, self.grid)

    def resample(self, grid: Grid, order: int = 1, fill: float = 0.0) -> Volume:
        """This volume on another grid; see :func:`resample`."""
        return resample(self, grid, order=order, fill=fill)


def resample(volume: Volume, grid: Grid, order: int = 1, fill: float = 0.0) -> Volume:
    """Interpolate a volume on another grid, in one step, anti-aliased where that grid is coarser.

    Voxels are boxes: a target voxel whose centre lies inside the source's outermost voxels has a value (the nearest
    one, up to half a voxel beyond the outermost centres), every other gets ``fill``. NaN means "no value": it takes
    no part in the interpolation, and a target voxel that draws most of its weight from NaN is NaN.

    Along axes that both grids share the eight neighbours factor, see :mod:`medgen.separable`.

    Downsampling first blurs with the Gaussian that matches the two voxels' point spread functions (Cardoso et al.,
    "Scale factor point spread function matching", MICCAI 2015): variance (f² − 1) · FWHM⁻² per axis in source
    voxels, f the ratio of steps.

    Args:
        volume: Source, (c, i, j, k).
        grid: Target grid, in the same RAS+ world.
        order: 0 nearest neighbour (labels; keeps the dtype, never blurs), 1 linear, 3 cubic spline (float32).
        fill: Value outside the source's field of view.

    Returns:
        A volume of shape (c, *grid.shape); float32 unless ``order`` is 0.

    Raises:
        GeometryError: If ``order`` is not 0, 1 or 3, or ``fill`` does not fit integer labels.
    """
    if order not in (0, 1, 3):
        raise GeometryError(f"interpolation order must be 0, 1 or 3, found {order}")
    mapping = affines.product(affines.inverse(volume.grid.affine), grid.affine)
    dtype = volume.data.dtype if order == 0 else np.dtype(np.float32)
    if order == 0 and not _holds(dtype, fill):
        raise GeometryError(f"fill {fill} does not fit the label type {dtype}")
    sigma = None if order == 0 else _antialias_sigma(mapping)
    result = np.empty((len(volume.data), *grid.shape), dtype=dtype)
    for channel, target in zip(volume.data, result, strict=True):
        target[...] = _interpolate(channel, mapping, grid.shape, order, sigma)
    _fill_outside(result, mapping, volume.grid.shape, fill)
    return Volume(result, grid)


def _holds(dtype: np.dtype[Any], value: float) -> bool:
    """Whether an array of this type can hold the value exactly (any value, for floating point)."""
    if dtype.kind == "f":
        return True
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return bool(float(value).is_integer() and low <= value <= high)


def _antialias_sigma(mapping: NDArray[np.float64]) -> NDArray[np.float64] | None:
    factor = np.linalg.norm(mapping[:3, :3], axis=1)
    sigma: NDArray[np.float64] = _FWHM * np.sqrt(np.maximum(factor**2 - 1, 0))
    sigma[sigma < 0.05] = 0
    return sigma if sigma.any() else None


def _interpolate(
    data: NDArray[Any],
    mapping: NDArray[np.float64],
    shape: tuple[int, int, int],
    order: int,
    sigma: NDArray[np.float64] | None,
) -> NDArray[Any]:
    if order == 0:
        return _affine(data, mapping, shape, 0)
    data = data.astype(np.float32, copy=False)
    axes = Axes.of(mapping) if order == 1 else None
    with np.errstate(over="ignore", invalid="ignore"):
        # A sum is finite only if its terms are.
        clean = bool(np.isfinite(data.sum()))
    if axes is not None and clean:
        return interpolate(data, axes, shape, sigma)
    missing = np.isnan(data)
    if clean or not missing.any():
        smooth = data if sigma is None else ndimage.gaussian_filter(data, sigma, mode="nearest", truncate=3)
        return _affine(smooth, mapping, shape, order)
    # Normalised interpolation: NaN voxels carry no weight, so they neither spread nor darken their neighbours.
    present = (~missing).astype(np.float32)
    values = np.where(missing, np.float32(0), data)
    if sigma is not None:
        values = ndimage.gaussian_filter(values, sigma, mode="nearest", truncate=3)
        present = ndimage.gaussian_filter(present, sigma, mode="nearest", truncate=3)
    weight = _affine(present, mapping, shape, 1)
    total = _affine(values, mapping, shape, 1)
    known = weight >= 0.5
    return np.where(known, total / np.where(known, weight, 1), np.float32(np.nan))


def _affine(data: NDArray[Any], mapping: NDArray[np.float64], shape: tuple[int, int, int], order: int) -> NDArray[Any]:
    matrix = mapping[:3, :3]
    off_diagonal = np.abs(matrix - np.diag(np.diag(matrix))).max()
    if off_diagonal >= 1e-9 and order <= 1 and math.prod(shape) >= _LARGE and data.dtype in _OF_ITK:
        return _by_itk(data, mapping, shape, order)
    # With a diagonal, SciPy interpolates each axis from precomputed offsets: about three times faster.
    argument = np.diag(matrix) if off_diagonal < 1e-9 and order > 0 else matrix
    result: NDArray[Any] = ndimage.affine_transform(
        data, argument, offset=mapping[:3, 3], output_shape=shape, order=order, mode="nearest", prefilter=order > 1
    )
    return result


def _by_itk(data: NDArray[Any], mapping: NDArray[np.float64], shape: tuple[int, int, int], order: int) -> NDArray[Any]:
    """As SciPy's, in a third of the time, up to a voxel beyond the source's edge; 0 further out."""
    import SimpleITK as sitk

    # One more layer of the outermost voxels: between ITK's last voxel centre and its edge there is nothing to mix.
    image = sitk.GetImageFromArray(np.pad(data, 1, mode="edge"))
    # ITK names axes from the innermost in memory on: k, j, i.
    matrix, offset = mapping[:3, :3][::-1, ::-1], mapping[:3, 3][::-1] + 1
    resampler = sitk.ResampleImageFilter()
    # Callers have threads of their own, one for each scan.
    resampler.SetNumberOfThreads(1)
    resampler.SetInterpolator(sitk.sitkLinear if order else sitk.sitkNearestNeighbor)
    resampler.SetTransform(sitk.AffineTransform(matrix.ravel().tolist(), offset.tolist()))
    resampler.SetSize(shape[::-1])
    result: NDArray[Any] = sitk.GetArrayFromImage(resampler.Execute(image))
    return result


def _fill_outside(
    result: NDArray[Any], mapping: NDArray[np.float64], source: tuple[int, int, int], fill: float
) -> None:
    """Give ``fill`` to target voxels whose centres lie beyond half a voxel of the source grid."""
    target = result.shape[1:]
    edge = 0.5 + 1e-6
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in target], indexing="ij")).reshape(3, -1)
    points = mapping[:3, :3] @ corners + mapping[:3, 3:]
    limits = np.array(source)[:, None] - 1 + edge
    if ((points >= -edge) & (points <= limits)).all():
        return
    if (axes := Axes.of(mapping)) is not None:
        for axis, n in enumerate(target):
            place = axes.positions(axis, n)
            upper = source[axes.source[axis]] - 1 + edge
            np.moveaxis(result, axis + 1, 0)[(place < -edge) | (place > upper)] = fill
        return
    j, k = np.arange(target[1])[:, None], np.arange(target[2])[None, :]
    for axis in range(3):
        plane = mapping[axis, 1] * j + mapping[axis, 2] * k + mapping[axis, 3]
        upper = source[axis] - 1 + edge
        for i in range(target[0]):
            position = plane + mapping[axis, 0] * i
            result[:, i][:, (position < -edge) | (position > upper)] = fill
