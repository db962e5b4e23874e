from __future__ import annotations

import pytest

from medgen.anomaly.evaluation.simulated_groups import Effect, simulated_groups, table


def test_old_people_are_flagged_as_often_as_young_ones_where_scores_are_adjusted():
    plain, adjusted = simulated_groups(Effect("age", 0.0, 0.3), 40, 0.2, cohorts=40)
    # Where scores vary more with age, the old are flagged and the young never are.
    assert plain.high.low > plain.low.high
    for share in (adjusted.low, adjusted.high):
        assert share.low <= adjusted.attainable <= share.high
    assert adjusted.found.estimate > plain.found.estimate
    assert [item.attainable for item in (plain, adjusted)] == pytest.approx([8 / 41] * 2)
    lines = table([plain, adjusted])
    assert len(lines) == 4
    assert lines[3].startswith("| age | 0 | 0.3 | 40 | 0.195 | yes | ")


def test_a_covariate_without_an_effect_changes_little():
    plain, adjusted = simulated_groups(Effect("sex"), 20, 0.2, cohorts=40, seed=1)
    assert abs(adjusted.found.estimate - plain.found.estimate) < 0.08
    for before, after in ((plain.low, adjusted.low), (plain.high, adjusted.high)):
        assert abs(after.estimate - before.estimate) < 0.1
