import numpy as np
import pytest

from medgen.errors import DataError
from medgen.metrics.detection import (
    Candidates,
    find_candidates,
    froc,
)


def test_froc_by_hand() -> None:
    # Three lesions in two scans; one lesion is hit twice, one never.
    scans = [
        Candidates(np.array([9.0, 8, 7, 6]), np.array([0, -1, 0, -1]), 1),
        Candidates(np.array([5.0, 4]), np.array([1, -1]), 2),
        Candidates(np.zeros(0), np.zeros(0, dtype=np.int64), 0),
        Candidates(np.array([8.5]), np.array([-1]), 0),
    ]
    result = froc(scans, rates=(0, 0.25, 0.5, 0.75, 8))
    # Down the thresholds: hit 9, FP 8.5, FP 8, FP 6, hit 5, FP 4; four scans, three lesions.
    assert result.at == pytest.approx({0: 1 / 3, 0.25: 1 / 3, 0.5: 1 / 3, 0.75: 2 / 3, 8: 2 / 3})
    assert result.score == pytest.approx((3 * 1 / 3 + 2 * 2 / 3) / 5)
    assert result.fp_per_scan[-1] == 1
    with pytest.raises(DataError, match="0 lesions"):
        froc(scans[2:])


def test_candidates_are_clusters_with_the_lesion_they_share_most_with() -> None:
    heat, truth = np.full((20, 20, 20), np.nan), np.zeros((20, 20, 20), dtype=bool)
    heat[5:15] = 0
    truth[6:8, 2:4, 2:4] = True
    truth[10:13, 10:13, 10:13] = True
    heat[11:14, 11:13, 11:13] = 3
    heat[12, 12, 12] = 5
    heat[6, 15, 15] = 2
    found = find_candidates(heat, truth, 1.5)
    assert found.lesions == 2
    assert sorted(zip(found.scores, found.hits, strict=True)) == [(2, -1), (5, 1)]
    assert find_candidates(heat, truth, 9).scores.size == 0
