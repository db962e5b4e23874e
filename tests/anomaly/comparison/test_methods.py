from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from medgen.anomaly.comparison.methods import RATES, ScanFacts, compare, reduce_scan
from medgen.errors import DataError
from medgen.metrics.bootstrap import holm, sign_flip_p
from medgen.metrics.detection import find_candidates, froc
from medgen.metrics.interval import subject_weights
from medgen.metrics.ranking import Ranked, level_counts

SHAPE = (12, 12, 12)


def scans(n=8, strength=2.0, seed=0, healthy=2, transform=lambda values: values):
    rng = np.random.default_rng(seed)
    result = []
    for number in range(n):
        truth = np.zeros(SHAPE, dtype=bool)
        if number >= healthy:
            i, j, k = rng.integers(2, 8, size=3)
            truth[i : i + 3, j : j + 3, k : k + 3] = True
        heat = (rng.normal(size=SHAPE) + strength * truth).astype(np.float32)
        heat[:2] = np.nan
        truth[:2] = False
        result.append((transform(heat), truth))
    return result


def judged(*methods, subjects=None, bootstrap=100, **facts):
    """Comparison of methods, each a list of (heatmap, truth) with the same truths."""
    known, scored = [], {f"m{number}": [] for number in range(len(methods))}
    for row, parts in enumerate(zip(*methods, strict=True)):
        voxels, domain, own = reduce_scan({f"m{n}": part[0] for n, part in enumerate(parts)}, parts[0][1])
        extra = {key: values[row] for key, values in facts.items()}
        known.append(ScanFacts(f"c{row}", subjects[row] if subjects else f"s{row // 2}", voxels, domain, **extra))
        for name, values in own.items():
            scored[name].append(values)
    return compare(known, scored, bootstrap=bootstrap, seed=0)


@pytest.mark.parametrize(
    "transform",
    [
        lambda values: values,
        lambda values: 1 / (1 + np.exp(-values - 9.0)),  # probabilities that saturate
        lambda values: -np.exp(-values) * 1e5,
        np.round,
    ],
    ids=["z", "saturated probabilities", "large negatives", "ties"],
)
def test_counts_on_levels_give_the_metrics_of_scikit_learn(transform):
    parts = scans(transform=transform)
    values = [heat[np.isfinite(heat)].astype(np.float64) for heat, _ in parts]
    truth = [mask[np.isfinite(heat)] for heat, mask in parts]
    pooled = Ranked.counted([level_counts(v, t) for v, t in zip(values, truth, strict=True)], bins=1 << 16).pooled()
    s, t = np.concatenate(values), np.concatenate(truth)
    assert pooled.average_precision()[0] == pytest.approx(average_precision_score(t, s), rel=5e-3)
    assert pooled.auroc()[0] == pytest.approx(roc_auc_score(t, s), abs=1e-3)


def test_levels_keep_the_order_of_all_numbers():
    values = np.array(
        [-np.inf, -1e11, -70000, -3, -1e-3, 0, 1e-12, 0.3, 0.5, 1 - 1e-4, 1 - 2e-7, 1, 1.01, 3, 7e4, 1e11],
        dtype=np.float64,
    )
    counts = [level_counts(np.array([value]), np.array([True])) for value in values]
    levels = [int(np.flatnonzero(own[0])[0]) for own in counts]
    assert all(before > after for before, after in itertools.pairwise(levels))


def test_pooled_and_scan_numbers_are_those_of_scikit_learn_on_concatenated_voxels():
    parts = scans(n=10, healthy=4)
    result = judged(parts, subjects=[f"s{row}" for row in range(10)])
    row = result.methods[0]
    sick = [(heat[2:].ravel(), mask[2:].ravel()) for heat, mask in parts if mask.any()]
    s, t = (np.concatenate(own) for own in zip(*sick, strict=True))
    assert row.voxel["AP"].estimate == pytest.approx(average_precision_score(t, s), rel=5e-3)
    assert row.voxel["AUROC"].estimate == pytest.approx(roc_auc_score(t, s), abs=1e-3)
    each = [average_precision_score(mask, heat) for heat, mask in sick]
    assert row.ap_per_scan.estimate == pytest.approx(np.mean(each), rel=5e-3)
    assert result.prevalence == pytest.approx(t.mean())
    every = np.concatenate([heat[2:].ravel() for heat, _ in parts])
    marks = np.concatenate([mask[2:].ravel() for _, mask in parts])
    assert row.voxel["AP with healthy scans"].estimate == pytest.approx(average_precision_score(marks, every), rel=5e-3)
    tops = [np.nanmax(heat) for heat, _ in parts]
    labels = [mask.any() for _, mask in parts]
    assert row.scan["max"]["AUROC"].estimate == pytest.approx(roc_auc_score(labels, tops))
    assert row.scan["max"]["AP"].estimate == pytest.approx(average_precision_score(labels, tops))
    assert row.coverage.estimate == 1
    for value in [*row.voxel.values(), row.ap_per_scan, row.froc]:
        assert value.low <= value.estimate <= value.high
        assert value.n == 10


