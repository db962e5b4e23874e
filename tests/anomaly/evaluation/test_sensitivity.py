"""What findings find: shares by hand, false findings by hand, what is missed, and the interval of the rate."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from medgen.anomaly.evaluation.measure import HEALTHY, Measurement
from medgen.anomaly.evaluation.sensitivity import ALL, COLUMNS, sensitivity_of

NOTHING = np.zeros((1, 1, 1), dtype=bool)


def scan(number, kind, expected, hits=None, radius=5.0, contrast=1.5, untouched=math.inf):
    values = np.array(expected, dtype=np.float64)
    return Measurement(
        f"case-{number}", f"subject-{number // 2}", kind, radius, contrast, NOTHING, NOTHING[0, 0], {}, {}, {},
        expected_false=values, hits=np.zeros(len(values), dtype=bool) if hits is None else np.array(hits),
        untouched=untouched,
    )  # fmt: skip


SCANS = [
    scan(0, HEALTHY, [0.2, 0.9]),
    scan(1, HEALTHY, [1.5]),
    scan(2, HEALTHY, []),
    scan(3, HEALTHY, [0.4, 0.5]),
    # Found at the first candidate, at the second, at none, and at a level that nobody asks for.
    scan(0, "blob", [0.1, 0.3], [True, False], radius=6, untouched=0.2),
    scan(1, "blob", [0.1, 0.8], [False, True], radius=7),
    scan(2, "shift", [0.3], [False], radius=8, contrast=2.5),
    scan(3, "shift", [0.2, 3.0], [False, True], radius=9, contrast=2.5),
]


def test_an_implant_is_found_where_its_strongest_candidate_is_listed():
    found = sensitivity_of(SCANS, 0.5, 200, 0)
    assert [(share.level, share.found) for share in found.everything.shares] == [(0.25, 1), (0.5, 1), (1, 2), (2, 2)]
    assert found.operating.share.estimate == 0.25
    assert [group.name for group in found.by("kind")] == ["blob", "shift"]
    assert [share.found for share in found.by("kind")[0].shares] == [1, 1, 2, 2]
    assert [group.scans for group in found.by("contrast")] == [2, 2]
    assert sum(group.scans for group in found.by("radius")) == 4
    assert [(m.case, m.expected_false) for m in found.missed] == [
        ("case-1", 0.8),
        ("case-3", 3.0),
        ("case-2", math.inf),
    ]


def test_intervals_have_a_width_also_where_all_or_none_are_found():
    kinds = {group.name: group for group in sensitivity_of(SCANS, 0.5, 200, 0).by("kind")}
    # Both of one subject are found at 1: one subject of one, exactly.
    (at_one,) = [share.share for share in kinds["blob"].shares if share.level == 1]
    assert (at_one.estimate, at_one.low, at_one.high, at_one.n) == (1, pytest.approx(0.025), 1, 1)
    (none,) = [share.share for share in kinds["shift"].shares if share.level == 0.5]
    assert (none.estimate, none.low, none.high) == (0, 0, pytest.approx(0.975))
    single = [scan(0, "a", [0.1], [True]), scan(2, "a", [9.0], [True]), scan(4, "a", [0.1], [True]), SCANS[0]]
    share = sensitivity_of(single, 0.5, 200, 0).operating.share
    expected = stats.binomtest(2, 3).proportion_ci(method="exact")
    assert (share.low, share.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_a_level_of_ones_own_stands_between_the_others():
    found = sensitivity_of(SCANS, 3.0, 200, 0)
    assert [share.level for share in found.everything.shares] == [0.25, 0.5, 1, 2, 3]
    assert (found.operating.found, len(found.missed)) == (3, 1)


def test_places_that_have_a_finding_without_the_implant_are_counted():
    found = sensitivity_of(SCANS, 0.5, 200, 0)
    assert [share.untouched for share in found.everything.shares] == [1, 1, 1, 1]
    assert sensitivity_of([*SCANS[:4], *SCANS[5:]], 0.5, 200, 0).operating.untouched == 0


def test_false_findings_are_counted_in_healthy_scans_and_averaged_over_a_subjects_scans():
    found = sensitivity_of(SCANS, 0.5, 200, 0)
    # Subjects of two scans each: at 0.5 one finding in two scans, and two in two.
    assert [item.measured.estimate for item in found.healthy] == [0.25, 0.75, 1.0, 1.25]
    assert (found.false.with_finding, found.false.measured.n) == (2, 2)


def test_the_table_has_a_line_for_each_group_and_level():
    found = sensitivity_of(SCANS, 0.5, 200, 0)
    lines = found.rows()
    assert len(lines) == len(found.groups) * 4
    assert all(tuple(line) == COLUMNS for line in lines)
    assert [line["share"] for line in lines if line["by"] == ALL] == [0.25, 0.25, 0.5, 0.5]
    for line in lines:
        assert line["low"] <= line["share"] <= line["high"]
        assert line["share"] == pytest.approx(line["found"] / line["scans"])
