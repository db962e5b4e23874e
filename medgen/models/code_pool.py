"""Codes for new scans: perturbed training codes, chosen so that rare volumes and positions are covered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# A scan is drawn at most so many times as often as the average one, so that no single anatomy takes over.
_MOST = 5.0
# Standard deviations that an anatomy may be from the mean; and the least of them, of log volumes and voxels.
_REACH, _LEAST = 2.0, 0.05


@dataclass(frozen=True, eq=False)
class CodePool:
    """A kernel density over the codes of the training scans.

    z = μ + √(1 − h²) (zᵢ − μ) + h F ε with i drawn by weight, ε ~ N(0, I) and a spread h in [0, 1]. For equal weights
    mean and covariance are those of the codes (the smoothed bootstrap of Silverman 1986, section 6.4.1; West 1993):
    h = 0 gives training codes themselves, h = 1 the Gaussian of the aggregated posterior, and nothing in between leaves
    where the training scans lie, as draws from N(0, I) do.

    Attributes:
        codes: Posterior means zᵢ, (n, d) float32.
        mean: μ, (d,) float32.
        factor: F, Cholesky factor of the aggregated posterior's covariance, (d, d) float32.
        weights: Probability of each code, (n,) float64.
    """

    codes: Tensor
    mean: Tensor
    factor: Tensor
    weights: NDArray[np.float64]

    def draw(self, spread: float, generator: torch.Generator) -> Tensor:
        """One code, (1, d) float32, on the CPU."""
        chosen = torch.multinomial(torch.from_numpy(self.weights), 1, generator=generator)
        noise = torch.randn((1, len(self.mean)), generator=generator)
        kept = (1 - spread**2) ** 0.5
        return self.mean + kept * (self.codes[chosen] - self.mean) + spread * noise @ self.factor.T

    def to_arrays(self, prefix: str) -> dict[str, NDArray[np.generic]]:
        """Named arrays that :meth:`from_arrays` reads back."""
        parts = {"codes": self.codes, "mean": self.mean, "factor": self.factor}
        tensors = {f"{prefix}.{name}": tensor.numpy() for name, tensor in parts.items()}
        return {**tensors, f"{prefix}.weights": self.weights}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]], prefix: str) -> CodePool:
        """Inverse of :meth:`to_arrays`; raises KeyError if one is missing."""
        codes, mean, factor = (torch.from_numpy(arrays[f"{prefix}.{n}"].copy()) for n in ("codes", "mean", "factor"))
        return cls(codes, mean, factor, np.asarray(arrays[f"{prefix}.weights"], dtype=np.float64))


def shape_descriptors(labels: Tensor, numbers: Sequence[int]) -> NDArray[np.float64]:
    """Log volume (of voxels + 1) and centroid (i, j, k) in voxels of every label, (n, 4 · labels).

    Args:
        labels: (n, 1, i, j, k).
        numbers: Labels to describe. The centroid of one that a scan lacks is the mean of the others'.
    """
    columns: list[NDArray[np.float64]] = []
    for number in numbers:
        inside = labels[:, 0] == number
        volume = inside.flatten(1).sum(1).double().numpy()
        columns.append(np.log1p(volume))
        for axis in range(3):
            others = [other for other in (1, 2, 3) if other != axis + 1]
            profile = inside.sum(dim=others).double().numpy()
            total = profile @ np.arange(profile.shape[1])
            place = np.divide(total, volume, out=np.full(len(volume), np.nan), where=volume > 0)
            middle = np.nanmean(place) if (volume > 0).any() else 0.0
            columns.append(np.where(volume > 0, place, middle))
    return np.stack(columns, axis=1)


@dataclass(frozen=True, eq=False)
class ShapeLimits:
    """Where volumes and places of one more anatomy lie: what drawn anatomies are held to.

    Attributes:
        low, high: Limits of the :func:`shape_descriptors`, (4 · labels,) float64: the interval in which a normal
            variable's next value lies with 95 %, mean ± 2 s √(1 + 1/n), and as far as any training anatomy goes.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @classmethod
    def fit(cls, descriptors: NDArray[np.float64]) -> ShapeLimits:
        """Measure training anatomies, (n, 4 · labels)."""
        n = len(descriptors)
        mean, spread = descriptors.mean(axis=0), descriptors.std(axis=0, ddof=1 if n > 1 else 0)
        reach = _REACH * np.sqrt(1 + 1 / n) * np.maximum(spread, _LEAST)
        return cls(np.minimum(mean - reach, descriptors.min(axis=0)), np.maximum(mean + reach, descriptors.max(axis=0)))

    def excess(self, descriptors: NDArray[np.float64]) -> float:
        """How far an anatomy, (4 · labels,), is outside, in widths of the interval, where it is farthest; 0 inside."""
        beyond = np.maximum(self.low - descriptors, descriptors - self.high) / (self.high - self.low)
        # A label that is not there has no place; whether it may be missing is told by its volume.
        there = np.repeat(descriptors[::4] > 0, 4)
        there[::4] = True
        return max(float(beyond[there].max()), 0.0)

    def to_arrays(self, prefix: str) -> dict[str, NDArray[np.generic]]:
        """Named arrays that :meth:`from_arrays` reads back."""
        return {f"{prefix}.low": self.low, f"{prefix}.high": self.high}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]], prefix: str) -> ShapeLimits:
        """Inverse of :meth:`to_arrays`; raises KeyError if one is missing."""
        return cls(*(np.asarray(arrays[f"{prefix}.{name}"], dtype=np.float64) for name in ("low", "high")))


def coverage_weights(descriptors: NDArray[np.float64], strength: float) -> NDArray[np.float64]:
    """Probability of each scan, so that rare ones are drawn more often, (n,) float64, sum 1.

    wᵢ = mean over descriptors of fₖ(xᵢₖ)^−s, with fₖ the kernel density of descriptor k (Scott 1992) and each term
    scaled to mean 1: as if one descriptor were picked at random and scans were drawn evenly along it. s = 0 gives all
    scans the same weight, s = 1 covers each descriptor's range as evenly as the scans allow. No weight is above five
    times the mean, so that an outlier does not take over.

    Args:
        descriptors: (n, k); columns that do not vary are left out.
        strength: s, in [0, 1].
    """
    from scipy.stats import gaussian_kde

    n = len(descriptors)
    terms = []
    for column in descriptors.T:
        spread = column.std()
        if n < 3 or spread <= 1e-6 * max(1.0, float(np.abs(column).max())):
            continue
        standard = (column - column.mean()) / spread
        rarity = gaussian_kde(standard)(standard) ** -strength
        terms.append(rarity / rarity.mean())
    if not terms:
        return np.full(n, 1 / n)
    weights = np.minimum(np.mean(terms, axis=0), _MOST)
    return np.asarray(weights / weights.sum(), dtype=np.float64)
