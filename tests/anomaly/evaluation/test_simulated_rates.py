from __future__ import annotations

import pytest

from medgen.anomaly import calibration
from medgen.anomaly.evaluation.simulated_rates import simulated_rates


def test_the_rate_of_healthy_subjects_with_a_finding_is_at_most_the_target():
    for rate in simulated_rates(19, (0.05, 0.2), cohorts=400, seed=1):
        assert rate.realised.low <= rate.target
        # And not so far below that nothing would ever be found.
        assert rate.realised.high >= 0.5 * rate.attainable


def test_a_calibration_that_counts_wrongly_is_seen(monkeypatch):
    """Without the scan itself in the count, p is 0 as often as a scan is the highest: too many findings."""
    wrong = calibration.p_value
    monkeypatch.setattr(calibration, "p_value", lambda scores, value: wrong(scores, value) - 2 / (len(scores) + 1))
    assert any(rate.realised.low > rate.target for rate in simulated_rates(19, (0.05,), cohorts=300, seed=1))


def test_targets_out_of_reach_are_left_out_and_the_attainable_rate_is_a_step_of_p():
    rates = simulated_rates(9, (0.05, 0.15), cohorts=3)
    assert {rate.target for rate in rates} == {0.15}
    assert [rate.attainable for rate in rates] == pytest.approx([0.1, 0.1])


def test_findings_of_new_healthy_subjects_are_at_most_the_level():
    rates = {rate.score: rate for rate in simulated_rates(19, (), cohorts=80, seed=1, levels=(1.0,))}
    assert set(rates) == {"findings"}
    assert rates["findings"].realised.low <= 1.0
    assert rates["findings"].realised.high >= 0.5
    assert rates["findings"].attainable == 1.0
