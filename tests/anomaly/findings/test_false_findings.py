"""The level of findings: its formula by hand, its guarantee by simulation, and what a small cohort can support."""

from __future__ import annotations

import numpy as np
import pytest

from medgen.anomaly.calibration import p_value
from medgen.anomaly.findings.candidates import Candidates
from medgen.anomaly.findings.false_findings import (
    FindingsConfig,
    HealthyCandidates,
    at_level,
    check_false_findings,
    count_interval,
)
from medgen.config import parse_config
from medgen.errors import CalibrationError, ConfigError

# Three subjects; the second has two scans, the third none with a candidate.
SCANS = [[5.0, 4.0, 3.0], [4.5, 3.5], [6.0], []]
SUBJECTS = ["a", "b", "b", "c"]
HEALTHY = HealthyCandidates.of(SCANS, SUBJECTS)


def candidates(*heat):
    values = np.array(heat, dtype=np.float64)
    return Candidates(values, np.zeros((len(values), 3), dtype=np.int64), np.zeros((1, 1, 1), dtype=np.uint8), 0.0)


def by_hand(heat, rank):
    """(Σ over subjects of the mean over their scans of how many candidates are as hot, plus the rank) / (n + 1)."""
    total = 0.0
    for name in dict.fromkeys(SUBJECTS):
        own = [scan for scan, subject in zip(SCANS, SUBJECTS, strict=True) if subject == name]
        total += np.mean([sum(value >= heat for value in scan) for scan in own])
    return (total + rank) / (len(set(SUBJECTS)) + 1)


def test_expected_false_findings_are_the_mean_count_with_the_new_scan_counted_in():
    new = [6.5, 6.0, 4.2, 3.5, 1.0]
    found = HEALTHY.expected_false(new)
    assert found.tolist() == [pytest.approx(by_hand(heat, rank)) for rank, heat in enumerate(new, start=1)]
    # Hotter than all healthy candidates: 1 / (n + 1), as the smallest p.
    assert found[0] == 0.25 == p_value([5.0, 6.0, 0.0], 6.5)
    assert (np.diff(found) > 0).all()


def test_the_list_ends_where_the_level_is_reached_and_the_threshold_is_that_of_the_first():
    assert HEALTHY.listed(candidates(6.5, 6.0, 4.2), 0.5) == 1
    assert HEALTHY.listed(candidates(6.5, 6.4, 6.3), 0.5) == 2
    assert HEALTHY.listed(candidates(6.5, 6.0, 4.2), 0.2) == 0
    for level in (0.3, 0.5, 0.7, 1.0):
        threshold = HEALTHY.threshold(level)
        assert HEALTHY.listed(candidates(threshold), level) == 0
        assert HEALTHY.listed(candidates(threshold + 1e-6), level) == 1
    # Where all healthy candidates could be afforded, any candidate is a finding.
    assert HEALTHY.threshold(5.0) == 2.0


def test_the_table_of_candidates_gives_the_same_by_hand():
    lines = HEALTHY.rows(["a", "b", "c"])
    assert [line["heat"] for line in lines] == [6.0, 5.0, 4.5, 4.0, 3.5, 3.0]
    assert [line["subject"] for line in lines] == ["b", "a", "b", "a", "b", "a"]
    for heat, rank in ((4.2, 1), (3.5, 2)):
        counted = sum(line["weight"] for line in lines if line["heat"] >= heat)
        assert HEALTHY.expected_false([9.0] * (rank - 1) + [heat])[-1] == pytest.approx((counted + rank) / 4)


def test_each_subject_is_counted_in_a_calibration_without_it():
    """n = 3, so a level of 1 affords a total of 3 with the new scan: the r-th is listed up to 3 - r of others."""
    healthy = HealthyCandidates.of([[5.0, 4.0, 3.0], [4.5, 2.5], [3.5]], "abc")
    # a among b and c: 0 + 1, 1 + 2, 2 + 3 (not); b: 1 + 1, 4 + 2 (not); c: 3 + 1 (not).
    assert healthy.counts(1.0).tolist() == [2, 1, 0]
    assert healthy.rate(1.0).estimate == 1.0
    assert healthy.share_with_finding(1.0).estimate == pytest.approx(2 / 3)


def cohort(rng, n):
    """Candidates of healthy scans whose numbers vary far more than Poisson counts; one in fourteen has many."""
    many = rng.gamma(4, 0.25, n) * np.where(rng.random(n) < 0.07, 4, 1)
    return [2 + rng.exponential(0.45 + 0.15 * (own > 3), rng.poisson(20 * own)) for own in many]


@pytest.mark.parametrize(("n", "level"), [(10, 0.5), (19, 0.5), (19, 1.0)])
def test_a_new_healthy_scan_has_at_most_so_many_findings_in_expectation(n, level):
    """The guarantee is exact: with 2000 cohorts the mean is at most the level, up to 3 standard errors."""
    rng = np.random.default_rng(n)
    found = np.zeros(2000)
    for number in range(found.size):
        *calibrating, new = cohort(rng, n + 1)
        healthy = HealthyCandidates.of(calibrating, [str(row) for row in range(n)])
        found[number] = healthy.listed(candidates(*np.sort(new)[::-1]), level)
    error = found.std() / np.sqrt(found.size)
    assert found.mean() <= level + 3 * error
    # And not so far below that nothing would ever be listed.
    assert found.mean() >= np.floor((n + 1) * level) / (n + 1) - 3 * error - 0.05
    # Over-dispersed, or the test would show little.
    assert found.var() > 1.3 * found.mean()


def test_without_the_scan_itself_in_the_count_there_are_too_many():
    rng, n, level = np.random.default_rng(1), 10, 0.5
    found = []
    for _ in range(1500):
        *calibrating, new = cohort(rng, n + 1)
        healthy = HealthyCandidates.of(calibrating, [str(row) for row in range(n)])
        found.append(at_level(healthy.sum_of_means(new) / n, level).sum())
    assert np.mean(found) > level + 3 * np.std(found) / np.sqrt(len(found))


def test_the_interval_is_garwoods_for_poisson_counts_and_wider_for_others():
    # Five events: Garwood's exact limits are 1.623 and 11.668 (Ulm, Am. J. Epidemiol. 1990).
    interval = count_interval([1, 1, 1, 1, 1, 0, 0, 0, 0, 0])
    assert (10 * interval.low, 10 * interval.high) == pytest.approx((1.623, 11.668), abs=1e-3)
    uneven = count_interval([5, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    assert uneven.low < interval.low
    assert uneven.high > 1.5 * interval.high
    nothing = count_interval([0, 0, 0, 0])
    assert (nothing.estimate, nothing.low) == (0, 0)
    assert nothing.high == pytest.approx(-np.log(0.025) / 4)


def test_what_a_cohort_cannot_support_is_refused():
    check_false_findings(0.5, 1)
    with pytest.raises(
        CalibrationError, match=r"0\.05 expected .* at least 19 .* found 12; .*false_findings to 0\.077"
    ):
        check_false_findings(0.05, 12)
    for wrong in ({"false_findings": 0}, {"separation_mm": -1}, {"false_finding": 1}):
        with pytest.raises(ConfigError):
            parse_config(FindingsConfig, wrong, source="test")