def test_unscored_anomalies_are_missed_and_the_coverage_says_so():
    parts = scans(strength=8.0, healthy=0)
    half = []
    for heat, mask in parts:
        hidden = heat.copy()
        voxels = np.argwhere(mask)
        hidden[tuple(voxels[: len(voxels) // 2].T)] = np.nan
        half.append((hidden, mask))
    whole, partial = judged(parts, half).methods
    assert whole.coverage.estimate == 1
    kept = sum(mask.sum() - mask.sum() // 2 for _, mask in parts) / sum(mask.sum() for _, mask in parts)
    assert partial.coverage.estimate == pytest.approx(kept)
    assert whole.voxel["AP"].estimate > 0.95
    s = np.concatenate([np.nan_to_num(heat[2:], nan=-99).ravel() for heat, _ in half])
    t = np.concatenate([mask[2:].ravel() for _, mask in half])
    assert partial.voxel["AP"].estimate == pytest.approx(average_precision_score(t, s), rel=5e-3)


def test_scoring_fewer_healthy_voxels_does_not_help():
    parts = scans(healthy=0)
    few = []
    for heat, mask in parts:
        hidden = np.where(mask | (np.nan_to_num(heat, nan=9) < 1), heat, np.nan)  # hides its own false alarms
        few.append((hidden, mask))
    both = judged(parts, few)
    alone = judged(parts)
    assert both.methods[0].voxel["AP"].estimate == pytest.approx(alone.methods[0].voxel["AP"].estimate)
    assert both.prevalence == alone.prevalence


def test_lesions_are_found_as_the_curve_says():
    parts = scans(n=6, strength=3.0, healthy=1)
    row = judged(parts).methods[0]
    candidates = []
    for heat, mask in parts:
        scored = np.sort(heat[np.isfinite(heat)])
        candidates.append(find_candidates(heat, mask, scored[-round(0.01 * scored.size)]))
    expected = froc(candidates, RATES)
    assert row.froc.estimate == pytest.approx(expected.score)
    assert [row.sensitivity[f"{rate:g}"].estimate for rate in RATES] == pytest.approx(list(expected.at.values()))
    # The limits are quantiles of the same curve on resampled subjects (two scans each).
    weights = subject_weights(3, 100, 0)
    draws = []
    for times in weights.astype(int):
        drawn = [candidates[scan] for subject, n in enumerate(times) for scan in (2 * subject, 2 * subject + 1) * n]
        draws.append(froc(drawn, RATES).score)
    assert (row.froc.low, row.froc.high) == pytest.approx(tuple(np.quantile(draws, (0.025, 0.975))), abs=1e-6)


def test_a_map_of_zeros_and_ones_has_its_ones_as_candidates():
    truth = np.zeros(SHAPE, dtype=bool)
    truth[4:6, 4:6, 4:6] = True
    _, _, own = reduce_scan({"a": truth.astype(np.float32), "b": np.zeros(SHAPE, np.float32)}, truth)
    assert own["a"].candidates.hits.tolist() == [0]
    assert own["b"].candidates.hits.size == 0
    assert own["b"].candidates.lesions == 1


def test_paired_differences_and_their_p_values():
    good, same, bad = scans(n=10, strength=3.0), scans(n=10, strength=3.0), scans(n=10, strength=0.5)
    truths = [mask for _, mask in good]
    assert all((mask == other).all() for mask, (_, other) in zip(truths, bad, strict=True))
    result = judged(good, same, bad)
    equal, worse = result.paired
    assert equal.other == "m1"
    assert equal.difference["AP"].estimate == 0
    assert equal.ratio["AP"].high == pytest.approx(1)
    assert equal.p == 1
    first, third = result.methods[0], result.methods[2]
    gain = first.voxel["AP"].estimate - third.voxel["AP"].estimate
    assert worse.difference["AP"].estimate == pytest.approx(gain)
    assert worse.difference["AP"].low > 0
    assert worse.ratio["AP"].low > 1
    # Two healthy scans belong to the first subject; each of the others has two scans.
    each = [[average_precision_score(m[2:].ravel(), h[2:].ravel()) for h, m in part[2:]] for part in (good, bad)]
    p = sign_flip_p((np.array(each[0]) - np.array(each[1])).reshape(-1, 2).mean(axis=1))
    assert worse.p == pytest.approx(p)
    assert [equal.p_holm, worse.p_holm] == holm([equal.p, worse.p])


def test_groups_by_kind_contrast_and_radius():
    parts = scans(n=9, healthy=0)
    kinds = ["blur", "shift", "shift"] * 3
    radii = [float(row) for row in range(9)]
    result = judged(parts, kind=kinds, radius_mm=radii, contrast=[1.5, 2.5, 1.5] * 3)
    assert result.group_sizes == {
        "kind": {"blur": 3, "shift": 6},
        "contrast": {"1.5": 6, "2.5": 3},
        "radius": {"0 to 2 mm": 3, "3 to 5 mm": 3, "6 to 8 mm": 3},
    }
    own = [
        (heat[2:].ravel(), mask[2:].ravel()) for (heat, mask), kind in zip(parts, kinds, strict=True) if kind == "blur"
    ]
    s, t = (np.concatenate(part) for part in zip(*own, strict=True))
    assert result.methods[0].groups["kind"]["blur"].estimate == pytest.approx(average_precision_score(t, s), rel=1e-2)


def test_nothing_to_find_is_refused():
    with pytest.raises(DataError, match="none of 3 scans has a truth voxel"):
        judged(scans(n=3, healthy=3))
