from __future__ import annotations

import pytest

from medgen.anomaly.evaluation.prospects import prospects, prospects_words
from medgen.anomaly.findings.false_findings import count_interval, dispersion_of


def test_the_interval_is_what_that_many_subjects_would_state():
    counts = [0, 0, 0, 0, 0, 0, 0, 0, 1, 4]
    found = prospects(10, 0.5, dispersion_of(counts))
    assert (found[0].rate.low, found[0].rate.high) == pytest.approx(
        (count_interval(counts).low, count_interval(counts).high)
    )
    assert [own.subjects for own in found] == [10, 19, 39, 59]
    widths = [own.rate.high - own.rate.low for own in found]
    assert widths == sorted(widths, reverse=True)
    # Four times the subjects, about half the width.
    assert 0.35 < widths[2] / widths[0] < 0.6


def test_the_line_of_the_plan_says_how_many_more():
    words = prospects_words(prospects(19, 0.5))
    assert words.startswith("calibration: 19 healthy subjects, 0.5 false findings aimed at: p down to 0.05, false ")
    assert "; 20 more: p down to 0.025, false findings" in words
    assert prospects_words(prospects(2000, 0.5)).count("p down to") == 1
