"""How well a score finds anomalies: ranking, operating points, and lesions found per false alarm.

Scores are higher for more anomalous; a voxel or scan is called anomalous when its score is at least the threshold.
Arrays may have any shape and are flattened. NaN scores are refused: whether unscored voxels are left out or count as
missed is the caller's decision and must be visible there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medgen.errors import DataError

# Mean false positives per scan at which LUNA16 reports the sensitivity.
FROC_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


def average_precision(scores: NDArray[Any], truth: NDArray[Any]) -> float:
    """Area under the precision-recall curve, Σ (Rₙ − Rₙ₋₁) Pₙ without interpolation; equal scores share a point.

    Returns:
        In (0, 1]; a score without information has the prevalence. NaN if nothing is positive.

    Raises:
        DataError: If the sizes differ or a score is NaN.
    """
    curve = _curve(scores, truth)
    if curve.positives == 0:
        return float("nan")
    precision = curve.tp / (curve.tp + curve.fp)
    return float(np.diff(curve.tp, prepend=0) @ precision / curve.positives)


def auroc(scores: NDArray[Any], truth: NDArray[Any]) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties count half.

    Returns:
        In [0, 1]; NaN if one of the classes is empty.

    Raises:
        DataError: If the sizes differ or a score is NaN.
    """
    curve = _curve(scores, truth)
    if curve.positives == 0 or curve.negatives == 0:
        return float("nan")
    tpr = np.concatenate([[0], curve.tp]) / curve.positives
    fpr = np.concatenate([[0], curve.fp]) / curve.negatives
    return float(np.trapezoid(tpr, fpr))


def fpr_at_tpr(scores: NDArray[Any], truth: NDArray[Any], tpr: float = 0.95) -> float:
    """The smallest false-positive rate of a threshold that finds at least ``tpr`` of the positives.

    Returns:
        In [0, 1]; NaN if one of the classes is empty.

    Raises:
        DataError: If the sizes differ or a score is NaN.
    """
    curve = _curve(scores, truth)
    if curve.positives == 0 or curve.negatives == 0:
        return float("nan")
    reached = np.argmax(curve.tp >= tpr * curve.positives - 1e-9)
    return float(curve.fp[reached] / curve.negatives)


def best_dice(scores: NDArray[Any], truth: NDArray[Any]) -> tuple[float, float]:
    """The largest Dice over all thresholds, and that threshold: an oracle, to be shown beside :func:`dice_at`.

    Returns:
        (Dice, threshold); (NaN, NaN) if nothing is positive.

    Raises:
        DataError: If the sizes differ or a score is NaN.
    """
    curve = _curve(scores, truth)
    if curve.positives == 0:
        return float("nan"), float("nan")
    values = 2 * curve.tp / (curve.tp + curve.fp + curve.positives)
    best = int(values.argmax())
    return float(values[best]), float(curve.thresholds[best])


def dice_at(scores: NDArray[Any], truth: NDArray[Any], threshold: float) -> float:
    """Dice of ``scores >= threshold``; 1 if that and the truth are both empty.

    Raises:
        DataError: If the sizes differ or a score is NaN.
    """
    values, positive = _flat(scores, truth)
    called = values >= threshold
    size = int(called.sum()) + int(positive.sum())
    return 2 * int((called & positive).sum()) / size if size else 1.0


@dataclass(frozen=True, eq=False)
class Candidates:
    """What was found in one scan.

    Attributes:
        scores: One per candidate, (n,).
        hits: Number of the lesion that the candidate finds, from 0; -1 for a false positive; (n,) integers.
        lesions: How many lesions the scan has.
    """

    scores: NDArray[np.float64]
    hits: NDArray[np.int64]
    lesions: int


@dataclass(frozen=True, eq=False)
class Froc:
    """Free-response curve.

    Attributes:
        fp_per_scan: Mean false positives per scan, rising, (m,).
        sensitivity: Share of all lesions found, (m,).
        at: Sensitivity at each of the rates asked for.
        score: Mean of ``at``: LUNA16's competition metric when the rates are its own.
    """

    fp_per_scan: NDArray[np.float64]
    sensitivity: NDArray[np.float64]
    at: dict[float, float]
    score: float


