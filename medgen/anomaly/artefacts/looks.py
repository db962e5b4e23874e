"""What a scan looks like by itself, in a few numbers: noise, detail along each axis, echo, how flat its ends are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from medgen.preprocessing.prepared import PreparedScan
from medgen.transforms.masked_smoothing import Smoother

# Share of the voxels whose detail counts, from the flattest on, and how bright and dark (interquartile ranges) it is.
_COMMON, _RANGE = 0.98, 1.2
# Towards where a foreground may end flat (R, A, S): along and against the axes, and forwards while looking down.
ENDS: dict[str, tuple[float, float, float]] = {
    "right": (1, 0, 0),
    "left": (-1, 0, 0),
    "front": (0, 1, 0),
    "back": (0, -1, 0),
    "head": (0, 0, 1),
    "foot": (0, 0, -1),
    "front, 25 degrees down": (0, float(np.cos(np.deg2rad(25))), -float(np.sin(np.deg2rad(25)))),
    "front, 45 degrees down": (0, float(np.cos(np.deg2rad(45))), -float(np.sin(np.deg2rad(45)))),
}
# The outermost part of the foreground whose thickness is measured, what is left out as stray voxels, and how many
# voxels are enough to know both.
_OUTER, _STRAY, _ENOUGH = 0.01, 0.0005, 20_000
# An end is turned to where it is flattest, in steps of so many degrees.
_TURNS = (8.0, 4.0, 2.0, 1.0)
# An echo is at least this far away (mm) and near an axis (cosine), with this share of the foreground on both.
_NEAR_MM, _ALONG, _SHARED = 25.0, 0.99, 0.06


@dataclass(frozen=True, eq=False)
class Looks:
    """What a scan looks like, before it is compared with others.

    Attributes:
        noise: (c,) standard deviation of white noise with its finest diagonal detail, in interquartile ranges of the
            foreground's intensities.
        detail: (c, 3) logarithm of the mean absolute second difference along each axis, in the same unit.
        echo: Largest sharp peak of the weighted autocorrelation of its fine detail at a distance along an axis.
        ends: (e,) logarithm of the thickness in mm of the outermost 1 % of the foreground towards each of :data:`ENDS`.
    """

    noise: NDArray[np.float64]
    detail: NDArray[np.float64]
    echo: float
    ends: NDArray[np.float64]

    @classmethod
    def of(cls, prepared: PreparedScan) -> Looks:
        """Of a scan on the model grid."""
        inside = prepared.foreground
        spacing = prepared.grid.spacing
        scaled = [standardised(channel, inside) for channel in prepared.image]
        return cls(
            noise=np.array([noise_of(channel, inside) for channel in scaled]),
            detail=np.stack([detail_of(channel, inside) for channel in scaled]),
            echo=max(echo_of(channel, inside, spacing) for channel in scaled),
            ends=ends_of(inside, spacing, prepared.grid.directions),
        )


def standardised(image: NDArray[np.floating], inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """An image (i, j, k) less its median and in interquartile ranges of the foreground; 0 outside."""
    if not inside.any():
        return np.zeros(image.shape, dtype=np.float32)
    low, middle, high = np.percentile(image[inside], [25, 50, 75])
    return np.where(inside, (image - middle) / max(float(high - low), 1e-6), 0).astype(np.float32)


def noise_of(image: NDArray[np.float32], inside: NDArray[np.bool_]) -> float:
    """Noise by the median absolute value of the finest diagonal Haar detail inside, over 0.6745.

    Source: Donoho and Johnstone, "Ideal spatial adaptation by wavelet shrinkage", Biometrika 1994.
    """
    detail, known = image, inside
    for axis in range(3):
        detail = np.diff(detail, axis=axis) / np.float32(np.sqrt(2))
        known = _pairs(known, axis)
    return float(np.median(np.abs(detail[known])) / 0.6745) if known.any() else 0.0


def detail_of(image: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Logarithm of the mean absolute second difference along each axis, two voxels inside the foreground, (3,).

    Intensities are clipped to where most healthy ones are, and the steepest voxels are left out.
    """
    inner = ndimage.binary_erosion(inside, iterations=2)
    shown = np.clip(image, -_RANGE, _RANGE)
    found = np.zeros(3)
    for axis in range(3):
        own = np.moveaxis(inner, axis, 0)[1:-1]
        if own.any():
            values = np.abs(np.moveaxis(np.diff(shown, 2, axis=axis), axis, 0)[own])
            # The edges of a lesion are among the steepest places; ripples are everywhere.
            values = values[values <= np.quantile(values, _COMMON)]
            found[axis] = np.log(max(float(values.mean(dtype=np.float64)), 1e-6))
    return found


