"""An estimate with its interval, and the two steps of every bootstrap: draw subjects, cut off the tails."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medgen.seeds import numpy_rng


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval.

    Attributes:
        estimate: The statistic of the data as they are.
        low: Lower limit; NaN where no interval can be given.
        high: Upper limit.
        n: Independent units behind it (subjects).
        level: Confidence level, in (0, 1).
    """

    estimate: float
    low: float
    high: float
    n: int
    level: float = 0.95

    def __str__(self) -> str:
        return f"{self.estimate:.4g} [{self.low:.4g}, {self.high:.4g}]"


def percentile_interval(estimate: float, draws: NDArray[np.float64], n: int, level: float = 0.95) -> Interval:
    """The interval between the tails of ``draws``; NaN limits if fewer than half of them are finite."""
    finite = draws[np.isfinite(draws)]
    if 2 * finite.size < draws.size or finite.size == 0:
        return Interval(estimate, float("nan"), float("nan"), n, level)
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high), n, level)


def subject_weights(units: int, n: int, seed: int, stream: str = "subjects") -> NDArray[np.float64]:
    """How often each unit is drawn in each of ``n`` resamples, (n, units); equal arguments give equal draws."""
    draws = numpy_rng(seed, "bootstrap", stream).multinomial(units, np.full(units, 1 / units), size=n)
    return draws.astype(np.float64)
