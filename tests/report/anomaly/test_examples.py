"""The table of test scans: each outcome is read off the measurement."""

from __future__ import annotations

import numpy as np
import pytest

from medgen.anomaly.evaluation.measure import HEALTHY, Measurement
from medgen.report.anomaly.examples import outcome

EMPTY = np.zeros(0, dtype=bool)


def measured(kind: str, expected: list[float], hits: list[bool], hot: tuple[int, int, int] = (0, 0, 0)) -> Measurement:
    found = {"expected_false": np.array(expected), "hits": np.array(hits, dtype=bool), "own_grid": hot}
    return Measurement("a", "a", kind, 6.0, 1.5, EMPTY, EMPTY, {}, {}, {}, **found)


@pytest.mark.parametrize(
    ("scan", "words"),
    [
        (measured(HEALTHY, [0.6], [False]), "clear"),
        (measured(HEALTHY, [0.4], [False]), "false finding"),
        (measured("blur", [0.4], [True]), "found"),
        (measured("blur", [0.4], [True], (3, 9, 2)), "found, family-wise"),
        (measured("blur", [0.6], [True]), "missed"),
        (measured("blur", [0.4], [False]), "missed"),
    ],
)
def test_the_outcome_follows_the_level_and_the_place(scan: Measurement, words: str) -> None:
    assert outcome(scan, 0.5) == words
