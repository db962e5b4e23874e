from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medgen.anomaly.evaluation.hits import found_up_to, hits_of
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


@pytest.mark.parametrize("seed", range(6))
def test_found_up_to_is_where_the_rule_of_hits_begins_to_fail(seed):
    rng = np.random.default_rng(seed)
    heat = ndimage.gaussian_filter(rng.normal(size=(18, 16, 14)), 1.2)
    heat = (heat / heat.std()).astype(np.float32)[None]
    heat[0, :2] = np.nan
    volume = Volume(heat, Grid(heat.shape[1:], np.diag([2.0, 2.0, 2.0, 1.0])))
    truth = np.zeros(heat.shape[1:], dtype=bool)
    i, j, k = rng.integers(3, 11, size=3)
    truth[i : i + 3, j : j + 3, k : k + 2] = True
    candidates = candidates_of(volume, 6.0)
    limit = found_up_to(candidates, volume, truth)

    def is_found(threshold):
        hits = hits_of(candidates, volume, truth, threshold)
        return bool((hits & (candidates.heat > threshold)).any())

    tried = np.unique(np.concatenate([candidates.heat, heat[np.isfinite(heat)], [0.0]]))
    # Every thirtieth heat of the map, and those around the limit.
    near = np.searchsorted(tried, limit)
    for threshold in {*tried[::30].tolist(), *tried[max(near - 2, 0) : near + 3].tolist()}:
        assert is_found(threshold) == (threshold < limit)


@pytest.mark.parametrize(
    ("truth", "expected"),
    [
        (truth_at(2), 6.0),
        (truth_at(8), 4.0),
        (truth_at(7), -np.inf),
        # The way to the anomaly is cooler than the anomaly: over 5 and 3.5.
        (truth_at(4), 3.5),
        (truth_at(4, 9), 4.0),
        (truth_at(), -np.inf),
    ],
)
def test_found_up_to_is_the_peak_or_the_lowest_heat_on_the_way(truth, expected):
    assert found_up_to(candidates_of(HEAT, 3.0), HEAT, truth) == expected


def test_a_way_over_a_dip_finds_the_anomaly_only_below_the_dip():
    heat = line(0, 4, 9, 5, 5.5, 8, 0, 0, 0, 0, 0, 0)
    candidates = candidates_of(heat, 10.0)
    assert candidates.heat.tolist() == [9.0]
    assert found_up_to(candidates, heat, truth_at(5)) == 5.0