def find_candidates(heatmap: NDArray[Any], truth: NDArray[Any], threshold: float, min_voxels: int = 1) -> Candidates:
    """Connected clusters (26 neighbours) of ``heatmap >= threshold``, scored by their peak.

    A cluster hits the lesion (a connected component of ``truth``) with which it shares most voxels. NaN is below every
    threshold.

    Args:
        heatmap: (i, j, k).
        truth: (i, j, k), lesions are above zero.
        threshold: Lowest value of a cluster's voxels.
        min_voxels: Smaller clusters are dropped.

    Raises:
        DataError: If the shapes differ.
    """
    heatmap, truth = np.asarray(heatmap), np.asarray(truth)
    if heatmap.shape != truth.shape:
        raise DataError(f"expected a heatmap and a truth of one shape, found {heatmap.shape} and {truth.shape}")
    touching = np.ones((3,) * heatmap.ndim, dtype=bool)
    lesions, count = ndimage.label(truth > 0, structure=touching)
    clusters, found = ndimage.label(np.nan_to_num(heatmap, nan=-np.inf) >= threshold, structure=touching)
    scores, hits = [], []
    for number, box in enumerate(ndimage.find_objects(clusters, found), start=1):
        inside = clusters[box] == number
        if inside.sum() < min_voxels:
            continue
        shared = np.bincount(lesions[box][inside], minlength=count + 1)[1:]
        scores.append(float(heatmap[box][inside].max()))
        hits.append(int(shared.argmax()) if shared.any() else -1)
    return Candidates(np.array(scores, dtype=np.float64), np.array(hits, dtype=np.int64), int(count))


def froc(scans: Sequence[Candidates], rates: Sequence[float] = FROC_RATES) -> Froc:
    """Free-response ROC over scans (Bunch 1978; Setio et al., "LUNA16", Medical Image Analysis 2017).

    A lesion is found at its best candidate's score; further candidates on it are neither true nor false positives.
    The sensitivity at a rate is the highest that some threshold reaches with at most so many false positives per scan
    (a step function: no threshold between two candidates is invented).

    Args:
        scans: Candidates of every scan, of lesion-free scans as well.
        rates: Mean false positives per scan to report.

    Raises:
        DataError: If there are no scans or no lesions.
    """
    total = sum(scan.lesions for scan in scans)
    if not scans or total == 0:
        raise DataError(f"a FROC curve needs scans with lesions, found {len(scans)} scans with {total} lesions")
    best: list[float] = []
    false: list[NDArray[np.float64]] = []
    for scan in scans:
        false.append(scan.scores[scan.hits < 0])
        best.extend(scan.scores[scan.hits == lesion].max() for lesion in np.unique(scan.hits[scan.hits >= 0]))
    negative = np.concatenate(false)
    scores = np.concatenate([np.array(best), negative])
    found = np.arange(scores.size) < len(best)
    curve = _curve(scores, found)
    fp = np.concatenate([[0], curve.fp]) / len(scans)
    sensitivity = np.concatenate([[0], curve.tp]) / total
    at = {float(rate): float(sensitivity[fp <= rate + 1e-9].max()) for rate in rates}
    return Froc(fp, sensitivity, at, float(np.mean(list(at.values()))))


@dataclass(frozen=True, eq=False)
class _Curve:
    """True and false positives of ``scores >= threshold`` for every different score, highest first."""

    thresholds: NDArray[np.float64]
    tp: NDArray[np.float64]
    fp: NDArray[np.float64]
    positives: int
    negatives: int


def _curve(scores: NDArray[Any], truth: NDArray[Any]) -> _Curve:
    values, positive = _flat(scores, truth)
    order = np.argsort(-values, kind="stable")
    values, positive = values[order], positive[order]
    last = (
        np.append(np.nonzero(values[1:] != values[:-1])[0], values.size - 1)
        if values.size
        else np.zeros(0, dtype=np.int64)
    )
    tp = np.cumsum(positive, dtype=np.float64)[last]
    count = int(positive.sum())
    return _Curve(values[last].astype(np.float64), tp, last + 1 - tp, count, values.size - count)


def _flat(scores: NDArray[Any], truth: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    values, positive = np.asarray(scores).ravel(), np.asarray(truth).ravel() > 0
    if values.shape != positive.shape:
        raise DataError(f"expected one truth per score, found {values.size} scores and {positive.size} truths")
    if not np.issubdtype(values.dtype, np.floating):
        values = values.astype(np.float64)
    if np.isnan(values).any():
        raise DataError(
            f"{int(np.isnan(values).sum())} scores are NaN; leave unscored voxels out, or count them as missed"
        )
    return values, positive
