"""Rows of a value study as tables of seeds and subjects, which is what intervals are made from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.errors import DataError

Row = dict[str, Any]

METRICS = ("dice", "hd95_mm", "nsd")
TEST, VALIDATION = "test", "validation"


def of_part(rows: Sequence[Row], part: str) -> list[Row]:
    """The rows measured on ``test`` or ``validation`` subjects."""
    return [row for row in rows if row["part"] == part]


def by_arm(rows: Sequence[Row]) -> dict[int, dict[str, list[Row]]]:
    """Number of real subjects, ascending → arm, in the order of the rows → its rows."""
    groups: dict[int, dict[str, list[Row]]] = {}
    for row in rows:
        groups.setdefault(int(row["subjects"]), {}).setdefault(str(row["arm"]), []).append(row)
    return dict(sorted(groups.items()))


def table(rows: Sequence[Row], metric: str) -> NDArray[np.float64]:
    """Values of one arm as (seeds, subjects), both ascending: the mean over a subject's scans and labels.

    Raises:
        DataError: If a subject is missing for a seed.
    """
    seeds, subjects = sorted({row["seed"] for row in rows}), sorted({row["subject"] for row in rows})
    sums = np.zeros((len(seeds), len(subjects)))
    counts = np.zeros_like(sums)
    lines = {number: index for index, number in enumerate(seeds)}
    places = {name: index for index, name in enumerate(subjects)}
    for row in rows:
        cell = (lines[row["seed"]], places[row["subject"]])
        sums[cell] += row[metric]
        counts[cell] += 1
    if (counts == 0).any():
        raise DataError("the study is incomplete: an arm lacks a test subject for a seed; run it again with --resume")
    values: NDArray[np.float64] = sums / counts
    return values


def ordered(values: Iterable[Any]) -> list[Any]:
    """Distinct values in the order of their first occurrence."""
    return list(dict.fromkeys(values))
