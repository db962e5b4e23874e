"""Why a value study cannot decide: nothing was learnt, or what it lost was not lost by the synthetic scans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from medgen.metrics.interval import Interval

# After fewer steps a segmenter is where its initial weights put it.
FEWEST_STEPS = 50
# The ordinary arm without augmentation.
PLAIN = "real"


@dataclass(frozen=True)
class Learning:
    """What tells whether the segmenters of a study have learnt to segment; if not, their differences say nothing.

    Attributes:
        steps: Optimiser steps of each.
        blind: Number of real subjects → mean test Dice of a guess that does not look at the scan
            (:mod:`medgen.synthesis.value.blind`); a number that is not there is not asked.
    """

    steps: int
    blind: Mapping[int, float]

    def missing(self, subjects: int, arm: str, dice: float) -> str:
        """Why the best ordinary arm has not learnt; empty if it has.

        >>> Learning(600, {5: 0.4}).missing(5, "standard", 0.8), Learning(4, {}).missing(5, "standard", 0.8)
        ('', 'its segmenters were trained for 4 steps, fewer than 50')
        """
        if self.steps < FEWEST_STEPS:
            return f"its segmenters were trained for {counted(self.steps, 'step')}, fewer than {FEWEST_STEPS}"
        guess = self.blind.get(subjects)
        if guess is None or dice > guess:
            return ""
        return (
            f"its segmenters have not learnt to segment: the best ordinary arm, {arm}, has a mean Dice of {dice:.3f}, "
            f"and a guess that does not look at the scan {guess:.3f}"
        )


def harm_without_scans(
    difference: Interval, of_base: Interval, of_scans: Interval, *, names: tuple[str, str, str]
) -> str:
    """Why a loss to unaugmented training is not held against the synthetic scans; empty if it is, or if there is none.

    An arm with synthetic scans differs in two things from unaugmented training (:data:`PLAIN`): in the augmentation
    that it trains by and in the scans. A segmenter that had time to learn seldom loses by augmentation; after few
    steps it does, since all that varies the scans slows it down. Where the larger part of the loss is there without
    a synthetic scan, the rest says nothing about them either.

    Args:
        difference: Synthetic arm minus the ordinary arm that it is compared with.
        of_base: The ordinary arm that it trains by, minus the same.
        of_scans: Synthetic arm minus the ordinary arm that it trains by.
        names: Names of three arms: the synthetic one, the one it trains by, the one it is compared with.

    >>> low, none = Interval(-0.03, -0.04, -0.02, 9), Interval(-0.001, -0.004, 0.002, 9)
    >>> harm_without_scans(low, low, none, names=("standard+joint", "standard", "real"))[:65]
    'standard alone, without synthetic scans, is worse than real, too '
    >>> harm_without_scans(low, none, low, names=("standard+joint", "standard", "real"))
    ''
    """
    arm, base, ordinary = names
    if ordinary != PLAIN or difference.estimate >= 0 or of_base.high >= 0 or of_scans.estimate < of_base.estimate:
        return ""
    return (
        f"{base} alone, without synthetic scans, is worse than {ordinary}, too ({of_base.estimate:+.4f} "
        f"[{of_base.low:+.4f}, {of_base.high:+.4f}]), by more than {arm} is than {base} ({of_scans.estimate:+.4f} "
        f"[{of_scans.low:+.4f}, {of_scans.high:+.4f}]): so it goes after too few steps (value.segmenter.steps)"
    )


def counted(number: int, what: str) -> str:
    """A number and a word, in the plural unless it is one.

    >>> counted(1, "seed"), counted(3, "seed")
    ('1 seed', '3 seeds')
    """
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
