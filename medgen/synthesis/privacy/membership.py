"""What distances to synthetic scans give away about who was learnt from: pure functions of likeness tables.

Tables hold likenesses (larger is more alike) between rows and columns. Subjects, not scans, are what is resampled.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medgen.metrics.interval import Interval, percentile_interval, subject_weights
from medgen.seeds import numpy_rng

Table = NDArray[np.float64]


def by_subject(table: Table, subjects: Sequence[str]) -> Table:
    """The largest likeness to any scan of each subject: (rows, scans) becomes (rows, subjects), in order of names.

    >>> by_subject(np.array([[1.0, 3.0, 2.0]]), ["b", "b", "a"])
    array([[2., 3.]])
    """
    names = np.array(subjects)
    return np.stack([table[:, names == name].max(axis=1) for name in sorted(set(subjects))], axis=1)


def separation(
    scores: Table,
    subjects: Sequence[str],
    others: Table,
    other_subjects: Sequence[str],
    *,
    seed: int,
    n: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Chance that a score of one group is above a score of the other (the area under the ROC curve), by subject.

    Every subject counts once, however many scans it has; ties count half. The interval comes from resampling the
    subjects of both groups.

    Args:
        scores: (a,).
        subjects: Owner of each of them.
        others: (b,).
        other_subjects: Owner of each of them.
        seed: Seed of the random resampling; equal seeds give equal results.
        n: Resamples.
        level: Confidence level.

    Returns:
        Interval of the area, 0.5 where the groups do not differ; ``n`` counts the smaller group's subjects.
    """
    wins = (scores[:, None] > others[None]) + 0.5 * (scores[:, None] == others[None])
    wins = _means(_means(wins, subjects).T, other_subjects).T
    first, second = wins.shape
    rows = subject_weights(first, n, seed, "first") / first
    columns = subject_weights(second, n, seed, "second") / second
    draws = np.einsum("na,ab,nb->n", rows, wins, columns, optimize=True)
    return percentile_interval(float(wins.mean()), draws, min(first, second), level)


def nearer_to_training(train: Table, held_out: Table, *, seed: int, n: int = 1000, level: float = 0.95) -> Interval:
    """Share of scans that are nearer to a training subject than to any held-out one, at equal numbers of both.

    Halves of the smaller group's size are drawn from both groups without replacement, so that 0.5 is expected of a
    generator that has only learnt what people have in common; the spread over such half-samples is that of the
    estimate (McCarthy, "Pseudo-replication: half samples", 1969). The scans are resampled as well.

    Args:
        train: Likeness (scans, training subjects).
        held_out: Likeness (scans, held-out subjects), at least two.
        seed: Seed of the random draws.
        n: Draws.
        level: Confidence level.
    """
    rng = numpy_rng(seed, "membership", "halves")
    count = max(min(train.shape[1], held_out.shape[1]) // 2, 1)
    shares, draws = np.empty(n), np.empty(n)
    for number in range(n):
        inside = train[:, rng.permutation(train.shape[1])[:count]].max(axis=1)
        outside = held_out[:, rng.permutation(held_out.shape[1])[:count]].max(axis=1)
        nearer = (inside > outside) + 0.5 * (inside == outside)
        shares[number] = nearer.mean()
        draws[number] = nearer[rng.integers(len(nearer), size=len(nearer))].mean()
    return percentile_interval(float(shares.mean()), draws, min(train.shape[1], held_out.shape[1]), level)


def neighbour_ratio(distances: Table) -> NDArray[np.float64]:
    """Distance to the nearest subject over the distance to the second nearest, (rows,); small for copies.

    Args:
        distances: (rows, subjects), at least two subjects.
    """
    ordered = np.partition(distances, 1, axis=1)
    ratio: NDArray[np.float64] = ordered[:, 0] / np.maximum(ordered[:, 1], 1e-12)
    return ratio


def _means(table: Table, subjects: Sequence[str]) -> Table:
    """Mean over the rows of each subject."""
    names = np.array(subjects)
    return np.stack([table[names == name].mean(axis=0) for name in sorted(set(subjects))])
