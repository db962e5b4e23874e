"""Lesions found per false alarm: candidates of a heatmap, and how many of them hit (FROC)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medgen.errors import DataError
from medgen.metrics.neighbourhood import connected_parts

# Mean false positives per scan at which LUNA16 reports the sensitivity.
FROC_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


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


def find_candidates(heatmap: NDArray[Any], truth: NDArray[Any], threshold: float) -> Candidates:
    """Connected clusters (26 neighbours) of ``heatmap >= threshold``, scored by their peak.

    A cluster hits the lesion (a connected component of ``truth``) with which it shares most voxels. NaN is below every
    threshold.

    Args:
        heatmap: (i, j, k).
        truth: (i, j, k), lesions are above zero.
        threshold: Lowest value of a cluster's voxels.

    Raises:
        DataError: If the shapes differ.
    """
    heatmap, truth = np.asarray(heatmap), np.asarray(truth)
    if heatmap.shape != truth.shape:
        raise DataError(f"expected a heatmap and a truth of one shape, found {heatmap.shape} and {truth.shape}")
    lesions, count = connected_parts(truth > 0)
    clusters, found = connected_parts(np.nan_to_num(heatmap, nan=-np.inf) >= threshold)
    scores, hits = [], []
    for number, box in enumerate(ndimage.find_objects(clusters, found), start=1):
        inside = clusters[box] == number
        shared = np.bincount(lesions[box][inside], minlength=count + 1)[1:]
        scores.append(float(heatmap[box][inside].max()))
        hits.append(int(shared.argmax()) if shared.any() else -1)
    return Candidates(np.array(scores, dtype=np.float64), np.array(hits, dtype=np.int64), count)


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
    hits, misses = _counts(scores, found)
    fp = np.concatenate([[0], misses]) / len(scans)
    sensitivity = np.concatenate([[0], hits]) / total
    at = {float(rate): float(sensitivity[fp <= rate + 1e-9].max()) for rate in rates}
    return Froc(fp, sensitivity, at, float(np.mean(list(at.values()))))


def thirds(values: Sequence[float], unit: str) -> dict[str, list[int]]:
    """Rows of each third of the values, named by the range that is in them; equal values stay together.

    >>> thirds([5.0, 6.0, 7.0, 8.0, 9.0, 10.0], " mm")
    {'5 to 6 mm': [0, 1], '7 to 8 mm': [2, 3], '9 to 10 mm': [4, 5]}
    """
    part = np.searchsorted(np.quantile(values, (1 / 3, 2 / 3)), values, side="left")
    result = {}
    for number in np.unique(part):
        rows = np.flatnonzero(part == number).tolist()
        own = [values[row] for row in rows]
        low, high = f"{min(own):.3g}", f"{max(own):.3g}"
        result[f"{low}{unit}" if low == high else f"{low} to {high}{unit}"] = rows
    return result


def _counts(scores: NDArray[np.float64], found: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """True and false positives of ``scores >= threshold`` for every different score, highest first."""
    _, place = np.unique(-scores, return_inverse=True)
    return np.cumsum(np.bincount(place, weights=found)), np.cumsum(np.bincount(place, weights=~found))
