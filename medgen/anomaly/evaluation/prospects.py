"""What more healthy subjects would buy: a smaller p-value, and a closer look at the number of false findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medgen.anomaly.findings.false_findings import gamma_interval
from medgen.metrics.interval import Interval

# Numbers at which p-values become round: 1 / 20, 1 / 40, ...
_STEPS = (19, 39, 59, 99, 199, 499, 999)
_SHOWN = 3


@dataclass(frozen=True)
class Prospect:
    """A calibration on some number of healthy subjects.

    Attributes:
        subjects: How many.
        smallest_p: 1 / (n + 1), the p of a scan that is more unusual than all of them.
        rate: False findings per healthy scan that it would state at the level of the run, with its interval.
    """

    subjects: int
    smallest_p: float
    rate: Interval


def prospects(subjects: int, level: float, dispersion: float = 1.0) -> list[Prospect]:
    """The calibration as it is, then the next three round numbers of subjects.

    Args:
        subjects: Healthy subjects in the calibration.
        level: Expected false findings per healthy scan.
        dispersion: Of their counts, see :func:`medgen.anomaly.findings.false_findings.dispersion_of`; 1 where nothing
            is known yet.

    >>> [(own.subjects, round(own.smallest_p, 3)) for own in prospects(25, 0.5)]
    [(25, 0.038), (39, 0.025), (59, 0.017), (99, 0.01)]
    """
    numbers = [subjects, *[step for step in _STEPS if step > subjects][:_SHOWN]]
    return [Prospect(n, 1 / (n + 1), gamma_interval(level, n, dispersion)) for n in numbers]


def prospects_words(found: Sequence[Prospect]) -> str:
    """The same in a line, the calibration as it is first."""

    def said(own: Prospect) -> str:
        return f"p down to {own.smallest_p:.3g}, false findings {own.rate.low:.2g} to {own.rate.high:.2g}"

    now, *later = found
    level = f"{now.rate.estimate:g} false findings aimed at"
    more = "; ".join(f"{own.subjects - now.subjects} more: {said(own)}" for own in later)
    return f"calibration: {now.subjects} healthy subjects, {level}: {said(now)}" + (f"; {more}" if more else "")
