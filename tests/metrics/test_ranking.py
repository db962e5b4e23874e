from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from medgen.metrics.ranking import Ranked


def units(n=6, size=3000, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    truth = [rng.random(size) < 0.02 for _ in range(n)]
    scores = [(rng.normal(size=size) + 1.5 * mask).astype(dtype) for mask in truth]
    return scores, truth


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_pooled_metrics_are_those_of_scikit_learn(dtype):
    scores, truth = units(dtype=dtype)
    pooled = Ranked.of(scores, truth, bins=1 << 16).pooled()
    s, t = np.concatenate(scores).astype(np.float64), np.concatenate(truth)
    assert pooled.average_precision()[0] == pytest.approx(average_precision_score(t, s), abs=1e-9)
    assert pooled.auroc()[0] == pytest.approx(roc_auc_score(t, s), abs=1e-9)
    fpr, tpr, _ = roc_curve(t, s, drop_intermediate=False)
    assert pooled.fpr_at_tpr(0.95)[0] == pytest.approx(fpr[np.argmax(tpr >= 0.95)], abs=1e-9)
    assert pooled.prevalence()[0] == pytest.approx(t.mean())
    cuts = np.unique(s)
    dice = [2 * (t & (s >= cut)).sum() / (t.sum() + (s >= cut).sum()) for cut in cuts[:: max(1, len(cuts) // 300)]]
    assert pooled.best_dice()[0] >= max(dice) - 1e-9


def test_binning_costs_little_precision():
    scores, truth = units(n=4, size=100_000, seed=1)
    s, t = np.concatenate(scores), np.concatenate(truth)
    pooled = Ranked.of(scores, truth, bins=2048).pooled()
    assert pooled.average_precision()[0] == pytest.approx(average_precision_score(t, s), rel=5e-3)
    assert pooled.auroc()[0] == pytest.approx(roc_auc_score(t, s), rel=1e-3)


def test_ties_and_negative_zero_are_handled_as_in_scikit_learn():
    scores = [np.array([0.0, -0.0, 1, 1, 2, -3], dtype=np.float16)]
    truth = [np.array([True, False, True, False, False, True])]
    pooled = Ranked.of(scores, truth).pooled()
    assert pooled.average_precision()[0] == pytest.approx(average_precision_score(truth[0], scores[0]))
    assert pooled.auroc()[0] == pytest.approx(roc_auc_score(truth[0], scores[0]))


def test_weights_repeat_units():
    scores, truth = units(n=3)
    weighted = Ranked.of(scores, truth).pooled(np.array([[2.0, 0, 1]]))
    repeated = [0, 0, 2]
    s, t = (np.concatenate([part[i] for i in repeated]) for part in (scores, truth))
    assert weighted.average_precision()[0] == pytest.approx(average_precision_score(t, s), rel=5e-3)


def test_no_positives_is_not_a_number():
    ranked = Ranked.of([np.arange(4.0)], [np.zeros(4, bool)]).pooled()
    assert np.isnan(ranked.average_precision()[0])
    assert np.isnan(ranked.best_dice()[0])
