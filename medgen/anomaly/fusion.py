"""From z maps to one map: each channel's z becomes a healthy tail probability, and the −log₁₀ p are combined.

The tail is the empirical one of healthy out-of-fold voxels, so channels with light and heavy tails weigh alike;
beyond the last quantile that the data support it goes on as an exponential tail, so it never saturates. They are
combined by their root mean square, between Fisher's sum, which asks all channels to agree, and Tippett's smallest p,
which trusts any single one: an anomaly is often seen by one kind of channel alone. The result is put back on the
scale of a z: a voxel of heat 3 is as rare among healthy voxels as a standard normal value above 3. Weights are equal
and fixed; nothing is tuned on test implants. (Fisher, "Statistical methods for research workers", 1932; Tippett, "The
methods of statistics", 1931; Pickands, "Statistical inference using extreme order statistics", 1975, for the
exponential tail.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator
from scipy import special

from medgen.config import Config

# Fewer voxels than this beyond a quantile do not say where it lies: neighbouring voxels are nearly copies.
_MIN_BEYOND = 200
_STEP = 0.05
# Heat below this is "nothing unusual" and not told apart.
_LOWEST_HEAT = -3.0


class FusionConfig(Config):
    """Which scores make the heatmap.

    Attributes:
        channels: Voxel scores whose −log₁₀ p are combined with equal weights; by default those that fit the model
            (:func:`medgen.anomaly.channel_choice.default_channels`).
    """

    channels: tuple[str, ...] = ()

    @field_validator("channels")
    @classmethod
    def _unique(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("a score is named twice; equal weights are part of the design")
        return value


@dataclass(frozen=True, eq=False)
class Tail:
    """A monotone map from a value to −log₁₀ of the share of healthy voxels at or above it.

    Attributes:
        values: (m,) strictly increasing quantiles of healthy values, float64.
        surprise: (m,) −log₁₀ of the share above each, increasing from 0.
        slope: Increase of −log₁₀ p per unit beyond the last quantile, above 0.
    """

    values: NDArray[np.float64]
    surprise: NDArray[np.float64]
    slope: float

    @classmethod
    def of(cls, healthy: NDArray[np.float32]) -> Tail:
        """Fit to healthy values (any shape, finite, not empty).

        The slope of the exponential tail is that of the last decade the data support.
        """
        healthy = np.sort(np.asarray(healthy, dtype=np.float64).ravel())
        n = len(healthy)
        deepest = max(np.log10(n / _MIN_BEYOND), 0.3) if n > 1 else 0.3
        surprise = np.append(np.arange(0, deepest, _STEP), deepest)
        values = np.quantile(healthy, 1 - 10.0**-surprise)
        # Ties (constant regions) would make the inverse ambiguous: keep the last, most surprising of equal values.
        scale = max(float(np.ptp(values)), float(np.abs(values).max()), 1e-6)
        keep = np.append(np.diff(values) > 1e-9 * scale, True)
        values, surprise = values[keep], surprise[keep]
        start = int(np.searchsorted(surprise, max(surprise[-1] - 1.0, 0.0)))
        start = min(start, len(values) - 2) if len(values) > 1 else 0
        rise = surprise[-1] - surprise[start]
        slope = rise / (values[-1] - values[start]) if len(values) > 1 else 1.0 / scale
        return cls(values, surprise, float(slope))

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """−log₁₀ p of each value, same shape, finite for finite input, never decreasing in the value."""
        inside = np.interp(values, self.values, self.surprise, left=0.0)
        beyond = np.maximum(np.asarray(values, dtype=np.float64) - self.values[-1], 0) * self.slope
        return np.asarray(inside + beyond, dtype=np.float32)

    def to_array(self) -> NDArray[np.float64]:
        """(m + 1, 2): value and surprise, last row the slope; read back by :meth:`from_array`."""
        return np.vstack([np.stack([self.values, self.surprise], axis=1), [self.slope, 0.0]])

    @classmethod
    def from_array(cls, array: NDArray[np.float64]) -> Tail:
        """Inverse of :meth:`to_array`."""
        return cls(array[:-1, 0].copy(), array[:-1, 1].copy(), float(array[-1, 0]))


def fuse(surprises: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Root mean square of −log₁₀ p over channels, each of the same shape; monotone in every channel."""
    return np.asarray(np.sqrt(np.mean(np.square(np.stack(surprises)), axis=0)), dtype=np.float32)


def heat(surprise: NDArray[np.float32]) -> NDArray[np.float32]:
    """−log₁₀ p as the standard normal value with that upper tail, at least −3 and finite.

    >>> [round(float(heat(np.float32(-np.log10(p)))), 2) for p in (0.5, 0.05, 0.001)]
    [0.0, 1.64, 3.09]
    """
    upper = np.minimum(10.0 ** -np.minimum(np.asarray(surprise, dtype=np.float64), 300), special.ndtr(-_LOWEST_HEAT))
    return np.asarray(-special.ndtri(upper), dtype=np.float32)
