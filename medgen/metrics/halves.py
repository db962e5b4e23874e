"""Real scans in halves by subject, the yardstick of every number about synthetic scans.

No distance between two finite sets is zero, not even between two groups of people. So the real scans are split into
two halves **by subject**, many times. In each split half A is compared with scans of half B (real against real) and
with as many synthetic scans. For distances the floor is the root mean square of the real-against-real values: the size
that the distance has between two groups of real people, at this number of scans. Unbiased estimates of KID and MMD are
0 *on average* between real halves, so their mean cannot be a floor; for them the root mean square is the standard
deviation of the permutation distribution (Gretton et al., JMLR 2012, section 5). It falls as scans are added: with
more scans smaller flaws count.

Intervals are percentiles over the splits. Half a sample, drawn without replacement, scatters around the whole sample as
the whole sample does around the population (random half-sampling, a case of the delete-d jackknife: Shao and Wu, Annals
of Statistics 1989). A bootstrap would draw scans twice, and a scan is nearest to itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medgen.metrics.interval import Interval
from medgen.seeds import numpy_rng

Rows = NDArray[np.intp]
# Two subjects per half are the fewest between which there is a pair of independent scans.
_FEWEST_SUBJECTS = 4
_FEWEST_SYNTHETIC = 4


@dataclass(frozen=True)
class Measure:
    """One number about synthetic scans beside the same number about real ones.

    Attributes:
        name: What is measured.
        synthetic: The number for synthetic against real scans; for ``ms_ssim``, for synthetic scans among themselves.
        real: The number for real against real scans, mean and percentiles over the splits; for ``ms_ssim``, for real
            scans of different subjects, with a bootstrap interval.
        floor: What the synthetic value is divided by. For distances the root mean square of real against real, else
            the estimate of ``real``; NaN where there are fewer than four real subjects.
        ratio: ``synthetic`` / ``floor``.
        goal: (lowest, highest) that is aimed at, of ``judged``; None if there is no goal.
        judged: ``ratio`` or ``synthetic``: what the goal is about.
    """

    name: str
    synthetic: Interval
    real: Interval
    floor: float
    ratio: Interval
    goal: tuple[float, float] | None = None
    judged: str = "ratio"

    @property
    def met(self) -> bool | None:
        """Whether the estimate meets the goal; None if there is no goal, or nothing to judge it by."""
        value = (self.ratio if self.judged == "ratio" else self.synthetic).estimate
        if self.goal is None or not math.isfinite(value):
            return None
        return self.goal[0] <= value <= self.goal[1]

    @property
    def sure(self) -> bool:
        """Whether the whole interval lies on the same side of the goal as the estimate."""
        item = self.ratio if self.judged == "ratio" else self.synthetic
        if self.goal is None or not math.isfinite(item.low + item.high):
            return False
        low, high = self.goal
        return (low <= item.low and item.high <= high) if self.met else (item.high < low or item.low > high)


@dataclass(frozen=True)
class Split:
    """Rows of one comparison: ``first`` with ``second`` (both real, of different subjects), and with ``synthetic``."""

    first: Rows
    second: Rows
    synthetic: Rows


def subject_splits(groups: Sequence[str], synthetic: int, number: int, seed: int) -> list[Split]:
    """Halves of the real scans by subject, and as many synthetic scans as the second half has.

    ``second`` and ``synthetic`` have the same number of scans in every split: the smallest second half, and at most
    half of the synthetic scans, so that the splits tell how much these scatter.

    Args:
        groups: Subject of each real scan.
        synthetic: Synthetic scans.
        number: Splits.
        seed: Seed of the random splits.

    Returns:
        The splits; none if there are fewer than four real subjects or four synthetic scans.
    """
    names = sorted(set(groups))
    if len(names) < _FEWEST_SUBJECTS or synthetic < _FEWEST_SYNTHETIC:
        return []
    rows = {name: [row for row, group in enumerate(groups) if group == name] for name in names}
    middle = (len(names) + 1) // 2
    halves: list[list[Rows]] = []
    for index in range(number):
        order = [str(name) for name in numpy_rng(seed, "fidelity", "split", index).permutation(names)]
        halves.append(
            [np.array([row for name in part for row in rows[name]]) for part in (order[:middle], order[middle:])]
        )
    size = min([synthetic // 2, *(len(second) for _, second in halves)])
    splits = []
    for index, (first, second) in enumerate(halves):
        chosen = numpy_rng(seed, "fidelity", "synthetic", index).permutation(synthetic)[:size]
        splits.append(Split(first, second[:size], chosen))
    return splits
