"""A Gaussian of a few numbers given many: ridge regression, with the covariance of what it leaves on scans left out."""

from __future__ import annotations

import torch
from torch import Tensor


def gaussian_regression(given: Tensor, wanted: Tensor, ridge: float) -> tuple[Tensor, Tensor, Tensor]:
    """Fit y | x ~ N((x − m) A, F Fᵀ) to n scans; by the Gram matrix, so that x may have far more numbers than n.

    The covariance is that of residuals of scans left out, by the hat matrix: fitted ones are smaller than those of new
    scans.

    Args:
        given: x, (n, d) float64.
        wanted: y, (n, k) float64, of mean 0.
        ridge: Penalty on A in units of the mean square of the centred x of a scan.

    Returns:
        m (d,), A (d, k), and the Cholesky factor F (k, k).
    """
    n = len(given)
    mean = given.mean(0)
    centred = given - mean
    gram = centred @ centred.T
    penalised = gram + ridge * gram.diagonal().mean().clamp_min(1e-12) * torch.eye(n, dtype=gram.dtype)
    weights = torch.linalg.solve(penalised, wanted)
    hat = gram @ torch.linalg.inv(penalised)
    left = (wanted - hat @ wanted) / (1 - hat.diagonal())[:, None].clamp_min(0.1)
    cover = left.T @ left / n
    cover = cover + 1e-6 * torch.eye(cover.shape[1], dtype=cover.dtype)
    return mean, centred.T @ weights, torch.linalg.cholesky(cover)
