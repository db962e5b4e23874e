from __future__ import annotations

import pytest

from medgen.anomaly.evaluation.simulated_intervals import simulated_intervals
from medgen.anomaly.findings import false_findings
from medgen.metrics.interval import Interval


@pytest.mark.parametrize(("population", "subjects"), [("even", 10), ("outliers", 19)])
def test_the_stated_interval_holds_the_rate_of_the_calibration(population, subjects):
    (found,) = simulated_intervals(population, subjects, (0.5,), cohorts=40, seed=1, new_scans=300)
    # Consistent with at least 90 %.
    assert found.covered.high >= 0.9
    assert found.covered.estimate >= 0.85
    assert found.mean.low <= 0.5
    assert found.spread[0] < found.mean.estimate < found.spread[1]


def test_an_interval_of_poisson_counts_would_be_seen_to_fail(monkeypatch):
    """A tenth of the width, and most calibrations lie outside."""
    right = false_findings.count_interval

    def narrow(counts):
        item = right(counts)
        return Interval(item.estimate, item.estimate - 0.02, item.estimate + 0.02, item.n)

    monkeypatch.setattr(false_findings, "count_interval", narrow)
    (found,) = simulated_intervals("outliers", 10, (0.5,), cohorts=20, seed=1, new_scans=300)
    assert found.covered.high < 0.7
