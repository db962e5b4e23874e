"""What a labelled structure is like, in numbers: size, shape and brightness, as radiomics names them.

Names and definitions follow the Image Biomarker Standardisation Initiative (Zwanenburg et al., Radiology 2020);
intensities are taken as they are, without the binning of texture features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from medgen.errors import DataError

SHAPE = ("volume_mm3", "surface_mm2", "surface_per_volume", "sphericity", "elongation", "flatness")
INTENSITY = ("mean", "sd", "skewness", "p10", "median", "p90")


def statistics_names(channels: int) -> tuple[str, ...]:
    """Names of what :func:`label_statistics` gives, in order.

    >>> statistics_names(1)[6:8], statistics_names(2)[-1]
    (('mean', 'sd'), 'p90_1')
    """
    if channels == 1:
        return (*SHAPE, *INTENSITY)
    return (*SHAPE, *(f"{name}_{channel}" for channel in range(channels) for name in INTENSITY))


def label_statistics(
    image: NDArray[np.floating], labels: NDArray[np.integer], label: int, spacing: Sequence[float]
) -> dict[str, float]:
    """Shape and intensity of one label of one scan.

    ``surface_mm2`` is that of a triangle mesh at 0.5 of the mask (marching cubes); ``sphericity`` is
    (36 π V²)^⅓ / A, about 1 for a ball; ``elongation`` and ``flatness`` are √(λ₂ / λ₁) and √(λ₃ / λ₁) of the variances
    along the principal axes, 1 for a ball and towards 0 for something long or thin.

    Args:
        image: (c, i, j, k).
        labels: (i, j, k).
        label: The structure.
        spacing: Voxel size along i, j, k in mm.

    Returns:
        Values by the names of :func:`statistics_names`. Of a label that is not there the volume is 0 and all else NaN;
        so are shapes of single voxels and the skewness of a constant.

    Raises:
        DataError: If image and labels differ in shape.
    """
    if image.shape[1:] != labels.shape:
        raise DataError(f"expected labels of the image's shape {image.shape[1:]}, found {labels.shape}")
    mask = labels == label
    values = dict.fromkeys(statistics_names(len(image)), math.nan)
    values["volume_mm3"] = volume = float(mask.sum() * np.prod(spacing))
    if not volume:
        return values
    surface = _surface(mask, spacing)
    values |= {
        "surface_mm2": surface,
        "surface_per_volume": surface / volume,
        "sphericity": (36 * math.pi * volume**2) ** (1 / 3) / surface,
    }
    places = np.argwhere(mask) * np.asarray(spacing)
    if len(places) > 1:
        variances = np.sort(np.linalg.eigvalsh(np.cov(places.T)))[::-1].clip(0)
        values["elongation"], values["flatness"] = (float(math.sqrt(v / variances[0])) for v in variances[1:])
    for channel, inside in enumerate(image[:, mask].astype(np.float64)):
        suffix = "" if len(image) == 1 else f"_{channel}"
        spread = float(inside.std())
        skewness = float(stats.skew(inside)) if spread > 1e-8 * max(1.0, float(np.abs(inside).max())) else math.nan
        numbers = (float(inside.mean()), spread, skewness, *map(float, np.percentile(inside, (10, 50, 90))))
        values |= {f"{name}{suffix}": number for name, number in zip(INTENSITY, numbers, strict=True)}
    return values


def _surface(mask: NDArray[np.bool_], spacing: Sequence[float]) -> float:
    from scipy import ndimage
    from skimage.measure import marching_cubes, mesh_surface_area

    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    # The border closes the mesh where the structure touches the edge of the image.
    padded = np.pad(mask[box], 1).astype(np.float32)
    points, faces, _, _ = marching_cubes(padded, 0.5, spacing=tuple(float(step) for step in spacing))
    return float(mesh_surface_area(points, faces))


def standardised_difference(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """(mean a − mean b) / √((s²ₐ + s²_b) / 2), NaN values left out (Austin, Statistics in Medicine 2009).

    Infinite where neither varies and the means differ, NaN where a side has fewer than two values.
    """
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    if min(len(a), len(b)) < 2:
        return math.nan
    difference = float(a.mean() - b.mean())
    spread = math.sqrt((float(a.var(ddof=1)) + float(b.var(ddof=1))) / 2)
    if spread == 0:
        return math.copysign(math.inf, difference) if difference else 0.0
    return difference / spread


def kolmogorov_smirnov(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Largest distance of the two samples' distribution functions, NaN values left out; NaN if a side is empty."""
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    if min(len(a), len(b)) == 0:
        return math.nan
    # The statistic of scipy.stats.ks_2samp in a hundredth of the time: that also looks for a p-value, which would take
    # the scans of one subject for independent.
    a, b = np.sort(a), np.sort(b)
    every = np.concatenate([a, b])
    shares = (np.searchsorted(own, every, side="right") / len(own) for own in (a, b))
    return float(np.abs(np.subtract(*shares)).max())
