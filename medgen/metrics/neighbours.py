"""Density and coverage: does a sample lie where the real one lies, and does it reach all of it?

Naeem et al., "Reliable fidelity and diversity metrics for generative models", ICML 2020. Around every real point lies a
ball that reaches to its k-th nearest real neighbour. Density counts in how many balls a synthetic point lies (1 on
average for equal distributions, less for points outside of the real ones, above 1 for points in the densest places
only); coverage is the share of balls that hold a synthetic point (near 1 for equal distributions, low for a collapsed
generator).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medgen.errors import DataError
from medgen.metrics.mmd import different

Array = NDArray[np.float64]


class DensityCoverage(NamedTuple):
    """Density (0 or more) and coverage (0 to 1)."""

    density: float
    coverage: float


def density_coverage(within: Array, across: Array, groups: Sequence[str], k: int = 5) -> DensityCoverage:
    """Density and coverage (Naeem 2020, equations 4 and 5).

    The neighbours that give a ball its size are scans of *other* subjects: two scans of one person can be so near to
    each other that nobody else would fit in.

    Args:
        within: Distances between the real samples, (n, n).
        across: Distances of real (rows) and synthetic (columns) samples, (n, m).
        groups: Subject of each real sample.
        k: Which neighbour.

    Raises:
        DataError: If there is no synthetic sample, or a real one has fewer than k neighbours of other subjects.
    """
    apart = different(groups)
    fewest = int(apart.sum(axis=1).min()) if len(apart) else 0
    if fewest < k or k < 1 or across.shape[1] == 0:
        raise DataError(
            f"density and coverage need {k} real scans of other subjects around each one and a synthetic scan, "
            f"found {fewest} and {across.shape[1]}"
        )
    radii = np.sort(np.where(apart, within, np.inf), axis=1)[:, k - 1]
    inside = across <= radii[:, None]
    return DensityCoverage(float(inside.sum() / (k * across.shape[1])), float(inside.any(axis=1).mean()))


def fitting_k(k: int, real: int) -> int:
    """``k``, or a quarter of the real samples (at least 2) where these are few.

    A ball that reaches half of the samples would hold the middle of the cloud, and a generator that makes one thing
    only would seem to cover all. With k = 2, equal distributions still have a coverage above 0.75.

    >>> fitting_k(5, 40), fitting_k(5, 12), fitting_k(5, 6)
    (5, 3, 2)
    """
    return min(k, max(2, real // 4))
