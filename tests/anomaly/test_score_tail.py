from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from medgen.anomaly.ensemble import Calibration
from medgen.anomaly.findings.false_findings import HealthyCandidates
from medgen.anomaly.score_tail import ScoreTail


@pytest.mark.parametrize("law", [stats.expon(), stats.gumbel_r(), stats.t(4)], ids=["expon", "gumbel", "t4"])
def test_the_interval_holds_the_true_probability_in_most_calibrations(law):
    rng, n = np.random.default_rng(0), 19
    rare = 0.2 / n
    value = law.isf(rare)
    held = [
        own.low <= rare <= own.high for own in (ScoreTail.of(law.rvs(n, random_state=rng)).p(value) for _ in range(40))
    ]
    assert np.mean(held) > 0.85


def test_it_agrees_with_scipys_fit_where_scores_are_many():
    scores = stats.genpareto(0.1, scale=2).rvs(4000, random_state=np.random.default_rng(1))
    tail = ScoreTail.of(scores)
    shape, _, scale = stats.genpareto.fit(scores[scores > tail.threshold] - tail.threshold, floc=0)
    for value in (15.0, 25.0):
        direct = 0.25 * stats.genpareto.sf(value - tail.threshold, shape, scale=scale)
        found = tail.p(value)
        assert found.low < direct < found.high
        assert found.estimate == pytest.approx(direct, rel=0.25)


def test_rarer_scores_are_rarer_and_the_unit_does_not_matter():
    scores = np.random.default_rng(2).exponential(size=30)
    tail, scaled = ScoreTail.of(scores), ScoreTail.of(7 * scores + 3)
    estimates = [tail.p(value).estimate for value in (4, 6, 9)]
    assert estimates == sorted(estimates, reverse=True)
    for value in (4, 9):
        assert scaled.p(7 * value + 3).estimate == pytest.approx(tail.p(value).estimate, rel=1e-6)


def test_too_few_or_equal_scores_have_no_tail():
    assert ScoreTail.of(np.arange(9.0)) is None
    assert ScoreTail.of(np.ones(40)) is None


def test_a_calibration_says_it_only_beyond_its_highest_score():
    scores = {"max": np.arange(20.0)}
    healthy = HealthyCandidates.of([[1.0]] * 20, [str(number) for number in range(20)])
    own = Calibration(np.zeros(20, dtype=np.int64), scores, 19.0, healthy)
    assert own.beyond("max", 19.0) is None
    found = own.beyond("max", 25.0)
    assert found.n == 20
    assert found.low < found.estimate < found.high < 1 / 21 * 3
