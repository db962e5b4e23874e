"""How rare a scan score is that no healthy scan reaches: a generalised Pareto tail, with all that is not known of it.

A conformal p ends at 1 / (n + 1), whether a scan is a little hotter than the hottest healthy one or ten times as hot.
Beyond a threshold u the scores of many distributions are nearly generalised Pareto (Pickands, Annals of Statistics
1975; Coles, "An introduction to statistical modeling of extreme values", 2001, chapter 4):

    P(S > s) = ζ (1 + ξ (s − u) / σ)^(−1/ξ),   ζ = P(S > u).

Few scores say little of the shape ξ, so it is shrunk by a prior on (−0.5, 0.5) with mean 0.1 and standard deviation
0.12, 0.5 − ξ being Beta(6, 9) (Martins and Stedinger, Water Resources Research 2000; their κ is −ξ).
With log σ flat and ζ | k of n ~ Beta(k + 1/2, n − k + 1/2) the posterior is a sum over a grid; nothing is drawn. What
is given is its median and the interval between its 2.5 and 97.5 % quantiles. It is an extrapolation: it says how far
beyond the healthy scans a scan is, and unlike the conformal p it guarantees nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medgen.metrics.interval import Interval

FEWEST = 10
"""With fewer calibration scores no tail is fitted."""

# Share of the scores above the threshold, but at least so many of them.
_SHARE, _FEWEST_ABOVE = 0.25, 8
# Martins and Stedinger's prior of κ = −ξ: Beta(6, 9) on (−0.5, 0.5).
_PRIOR = (6.0, 9.0)
_SHAPES, _SCALES, _RATES = 31, 51, 11
# Scales tried, relative to the mean excess.
_SCALE_RANGE = (0.1, 12.0)


@dataclass(frozen=True, eq=False)
class ScoreTail:
    """The posterior of a tail, as a weighted grid.

    Attributes:
        threshold: u.
        shape, scale, rate: ξ, σ and ζ of every point of the grid, (g,).
        weight: (g,), sums to 1.
        highest: The highest calibration score: up to it the conformal p says more.
        n: Calibration scores.
    """

    threshold: float
    shape: NDArray[np.float64]
    scale: NDArray[np.float64]
    rate: NDArray[np.float64]
    weight: NDArray[np.float64]
    highest: float
    n: int

    @classmethod
    def of(cls, scores: ArrayLike) -> ScoreTail | None:
        """From healthy scores (n,); None if they are fewer than ten, or their upper part does not vary.

        >>> tail = ScoreTail.of(np.random.default_rng(0).exponential(size=400))
        >>> found = tail.p(8.0)  # exp(-8) is 0.0003
        >>> bool(found.low < np.exp(-8) < found.high)
        True
        """
        from scipy import stats

        values = np.sort(np.asarray(scores, dtype=np.float64))
        n = values.size
        if n < FEWEST:
            return None
        above = min(max(round(_SHARE * n), _FEWEST_ABOVE), n - 1)
        threshold = float(values[n - above - 1])
        excess = values[n - above :] - threshold
        if excess.mean() <= 1e-12 * max(1.0, abs(threshold)):
            return None
        shapes = np.linspace(-0.5, 0.5, _SHAPES + 2)[1:-1]
        scales = excess.mean() * np.geomspace(*_SCALE_RANGE, _SCALES)
        shape, scale = (grid.ravel() for grid in np.meshgrid(shapes, scales, indexing="ij"))
        log_weight = stats.beta.logpdf(0.5 - shape, *_PRIOR)
        log_weight += stats.genpareto.logpdf(excess[:, None], shape, scale=scale).sum(0)
        weight = np.exp(log_weight - log_weight.max())
        # The rate is apart from shape and scale: equally likely quantiles of its posterior.
        rates = stats.beta.ppf((np.arange(_RATES) + 0.5) / _RATES, above + 0.5, n - above + 0.5)
        kept = weight > 1e-6
        weight = np.repeat(weight[kept], _RATES)
        return cls(
            threshold=threshold,
            shape=np.repeat(shape[kept], _RATES),
            scale=np.repeat(scale[kept], _RATES),
            rate=np.tile(rates, int(kept.sum())),
            weight=weight / weight.sum(),
            highest=float(values[-1]),
            n=n,
        )

    def p(self, value: float, level: float = 0.95) -> Interval:
        """P(a healthy score is above ``value``): posterior median and central interval.

        Args:
            value: A score above the threshold.
            level: Of the interval.
        """
        from scipy import stats

        tail = self.rate * stats.genpareto.sf(value - self.threshold, self.shape, scale=self.scale)
        order = np.argsort(tail)
        # The middle of each point's step, so that one heavy point does not pull a quantile.
        steps = np.cumsum(self.weight[order]) - self.weight[order] / 2
        low, median, high = np.interp([(1 - level) / 2, 0.5, (1 + level) / 2], steps, tail[order])
        return Interval(float(median), float(low), float(high), self.n, level)
