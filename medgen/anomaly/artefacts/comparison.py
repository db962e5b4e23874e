"""How a scan differs from the mean of healthy scans where it has an artefact: stripes, a field, a void with a rim."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray
from scipy import fft, ndimage

# Waves of at least this many periods over the grid: fewer are anatomy.
_PERIODS = 4.0
# How steep a gain may be: all products of Legendre polynomials up to this order.
_ORDER = 3
# A void and its rim: in interquartile ranges from the median, and from the healthy mean; thickness, reach and volume.
_DARK, _BRIGHT, _DARKER, _BRIGHTER = -1.2, 1.3, 1.0, 0.6
_THICK_MM, _REACH_MM, _VOID_ML = 6.0, 6.0, 0.2


def stripes(image: NDArray[np.float32], mean: NDArray[np.float32], both: NDArray[np.bool_]) -> float:
    """How far the most isolated point of k-space stands out: logarithm of its magnitude over that of its surroundings.

    Of the image less the healthy mean, under a window that falls to 0 at the foreground's edge. One plane wave is a
    single point; anatomy and noise have none.

    Args:
        image: (i, j, k) in interquartile ranges.
        mean: Healthy mean, likewise.
        both: Foreground of both.
    """
    depth = ndimage.distance_transform_edt(np.pad(both, 1))[1:-1, 1:-1, 1:-1]
    window = np.clip(depth / 4, 0, 1) ** 2 * (3 - 2 * np.clip(depth / 4, 0, 1))
    if window.sum() < 100:
        return 0.0
    left = image - mean
    left = window * (left - (window * left).sum() / window.sum())
    magnitude = fft.fftshift(np.log(np.abs(fft.fftn(left.astype(np.float32))) + 1e-6))
    wide, near = (ndimage.uniform_filter(magnitude, size, mode="wrap") * size**3 for size in (9, 5))
    isolated = magnitude - (wide - near) / (9**3 - 5**3)
    periods = np.meshgrid(*[np.arange(n) - n // 2 for n in magnitude.shape], indexing="ij")
    far = sum(own**2 for own in periods) >= _PERIODS**2
    return float(isolated[far].max(initial=0.0))


def gain_spread(image: NDArray[np.floating], mean: NDArray[np.floating], both: NDArray[np.bool_]) -> float:
    """Standard deviation of the logarithm of the smooth gain that turns the healthy mean into the scan.

    The scan is fitted by the mean times a polynomial of third order plus a constant, by least squares; voxels beyond
    three robust standard deviations are left out and the rest is fitted again, so that a lesion counts little.

    Args:
        image: (i, j, k) in model intensities.
        mean: Healthy mean, likewise.
        both: Foreground of both.
    """
    voxels = np.argwhere(both)
    if len(voxels) < 200:
        return 0.0
    voxels = voxels[:: max(1, len(voxels) // 20_000)]
    low, high = voxels.min(axis=0), voxels.max(axis=0)
    place = 2 * (voxels - low) / np.maximum(high - low, 1) - 1
    terms = legendre.legvander3d(place[:, 0], place[:, 1], place[:, 2], [_ORDER] * 3)
    orders = np.add.outer(np.add.outer(*[np.arange(_ORDER + 1)] * 2), np.arange(_ORDER + 1)).ravel()
    terms = terms[:, orders <= _ORDER]
    at = tuple(voxels.T)
    wanted, healthy = image[at].astype(np.float64), mean[at].astype(np.float64)
    design = np.column_stack([terms * healthy[:, None], np.ones(len(voxels))])
    kept = np.ones(len(voxels), dtype=bool)
    for _ in range(3):
        weights = np.linalg.lstsq(design[kept], wanted[kept], rcond=None)[0]
        left = np.abs(wanted - design @ weights)
        kept = left <= 3 * 1.4826 * np.median(left) + 1e-9
    gain = terms @ weights[:-1]
    middle = float(np.median(gain))
    if middle <= 0:
        return 0.0
    return float(np.log(np.maximum(gain / middle, 0.05)).std())


def rimmed_void(
    image: NDArray[np.float32], mean: NDArray[np.float32], both: NDArray[np.bool_], spacing: Sequence[float]
) -> float:
    """How much signal is piled up next to a void: the excess brightness within 6 mm of it, summed over ml.

    A void is at least 0.2 ml in one place, far darker than the healthy mean there. A bright lesion has none, a dark one
    has no rim, and fluid next to bright tissue is where the mean has it, too.

    Args:
        image: (i, j, k) in interquartile ranges from the median.
        mean: Healthy mean, likewise.
        both: Foreground of both.
        spacing: Voxel sizes (mm).
    """
    step, change = np.array(spacing), image - mean
    dark = both & (image < _DARK) & (change < -_DARKER)
    dark = ndimage.binary_opening(dark, np.ones(np.maximum(np.rint(_THICK_MM / step).astype(int), 1), dtype=bool))
    excess = np.where(both & (change > _BRIGHTER), np.maximum(image - _BRIGHT, 0), 0)
    box = 2 * np.rint(_REACH_MM / step).astype(int) + 1
    ml = float(np.prod(box) * np.prod(step) / 1000)
    void, rim = (ndimage.uniform_filter(own.astype(np.float32), box, mode="constant") * ml for own in (dark, excess))
    return float(rim[void >= _VOID_ML].max(initial=0.0))
