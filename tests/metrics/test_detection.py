import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from medgen.errors import DataError
from medgen.metrics.detection import (
    Candidates,
    auroc,
    average_precision,
    best_dice,
    dice_at,
    find_candidates,
    fpr_at_tpr,
    froc,
)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(5, 200), st.sampled_from([0, 1, 6]))
def test_ranking_agrees_with_scikit_learn(seed: int, size: int, digits: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random(size) < 0.3
    truth[:2] = True, False
    scores = np.round(rng.normal(size=size) + truth, digits)
    assert average_precision(scores, truth) == pytest.approx(average_precision_score(truth, scores))
    assert auroc(scores, truth) == pytest.approx(roc_auc_score(truth, scores))
    fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
    assert fpr_at_tpr(scores, truth, 0.8) == pytest.approx(fpr[tpr >= 0.8 - 1e-9].min())


def test_best_dice_is_the_best_of_all_thresholds() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((6, 7, 8)) < 0.1
    scores = np.round(rng.normal(size=truth.shape) + 2 * truth, 1)
    value, threshold = best_dice(scores, truth)
    assert value == pytest.approx(max(dice_at(scores, truth, t) for t in np.unique(scores)))
    assert dice_at(scores, truth, threshold) == pytest.approx(value)


def test_hand_computed_values() -> None:
    scores, truth = np.array([4.0, 3, 2, 1]), np.array([1, 0, 1, 0])
    assert average_precision(scores, truth) == pytest.approx((1 + 2 / 3) / 2)
    assert auroc(scores, truth) == 0.75
    assert best_dice(scores, truth) == (pytest.approx(0.8), 2)
    assert dice_at(scores, truth, 5) == 0
    assert dice_at(scores, np.zeros(4), 5) == 1


def test_infinite_scores_are_ordinary_ties() -> None:
    scores, truth = np.array([np.inf, np.inf, 0, 0]), np.array([1, 0, 1, 0])
    assert average_precision(scores, truth) == pytest.approx(0.5)
    assert auroc(scores, truth) == 0.5


def test_one_class_gives_nan_and_bad_scores_are_refused() -> None:
    assert np.isnan(average_precision(np.ones(3), np.zeros(3)))
    assert np.isnan(auroc(np.ones(3), np.ones(3)))
    assert np.isnan(fpr_at_tpr(np.ones(3), np.zeros(3)))
    assert np.isnan(best_dice(np.ones(3), np.zeros(3))).all()
    with pytest.raises(DataError, match="1 scores are NaN"):
        auroc(np.array([1, np.nan]), np.array([0, 1]))
    with pytest.raises(DataError, match="2 scores and 3 truths"):
        auroc(np.ones(2), np.ones(3))


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
    assert find_candidates(heat, truth, 1.5, min_voxels=2).scores.tolist() == [5]
    assert find_candidates(heat, truth, 9).scores.size == 0
