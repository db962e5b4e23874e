"""Least squares at every voxel, shrunk by what the neighbourhood says of the size of the effect (empirical Bayes).

At a voxel let G = Σ (x − x̄)(x − x̄)ᵀ, c = Σ (x − x̄) s and σ² the residual variance. Least squares b = G⁻¹c has the
sampling variance σ² h_j in column j, so b_j²/σ² − h_j is an unbiased, noisy estimate of the squared effect; averaged
over the neighbourhood with the weights 1/h_j and cut off at 0 it is τ_j², the prior variance of the effect there in
units of σ² (Efron and Morris, JASA 1973; locally, as in the Wiener filter of Lee, IEEE PAMI 1980). The slopes are the
posterior means under N(0, σ² diag τ²), which is ridge regression with a penalty of its own for each voxel and column:

    β = T (T G T + 1)⁻¹ T c,   T = diag(τ).

Where no effect rises above the noise τ is 0 and so is the slope. Nothing is searched, and all of it follows from sums.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.normative.moments import Moments
from medgen.transforms.masked_smoothing import Smoother

# Of the number of scans: keeps the inverse finite where x does not vary, and changes nothing elsewhere.
_FINITE = 1e-3
# The neighbourhood that tells how large effects are is wider than what slopes are blurred by.
_WIDER = 2.0


@dataclass(frozen=True, eq=False)
class Regression:
    """Score on person at every known voxel, unblurred; v known voxels.

    Attributes:
        intercept: (v,) score of the cohort's average person (x = 0).
        slopes: (d, v) change of the score per unit of each column.
        spread: (v,) sum of squares about the fit.
        freedom: (v,) degrees of freedom left for it, at least 0.
        uncertainty: (d, d) posterior covariance of the slopes over σ², averaged over voxels.
    """

    intercept: NDArray[np.float64]
    slopes: NDArray[np.float64]
    spread: NDArray[np.float64]
    freedom: NDArray[np.float64]
    uncertainty: NDArray[np.float64]


def regress(moments: Moments, known: NDArray[np.bool_], blur: float, prior: float) -> Regression:
    """Fit every voxel that a scan covers.

    Args:
        moments: Sums over the healthy scans.
        known: (i, j, k), voxels with at least one scan.
        blur: Standard deviation in voxels of the blur of what is fitted; the neighbourhood is twice as wide.
        prior: How many scans the average variance counts for, see :mod:`medgen.anomaly.normative.maps`.
    """
    count = moments.count[known]
    mean = moments.totals[0][known] / count
    # Sums of squares about the mean; rounding can take them just below zero.
    total = np.maximum(moments.square[known] - count * mean**2, 0)
    d = moments.columns
    if d == 0:
        nothing = np.zeros((0, 0))
        return Regression(mean, np.zeros((0, mean.size)), total, np.maximum(count - 1, 0), nothing)
    centre, gram, cross = _centred(moments, known)
    inverse = np.asarray(np.linalg.inv(gram + (_FINITE * count)[:, None, None] * np.eye(d)), dtype=np.float64)
    least = np.asarray(np.einsum("vjk,vk->vj", inverse, cross), dtype=np.float64)
    variance = _variance(np.maximum(total - (least * cross).sum(1), 0), np.maximum(count - 1 - d, 0), prior)
    root: NDArray[np.float64] = np.sqrt(_effects(least, inverse, gram, variance, known, blur))
    inner = np.linalg.inv(root[:, :, None] * gram * root[:, None, :] + np.eye(d))
    posterior = root[:, :, None] * inner * root[:, None, :]
    slopes = np.einsum("vjk,vk->vj", posterior, cross)
    spread = total - 2 * (slopes * cross).sum(1) + np.einsum("vj,vjk,vk->v", slopes, gram, slopes)
    # With the hat matrix H of the slopes, the residuals' expected sum of squares is σ² (n − 1 − tr(2H − H²)).
    used = d - np.einsum("vjk,vkj->v", inner, inner)
    return Regression(
        intercept=mean - (centre * slopes).sum(1),
        slopes=slopes.T,
        spread=np.maximum(spread, 0),
        freedom=np.maximum(count - 1 - used, 0),
        uncertainty=posterior.mean(0),
    )


def _centred(
    moments: Moments, known: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean of x (v, d), G (v, d, d) and c (v, d) at the known voxels."""
    d = moments.columns
    first, second = np.triu_indices(d + 1)
    full = np.empty((int(known.sum()), d + 1, d + 1))
    for number, (a, b) in enumerate(zip(first, second, strict=True)):
        full[:, a, b] = full[:, b, a] = moments.products[number][known]
    totals = moments.totals[:, known].T
    count = full[:, 0, 0]
    centre = full[:, 0, 1:] / count[:, None]
    gram = full[:, 1:, 1:] - count[:, None, None] * centre[:, :, None] * centre[:, None, :]
    cross = totals[:, 1:] - centre * totals[:, :1]
    return centre, gram, cross


def _variance(spread: NDArray[np.float64], freedom: NDArray[np.float64], prior: float) -> NDArray[np.float64]:
    """Residual variance at every voxel, shrunk to the average; above 0 unless nothing varies at all."""
    average = spread.sum() / max(freedom.sum(), 1.0)
    # A prior of 0 must not make a voxel that happens to fit exactly look certain.
    weight = max(prior, 1.0)
    return np.asarray((spread + weight * average) / (freedom + weight) + 1e-6 * average + 1e-30)


def _effects(
    least: NDArray[np.float64],
    inverse: NDArray[np.float64],
    gram: NDArray[np.float64],
    variance: NDArray[np.float64],
    known: NDArray[np.bool_],
    blur: float,
) -> NDArray[np.float64]:
    """τ² of every voxel and column, (v, d): the squared effect in its neighbourhood over σ², at least 0."""
    sampling = np.einsum("vjk,vkl,vlj->vj", inverse, gram, inverse)
    weights = 1 / np.einsum("vjj->vj", inverse)
    excess = weights * (least**2 / variance[:, None] - sampling)
    smoother = Smoother.of(known, _WIDER * blur)
    result = np.empty_like(least)
    for column in range(least.shape[1]):
        above, weight = on_grid(excess[:, column], known), on_grid(weights[:, column], known)
        result[:, column] = smoother(above)[known] / np.maximum(smoother(weight)[known], 1e-12)
    return np.maximum(result, 0)


def on_grid(values: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Values of the known voxels (v,) on the grid (i, j, k), 0 elsewhere."""
    grid = np.zeros(known.shape)
    grid[known] = values
    return grid
