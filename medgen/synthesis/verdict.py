"""From the rows of a value study to intervals and one word: USE, HARMFUL or NO EVIDENCE."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medgen.errors import DataError
from medgen.metrics.bootstrap import Interval, hierarchical_bootstrap
from medgen.synthesis.value import METRICS, REAL, STANDARD, Row

Word = Literal["USE", "HARMFUL", "NO EVIDENCE"]


@dataclass(frozen=True)
class Summary:
    """One arm of a study.

    Attributes:
        arm: Name.
        subjects: Number of real labelled subjects.
        metric: ``dice``, ``hd95_mm`` or ``nsd``.
        label: Label number, or None for the mean over labels.
        interval: Mean over seeds and test subjects.
    """

    arm: str
    subjects: int
    metric: str
    label: int | None
    interval: Interval


@dataclass(frozen=True)
class Comparison:
    """A synthetic arm against the best ordinary one.

    Attributes:
        arm: The synthetic arm.
        ordinary: The ordinary arm with the highest mean Dice on the same test subjects, which favours that arm.
        subjects: Number of real labelled subjects.
        difference: Mean Dice difference over seeds and test subjects, paired, with its interval; the level is
            raised for the number of comparisons (Bonferroni).
        word: The verdict.
    """

    arm: str
    ordinary: str
    subjects: int
    difference: Interval
    word: Word

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        d = self.difference
        size = f"mean Dice {d.estimate:+.4f} [{d.low:+.4f}, {d.high:+.4f}] ({d.level:.1%} interval)"
        against = f"against {self.ordinary} with {self.subjects} real subjects"
        meaning = {
            "USE": "the synthetic scans helped",
            "HARMFUL": "the synthetic scans made segmentation worse; do not train with them",
            "NO EVIDENCE": "the difference may be chance; there is no evidence that the synthetic scans help",
        }[self.word]
        return f"{self.word}: {self.arm}, {size} {against}: {meaning}."


def summarise(rows: Sequence[Row], seed: int, bootstrap: int) -> list[Summary]:
    """Mean and interval of every metric, for every arm, number of subjects and label."""
    summaries = []
    for subjects in _ordered(row["subjects"] for row in rows):
        for arm in _ordered(row["arm"] for row in rows if row["subjects"] == subjects):
            own = [row for row in rows if row["arm"] == arm and row["subjects"] == subjects]
            for label in (None, *sorted({row["label"] for row in own})):
                for metric in METRICS:
                    table = _table([row for row in own if label in (None, row["label"])], metric)
                    interval = hierarchical_bootstrap(table, n=bootstrap, seed=seed)
                    summaries.append(Summary(arm, int(subjects), metric, label, interval))
    return summaries


def compare(rows: Sequence[Row], seed: int, bootstrap: int, level: float = 0.95) -> list[Comparison]:
    """Every synthetic arm against the best ordinary arm with the same real subjects.

    Seeds and test subjects are both resampled, in pairs: arms share seeds' streams and test scans.

    Args:
        rows: Of :func:`medgen.synthesis.value.run_study`.
        seed: Of the resampling.
        bootstrap: Resamples.
        level: Confidence level of all comparisons together.

    Returns:
        In the order of the arms; empty if there is no synthetic arm.
    """
    pairs = []
    for subjects in _ordered(row["subjects"] for row in rows):
        own = [row for row in rows if row["subjects"] == subjects]
        arms = _ordered(row["arm"] for row in own)
        tables = {arm: _table([row for row in own if row["arm"] == arm], "dice") for arm in arms}
        ordinary = [arm for arm in arms if arm in (REAL, STANDARD)]
        if not ordinary:
            raise DataError("the study has no ordinary arm to compare with; add standard to value.arms")
        best = max(ordinary, key=lambda arm: float(tables[arm].mean()))
        pairs += [(arm, best, int(subjects), tables[arm] - tables[best]) for arm in arms if arm not in ordinary]
    each = 1 - (1 - level) / max(len(pairs), 1)
    results = []
    for arm, best, number, difference in pairs:
        interval = hierarchical_bootstrap(difference, n=bootstrap, seed=seed, level=each)
        results.append(Comparison(arm, best, number, interval, word(interval)))
    return results


def word(interval: Interval) -> Word:
    """USE if the whole interval is above zero, HARMFUL if it is below, else NO EVIDENCE.

    >>> word(Interval(0.01, 0.002, 0.02, n=40)), word(Interval(0.01, -0.002, 0.02, n=40))
    ('USE', 'NO EVIDENCE')
    """
    if interval.low > 0:
        return "USE"
    return "HARMFUL" if interval.high < 0 else "NO EVIDENCE"


def _table(rows: Sequence[Row], metric: str) -> NDArray[np.float64]:
    """Values as (seeds, subjects): the mean over a subject's scans and labels."""
    seeds, subjects = sorted({row["seed"] for row in rows}), sorted({row["subject"] for row in rows})
    sums = np.zeros((len(seeds), len(subjects)))
    counts = np.zeros_like(sums)
    places = {name: index for index, name in enumerate(subjects)}
    for row in rows:
        cell = (seeds.index(row["seed"]), places[row["subject"]])
        sums[cell] += row[metric]
        counts[cell] += 1
    if (counts == 0).any():
        raise DataError("the study is incomplete: an arm lacks a test subject for a seed")
    table: NDArray[np.float64] = sums / counts
    return table


def _ordered(values: Iterable[Any]) -> list[Any]:
    """Distinct values in the order of their first occurrence."""
    return list(dict.fromkeys(values))
