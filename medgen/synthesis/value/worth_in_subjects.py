"""What synthetic scans are worth in real ones: the number of real subjects that reaches the same Dice without them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from medgen.errors import DataError
from medgen.metrics.bootstrap import hierarchical_draws
from medgen.synthesis.value.tables import Row, by_arm, table


@dataclass(frozen=True)
class Worth:
    """An arm's place on the learning curve of another arm.

    Numbers of subjects are −∞ where the Dice lies below the curve and ∞ where it lies above: nothing is extrapolated.

    Attributes:
        arm: The arm with synthetic scans.
        subjects: Real labelled subjects it was trained with.
        reference: The ordinary arm whose curve is read.
        smallest: Fewest real subjects on the curve.
        largest: Most real subjects on the curve.
        estimate: Real subjects with which the reference reaches the same mean Dice.
        low: Lower limit.
        high: Upper limit.
        level: Confidence level of the interval, such as 0.95.
    """

    arm: str
    subjects: int
    reference: str
    smallest: int
    largest: int
    estimate: float
    low: float
    high: float
    level: float

    @property
    def text(self) -> str:
        """Estimate and interval, such as ``9 [6, > 40]``."""
        return f"{self._number(self.estimate)} [{self._number(self.low)}, {self._number(self.high)}]"

    @property
    def sentence(self) -> str:
        """The worth in words."""
        return (
            f"{self.subjects} real subjects with synthetic scans ({self.arm}) are worth {self.text} real subjects with "
            f"{self.reference} ({self.level:.0%} interval)."
        )

    def _number(self, value: float) -> str:
        if math.isinf(value):
            return f"> {self.largest}" if value > 0 else f"< {self.smallest}"
        return f"{value:.0f}"


def worth(
    rows: Sequence[Row], arm: str, subjects: int, reference: str, seed: int, bootstrap: int, level: float = 0.95
) -> Worth | None:
    """Read an arm's Dice on the learning curve of a reference arm.

    In each resample of seeds and test subjects (the same for arm and curve) the curve is made monotone by isotonic
    regression (Barlow et al. 1972) and read linearly in the logarithm of the number of subjects.

    Args:
        rows: Test rows of a study.
        arm: The arm that is valued.
        subjects: Its number of real subjects.
        reference: An arm of at least two numbers of subjects.
        seed: Seed of the random resampling; equal seeds give equal results.
        bootstrap: Resamples.
        level: Confidence level.

    Returns:
        None if the reference has fewer than two numbers of subjects, or the arm was not run.
    """
    groups = by_arm(rows)
    curve = {number: table(arms[reference], "dice") for number, arms in groups.items() if reference in arms}
    own = groups.get(subjects, {}).get(arm)
    if own is None or len(curve) < 2:
        return None
    tables = [*curve.values(), table(own, "dice")]
    draws = hierarchical_draws(tables, bootstrap, seed)
    sizes = list(curve)
    estimate = equivalent(sizes, [float(values.mean()) for values in tables[:-1]], float(tables[-1].mean()))
    found = np.array([equivalent(sizes, column[:-1], column[-1]) for column in draws.T])
    # Limits are values that occurred: between a number and infinity there is nothing to interpolate.
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return Worth(arm, subjects, reference, min(sizes), max(sizes), estimate, float(low), float(high), level)


def equivalent(sizes: Sequence[int], values: Sequence[float] | NDArray[np.float64], target: float) -> float:
    """The size at which a monotone curve through ``values`` first reaches ``target``.

    Args:
        sizes: Ascending and positive.
        values: One per size.
        target: In the same unit.

    Returns:
        −∞ if the curve begins above the target, ∞ if it ends below it.

    Raises:
        DataError: If the lengths differ or sizes do not ascend.

    >>> equivalent([5, 20], [0.8, 0.9], 0.85), equivalent([5, 20], [0.8, 0.9], 0.95)
    (10.0, inf)
    """
    if len(sizes) != len(values) or not sizes or any(b <= a for a, b in pairwise(sizes)):
        raise DataError(f"expected ascending sizes with a value each, found {list(sizes)} and {len(values)} values")
    rising = isotonic_regression(np.asarray(values, dtype=np.float64)).x
    if target < rising[0]:
        return -math.inf
    if target > rising[-1]:
        return math.inf
    upper = int(np.argmax(rising >= target))
    if upper == 0:
        return float(sizes[0])
    share = (target - rising[upper - 1]) / (rising[upper] - rising[upper - 1])
    start, stop = math.log(sizes[upper - 1]), math.log(sizes[upper])
    return round(math.exp(start + share * (stop - start)), 9)


def best_over_sizes(tables: Mapping[str, Mapping[int, float]]) -> str | None:
    """The arm with the highest mean over the sizes that the arms share; None if fewer than two are shared by any.

    Args:
        tables: Arm → size → mean Dice. Arms that lack a size that another has are passed over.
    """
    sizes = {size for values in tables.values() for size in values}
    whole = {arm: values for arm, values in tables.items() if set(values) == sizes}
    if len(sizes) < 2 or not whole:
        return None
    return max(whole, key=lambda arm: sum(whole[arm].values()))
