"""Maximum mean discrepancy: how far apart two samples are, by a kernel, without a model of either.

MMD²(P, Q) = E k(x, x') + E k(y, y') − 2 E k(x, y) (Gretton et al., "A kernel two-sample test", JMLR 2012). With the
cubic polynomial kernel on features of a network it is the kernel inception distance, KID (Bińkowski et al.,
"Demystifying MMD GANs", ICLR 2018), here with features of any network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from medgen.errors import DataError

Array = NDArray[np.float64]
Kernel = Callable[[Array, Array], Array]


def polynomial_kernel(x: Array, y: Array) -> Array:
    """(x·y / d + 1)³, the kernel of KID (Bińkowski 2018, equation 4).

    Args:
        x: (n, d).
        y: (m, d).

    Returns:
        (n, m).

    >>> polynomial_kernel(np.array([[1.0, 1.0]]), np.array([[1.0, 1.0], [0.0, 0.0]]))
    array([[8., 1.]])
    """
    kernel: Array = (x @ y.T / x.shape[1] + 1) ** 3
    return kernel


def gaussian_kernel(bandwidth: float) -> Kernel:
    """exp(−‖x − y‖² / (2 σ²)) with σ = ``bandwidth``, as a kernel of arrays (n, d) and (m, d).

    Raises:
        DataError: If the bandwidth is not above 0.
    """
    if not bandwidth > 0:
        raise DataError(f"a Gaussian kernel needs a bandwidth above 0, found {bandwidth:g}: are all samples equal?")

    def kernel(x: Array, y: Array) -> Array:
        return np.exp(-squared_distances(x, y) / (2 * bandwidth**2))

    return kernel


def squared_distances(x: Array, y: Array) -> Array:
    """Squared Euclidean distances, (n, m), of rows of x (n, d) and y (m, d)."""
    from scipy.spatial.distance import cdist

    distances: Array = cdist(x, y, "sqeuclidean")
    return distances


def median_distance(x: Array, groups: Sequence[str]) -> float:
    """Median distance between samples (n, d) of different groups: the usual bandwidth (Gretton 2012, section 8).

    Raises:
        DataError: If there are not two groups.
    """
    apart = different(groups)
    if not apart.any():
        raise DataError("a bandwidth needs samples of two subjects, found one")
    return float(np.median(np.sqrt(squared_distances(x, x)[apart])))


def different(groups: Sequence[str]) -> NDArray[np.bool_]:
    """Which pairs of samples are of different groups, (n, n); the diagonal is False."""
    names = np.asarray(groups, dtype=object)
    apart: NDArray[np.bool_] = names[:, None] != names[None, :]
    return apart


def mmd2(x: Array, y: Array, kernel: Kernel, x_groups: Sequence[str], y_groups: Sequence[str]) -> float:
    """Unbiased estimate of MMD² (Gretton 2012, lemma 6), which is 0 on average for equal distributions.

    A mean over pairs stands for each expectation over *independent* draws. Two scans of one subject are not
    independent, so a pair within a sample counts only if its groups differ; with one scan per group this is the
    estimate of the paper.

    Args:
        x: (n, d).
        y: (m, d).
        kernel: See :func:`polynomial_kernel` and :func:`gaussian_kernel`.
        x_groups: Subject of each row of ``x``.
        y_groups: Subject of each row of ``y``; different from those of ``x``.

    Returns:
        The estimate; it can be below 0. NaN if a sample has no two groups.
    """
    joined = kernel(np.concatenate([x, y]), np.concatenate([x, y]))
    rows = np.arange(len(x) + len(y)) < len(x)
    return float(mmd2_of_subsets(joined, [*x_groups, *y_groups], rows[None], ~rows[None])[0])


def mmd2_of_subsets(kernel: Array, groups: Sequence[str], first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Array:
    """:func:`mmd2` for many pairs of subsets of one kernel matrix.

    Args:
        kernel: (n, n), symmetric.
        groups: Subject of each row.
        first: Which rows are in the first sample of each pair, (pairs, n).
        second: Which are in the second, (pairs, n).

    Returns:
        (pairs,).
    """
    apart = different(groups).astype(np.float64)
    a, b = first.astype(np.float64), second.astype(np.float64)
    allowed = kernel * apart

    def mean(one: Array, matrix: Array, weights: Array, other: Array) -> Array:
        counts = ((one @ weights) * other).sum(axis=1)
        sums = ((one @ matrix) * other).sum(axis=1)
        # Without two groups there is no independent pair, and nothing can be said.
        return np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)

    within = mean(a, allowed, apart, a) + mean(b, allowed, apart, b)
    return within - 2 * mean(a, kernel, np.ones_like(kernel), b)
