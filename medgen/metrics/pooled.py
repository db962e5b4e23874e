"""Average precision over the voxels of all subjects together, with intervals from resampling subjects, fast.

A resample that draws subject s w_s times has Σ w_s h_s as its histogram of scores, h_s being the subject's own. So
each subject's positives and negatives are counted once in a few thousand bins, and a thousand resamples are one matrix
product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.errors import DataError
from medgen.metrics.interval import Interval, percentile_interval, subject_weights

Scored = tuple[NDArray[Any], NDArray[Any]]  # scores and truth of one subject, any equal shapes


@dataclass(frozen=True, eq=False)
class BinnedScores:
    """Histograms of a score over subjects; bins from the highest scores to the lowest.

    Attributes:
        positives: Anomalous voxels, (subjects, bins).
        negatives: Other voxels, (subjects, bins).
        single: Bins with one value only, (bins,): all their voxels are called together.
        exact: Average precision of all voxels, without binning; NaN if none is anomalous.
    """

    positives: NDArray[np.float64]
    negatives: NDArray[np.float64]
    single: NDArray[np.bool_]
    exact: float

    def average_precision(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Average precision of each resample; ``weights`` (n, subjects) says how often a subject is in it.

        Inside a bin positives and negatives are taken as evenly mixed: their precision is that of the bin's middle. In
        a bin with one value it is that of the bin's end, as in the definition. NaN where there are no positives.
        """
        result = np.empty(len(weights))
        part = np.where(self.single, 1.0, 0.5)
        for start in range(0, len(weights), 256):  # keeps the tables within a few tens of MB
            chosen = weights[start : start + 256]
            p, f = chosen @ self.positives, chosen @ self.negatives
            tp = np.cumsum(p, axis=1) - (1 - part) * p
            called = tp + np.cumsum(f, axis=1) - (1 - part) * f
            precision = np.divide(tp, called, out=np.zeros_like(tp), where=called > 0)
            total = p.sum(axis=1)
            area = (p * precision).sum(axis=1)
            result[start : start + 256] = np.divide(area, total, out=np.full(len(p), np.nan), where=total > 0)
        return result


@dataclass(frozen=True)
class PairedAP:
    """Two scores on the same subjects: ``a − b`` and ``a / b`` of their pooled average precisions."""

    difference: Interval
    ratio: Interval


def bin_scores(per_subject: Sequence[Scored], bins: int = 2048) -> BinnedScores:
    """Count every subject's voxels in bins that are fine where average precision is decided.

    Half of the bin edges are quantiles of the positives' scores; the other half are scores of negatives at ranks that
    are evenly spaced on a logarithmic scale from the top: few positives and few false alarms then share a bin. A score
    at an edge has its own bin, so ties are exact.

    Args:
        per_subject: (scores, truth) of each subject, of any shape; truth above zero is anomalous. A subject's scans
            belong into one entry.
        bins: About twice so many bins are made.

    Raises:
        DataError: If there are no subjects, sizes differ, or a score is NaN.
    """
    if not per_subject:
        raise DataError("pooled average precision needs at least one subject, found none")
    split = [_split(scores, truth) for scores, truth in per_subject]
    positive = np.sort(np.concatenate([item[0] for item in split]))
    negative = np.sort(np.concatenate([item[1] for item in split]))
    if positive.size + negative.size == 0:
        raise DataError("pooled average precision needs scored voxels, found none; check the foreground masks")
    places = [np.zeros(0, dtype=positive.dtype)]
    if positive.size:
        places.append(positive[np.linspace(0, positive.size - 1, bins // 2).astype(np.int64)])
    if negative.size:
        ranks = np.unique(np.geomspace(1, negative.size, bins // 2).astype(np.int64))
        places.append(negative[negative.size - ranks])
    values = np.unique(np.concatenate(places))
    edges = np.unique(np.concatenate([values, np.nextafter(values, values.dtype.type(np.inf))]))
    counts = [tuple(_histogram(part, edges) for part in item) for item in split]
    low, high = edges, np.append(edges[1:], edges.dtype.type(np.inf))
    single = np.nextafter(low, edges.dtype.type(np.inf)) >= high
    return BinnedScores(
        positives=np.stack([item[0] for item in counts])[:, ::-1].astype(np.float64),
        negatives=np.stack([item[1] for item in counts])[:, ::-1].astype(np.float64),
        single=single[::-1].copy(),
        exact=_exact(positive, negative),
    )


def pooled_ap_bootstrap(
    per_subject: Sequence[Scored] | BinnedScores, n: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Pooled voxel average precision with a percentile interval over subjects.

    Args:
        per_subject: See :func:`bin_scores`; its result can be given instead.
        n: Resamples.
        seed: Of the resampling; equal seeds draw equal subjects for every score.
        level: Confidence level.

    Returns:
        The estimate is exact; the limits come from bins (within 1e-3 of exact resamples).
    """
    binned = per_subject if isinstance(per_subject, BinnedScores) else bin_scores(per_subject)
    subjects = len(binned.positives)
    draws = binned.average_precision(subject_weights(subjects, n, seed))
    return percentile_interval(binned.exact, draws, subjects, level)


def pooled_ap_paired(
    a: Sequence[Scored] | BinnedScores,
    b: Sequence[Scored] | BinnedScores,
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> PairedAP:
    """Compare two scores by pooled average precision; each resample draws the same subjects for both.

    Args:
        a: See :func:`bin_scores`; its result can be given instead.
        b: The other score on the same subjects, in the same order.
        n: Resamples.
        seed: Of the resampling.
        level: Confidence level.

    Raises:
        DataError: If the two have different numbers of subjects or of anomalous voxels per subject.
    """
    first = a if isinstance(a, BinnedScores) else bin_scores(a)
    second = b if isinstance(b, BinnedScores) else bin_scores(b)
    if not np.array_equal(first.positives.sum(axis=1), second.positives.sum(axis=1)):
        raise DataError(
            "a paired comparison needs the same subjects with the same truth in the same order on both sides"
        )
    subjects = len(first.positives)
    weights = subject_weights(subjects, n, seed)
    one, two = first.average_precision(weights), second.average_precision(weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = one / two
        exact = float(np.float64(first.exact) / np.float64(second.exact))
    return PairedAP(
        percentile_interval(first.exact - second.exact, one - two, subjects, level),
        percentile_interval(exact, ratio, subjects, level),
    )


def _split(scores: NDArray[Any], truth: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    # float32 sorts twice as fast, and no score is meaningful beyond seven digits.
    values, positive = np.asarray(scores).astype(np.float32, copy=False).ravel(), np.asarray(truth).ravel() > 0
    if values.shape != positive.shape:
        raise DataError(f"expected one truth per score, found {values.size} scores and {positive.size} truths")
    if np.isnan(values).any():
        raise DataError(
            f"{int(np.isnan(values).sum())} scores are NaN; leave unscored voxels out, or count them as missed"
        )
    return np.sort(values[positive]), np.sort(values[~positive])


def _histogram(ordered: NDArray[np.float32], edges: NDArray[np.float32]) -> NDArray[np.int64]:
    """How many of the ordered values are in [edge, next edge); what is below the first edge joins the first bin."""
    starts = np.searchsorted(ordered, edges)
    starts[0] = 0
    return np.diff(np.append(starts, ordered.size))


def _exact(positive: NDArray[np.float32], negative: NDArray[np.float32]) -> float:
    if positive.size == 0:
        return float("nan")
    tp = positive.size - np.searchsorted(positive, positive)
    fp = negative.size - np.searchsorted(negative, positive)
    return float(np.mean(tp / (tp + fp)))
