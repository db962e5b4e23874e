"""Normative z: what a healthy scan scores at a place, and how much that varies, from out-of-fold maps.

For a score map s(p) of a new scan, Z(p) = (s(p) − μ(p)) / √(σ²(p) + ε). Mean and variance over healthy scans are
blurred, because neighbouring places are alike and scans are few, and the variance is shrunk to its average over the
region, σ² = (1 − w) σ_p² + w σ̄² with w = prior / (n + prior), the posterior mean under a scaled inverse-χ² prior
worth ``prior`` scans (Marquand et al., "Understanding heterogeneity in clinical cohorts using normative models",
2016, for the idea of a normative map; Smyth, "Linear models and empirical Bayes methods", 2004, for the shrinkage).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from medgen.config import Config
from medgen.errors import DataError
from medgen.transforms.masked_smoothing import smooth


class NormativeConfig(Config):
    """How healthy score maps are summarised.

    Attributes:
        blur: Standard deviation in model voxels of the blur of mean and variance.
        prior: How many scans the region's average variance counts for in the shrinkage.
    """

    blur: float = Field(default=1.5, ge=0, le=10)
    prior: float = Field(default=10.0, ge=0)


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over healthy scans at every voxel; they add and subtract, which makes leaving a fold out free.

    Attributes:
        count, total, square: (i, j, k) float64: number of scans with a value, Σ s, Σ s².
    """

    count: NDArray[np.float64]
    total: NDArray[np.float64]
    square: NDArray[np.float64]

    @classmethod
    def of(cls, maps: Iterable[NDArray[Any]], masks: Iterable[NDArray[np.bool_]], shape: tuple[int, ...]) -> Moments:
        """Sums over score maps, each the values inside its mask (i, j, k), (v,)."""
        count, total, square = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        for values, mask in zip(maps, masks, strict=True):
            inside = values.astype(np.float64)
            count += mask
            total[mask] += inside
            square[mask] += inside**2
        return cls(count, total, square)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.count + other.count, self.total + other.total, self.square + other.square)

    def __sub__(self, other: Moments) -> Moments:
        return Moments(self.count - other.count, self.total - other.total, self.square - other.square)


@dataclass(frozen=True, eq=False)
class Normative:
    """Healthy mean and standard deviation of one score, (i, j, k) float32; the standard deviation is above 0."""

    mean: NDArray[np.float32]
    sd: NDArray[np.float32]

    def z(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Standardised score map: 0 is the healthy mean, 1 is one healthy standard deviation above it."""
        return np.asarray((values - self.mean) / self.sd, dtype=np.float32)

    def z_of(self, values: NDArray[Any], region: NDArray[np.bool_]) -> NDArray[np.float32]:
        """The same for the values inside a region (i, j, k) alone, (v,)."""
        return np.asarray((values - self.mean[region]) / self.sd[region], dtype=np.float32)


def normative_of(moments: Moments, region: NDArray[np.bool_], config: NormativeConfig) -> Normative:
    """Blurred mean and blurred, shrunk standard deviation.

    Args:
        moments: Sums over the healthy scans.
        region: (i, j, k), where scores are used; outside, mean is the region's average and sd its average.
        config: Blur and prior.

    Raises:
        DataError: If there are fewer than two healthy scans.
    """
    if moments.count.max(initial=0) < 2:
        raise DataError(f"normative scores need at least 2 healthy scans, found {int(moments.count.max(initial=0))}")
    known = region & (moments.count > 0)
    count = np.maximum(moments.count, 1)
    mean = moments.total / count
    # Sums of squares about the mean; rounding can take them just below zero.
    spread = np.maximum(moments.square - moments.total * mean, 0)
    average_mean = float(moments.total[known].sum() / moments.count[known].sum())
    average_variance = float(spread[known].sum() / np.maximum(moments.count[known] - 1, 0).sum())
    variance = spread / np.maximum(moments.count - 1, 1)
    # A place that one scan covers has no variance of its own: it gets the average through its weight.
    trusted = np.where(moments.count > 1, moments.count, 0)
    variance = smooth(variance, known & (moments.count > 1), config.blur).astype(np.float64)
    weight = config.prior / (trusted + config.prior) if config.prior > 0 else np.where(trusted > 0, 0.0, 1.0)
    shrunk = (1 - weight) * variance + weight * average_variance
    epsilon = 1e-6 * average_variance + 1e-12
    mean = np.where(known, smooth(mean, known, config.blur), average_mean)
    sd = np.sqrt(np.where(known, shrunk, average_variance) + epsilon)
    return Normative(mean.astype(np.float32), sd.astype(np.float32))
