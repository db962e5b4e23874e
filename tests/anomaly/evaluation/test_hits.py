from __future__ import annotations

import numpy as np
import pytest

from medgen.anomaly.evaluation.hits import hits_of
from medgen.anomaly.findings.candidates import candidates_of
from medgen.volume import Grid, Volume


def line(*values):
    data = np.zeros((1, len(values), 3, 3), dtype=np.float32)
    data[0, :, 1, 1] = values
    return Volume(data, Grid(data.shape[1:], np.eye(4)))


def truth_at(*places, length=12):
    truth = np.zeros((length, 3, 3), dtype=bool)
    truth[list(places), 1, 1] = True
    return truth


# Two candidates: a plateau with its peak at 2, and a peak at 9.
HEAT = line(0, 4, 6, 5, 3.5, 0, 0, 0, 0, 4, 0, 0)


@pytest.mark.parametrize(
    ("truth", "expected"),
    [
        (truth_at(2), [True, False]),
        # The peak touches the anomaly, at a corner as well; two voxels away it does not.
        (truth_at(8), [False, True]),
        (truth_at(7), [False, False]),
        (truth_at(11), [False, False]),
        # The peak is elsewhere, but its part above the threshold of 3 reaches the anomaly.
        (truth_at(4), [True, False]),
        (truth_at(0, 9), [False, True]),
        (truth_at(2, 9), [True, True]),
        (truth_at(), [False, False]),
    ],
)
def test_a_candidate_hits_by_its_peak_or_by_its_part_above_the_threshold(truth, expected):
    found = candidates_of(HEAT, separation_mm=3)
    assert found.voxels[:, 0].tolist() == [2, 9]
    assert hits_of(found, HEAT, truth, threshold=3.0).tolist() == expected


def test_what_is_below_the_threshold_is_no_part_of_a_finding():
    found = candidates_of(HEAT, separation_mm=3)
    assert hits_of(found, HEAT, truth_at(4), threshold=3.6).tolist() == [False, False]


def test_no_candidate_hits_nothing():
    cold = line(*[0.0] * 12)
    assert hits_of(candidates_of(cold, 3), cold, truth_at(4), 3.0).tolist() == []