def echo_of(image: NDArray[np.float32], inside: NDArray[np.bool_], spacing: tuple[float, float, float]) -> float:
    """Largest sharp peak of the autocorrelation of fine detail along an axis, at least 25 mm away; 0 if nowhere.

    A copy of the scan that is shifted by d and has the share m of its signal correlates voxels with those d away by m.
    The fewer voxels have one d away, the more correlations scatter by chance, by one over the root of their number:
    peaks are weighted with the root of the share that has. They stand out from the mean of the lags around them, since
    anatomy, too, resembles itself.
    """
    inner = ndimage.binary_erosion(inside)
    if inner.sum() < 100:
        return 0.0
    # What is left of 2 voxels' smoothing inside the foreground.
    fine = np.where(inner, image - Smoother.of(inside, 2.0)(image), 0).astype(np.float32)
    shape = [fft.next_fast_len(2 * n - 1, real=True) for n in fine.shape]
    both = fft.irfftn(np.abs(fft.rfftn(fine, shape)) ** 2, shape)
    shared = fft.irfftn(np.abs(fft.rfftn(inner.astype(np.float32), shape)) ** 2, shape)
    power = float((fine[inner] ** 2).mean())
    # Only lags at which enough voxels have another say anything, and those are the small ones: the rest is cut off.
    enough = shared >= _SHARED * inner.sum()
    lags = [_lags(enough.any(axis=tuple({0, 1, 2} - {axis})), n) for axis, n in enumerate(shape)]
    here = np.ix_(*lags)
    mm = [np.where(own > n // 2, own - n, own) * s for own, n, s in zip(here, shape, spacing, strict=True)]
    distance = np.sqrt(mm[0] ** 2 + mm[1] ** 2 + mm[2] ** 2)
    known = enough[here] & (distance >= _NEAR_MM)
    along = np.maximum(np.maximum(abs(mm[0]), abs(mm[1])), abs(mm[2])) >= _ALONG * distance
    weighted = np.sqrt(np.maximum(shared[here], 1) * inner.sum()) * max(power, 1e-12)
    correlation = np.where(known, both[here] / weighted, 0).astype(np.float32)
    around = (
        ndimage.uniform_filter(correlation, 7, mode="wrap") * 343
        - ndimage.uniform_filter(correlation, 3, mode="wrap") * 27
    )
    peaks = correlation - around / (343 - 27)
    return float(peaks[known & along].max(initial=0.0))


def _lags(enough: NDArray[np.bool_], n: int) -> NDArray[np.intp]:
    """Indices of lags along an axis of ``n``, in rising order of the lag: all that are wanted and a margin of three.

    >>> _lags(np.isin(np.arange(12), [0, 1, 11]), 12).tolist()
    [8, 9, 10, 11, 0, 1, 2, 3, 4]
    """
    wanted = np.flatnonzero(enough)
    reach = int(np.minimum(wanted, n - wanted).max(initial=0)) + 3
    return np.arange(n) if 2 * reach + 1 >= n else np.arange(-reach, reach + 1) % n


def ends_of(
    inside: NDArray[np.bool_], spacing: tuple[float, float, float], directions: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Logarithm of the thickness (mm) of the outermost 1 % of the foreground towards each of :data:`ENDS`, (e,).

    A rounded end is thick there, one that was cut off flat is thin. Each direction is turned by up to 15 degrees to
    where the end is flattest, since heads do not lie along the axes.

    Args:
        inside: Foreground (i, j, k).
        spacing: Voxel sizes (mm).
        directions: Unit vectors along i, j, k in the RAS+ world, one per column.
    """
    voxels = np.argwhere(inside)
    if len(voxels) < 100:
        return np.zeros(len(ENDS))
    rng = np.random.default_rng(0)
    kept = voxels[rng.choice(len(voxels), _ENOUGH, replace=False)] if len(voxels) > _ENOUGH else voxels
    # Within their voxel, points are anywhere: else ends along the axes of the grid would be flatter than others.
    points = ((kept + rng.uniform(-0.5, 0.5, kept.shape)) * np.array(spacing)) @ directions.T
    stray, outer = (min(len(points) - 1, int(share * len(points))) for share in (_STRAY, _OUTER))

    def thickness(direction: NDArray[np.float64]) -> float:
        depth = -(points @ direction)
        first, last = np.partition(depth, [stray, outer])[[stray, outer]]
        return float(last - first)

    found = []
    for start in ENDS.values():
        best = np.array(start) / np.linalg.norm(start)
        least = thickness(best)
        for turn in _TURNS:
            across = _across(best)
            for way in (*across, *(-across)):
                tried = best + np.tan(np.deg2rad(turn)) * way
                tried /= np.linalg.norm(tried)
                value = thickness(tried)
                if value < least:
                    least, best = value, tried
        found.append(np.log(max(least, 1e-3)))
    return np.array(found)


def _across(direction: NDArray[np.float64]) -> NDArray[np.float64]:
    """Two unit vectors across a direction, (2, 3)."""
    first = np.cross(direction, np.eye(3)[int(np.abs(direction).argmin())])
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(direction, first)])


def _pairs(mask: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    lines = np.moveaxis(mask, axis, 0)
    return np.moveaxis(lines[1:] & lines[:-1], 0, axis)
