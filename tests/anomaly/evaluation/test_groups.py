from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from medgen.anomaly.calibration import p_value
from medgen.anomaly.evaluation.groups import DEVELOPMENT, TEST, group_rows, out_of_fold_p
from medgen.data.cases import Case


def cases():
    about = [("30", "F"), ("35", "m"), ("71", "M"), ("", "f"), ("064Y", "F")]
    return [
        Case(f"c{n}", f"s{n}", (), None, {"Age": age, "SEX": sex, "note": "x"}) for n, (age, sex) in enumerate(about)
    ]


def test_rates_by_band_and_sex_with_exact_intervals():
    p = {"s0": 0.05, "s1": 0.5, "s2": 0.01, "s3": 0.04, "s4": 0.9}
    rows = {(row.column, row.group): row for row in group_rows(cases(), p, 0.05, TEST)}
    counts = {key: (row.flagged, row.subjects) for key, row in rows.items()}
    assert counts == {
        ("age", "18-39"): (1, 2),
        ("age", "60-79"): (1, 2),
        ("age", "unknown"): (1, 1),
        ("sex", "female"): (2, 3),
        ("sex", "male"): (1, 2),
    }
    exact = stats.binomtest(2, 3).proportion_ci(method="exact")
    fpr = rows["sex", "female"].fpr
    assert (fpr.estimate, fpr.low, fpr.high) == pytest.approx((2 / 3, exact.low, exact.high))


def test_nothing_is_said_without_such_columns_or_of_other_subjects():
    plain = [Case("c0", "s0", (), None, {"note": "x"})]
    assert group_rows(plain, {"s0": 0.01}, 0.05, TEST) == []
    rows = group_rows(cases(), {"s0": 0.01}, 0.05, TEST)
    assert {row.subjects for row in rows} == {1}


def test_out_of_fold_p_is_the_conformal_p_among_the_others():
    scores = np.random.default_rng(0).normal(size=20).round(1)
    for index, p in enumerate(out_of_fold_p(scores)):
        assert p == pytest.approx(p_value(np.delete(scores, index), scores[index]))


def test_development_rates_are_left_out_where_no_p_can_reach_the_target():
    p = {f"s{n}": float(value) for n, value in enumerate(out_of_fold_p([1, 2, 3, 4, 5]))}
    assert group_rows(cases(), p, 0.1, DEVELOPMENT) == []
    rows = group_rows(cases(), p, 0.2, DEVELOPMENT)
    assert sum(row.flagged for row in rows if row.column == "sex") == 1
