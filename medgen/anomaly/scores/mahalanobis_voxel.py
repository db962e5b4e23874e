"""The score ``mahalanobis_voxel``: the same for all channels of a scan together."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.scores.base import Inputs, State, score


def _fit_covariance(training: Inputs) -> dict[str, NDArray[Any]]:
    """Mean (c, i, j, k) and a whitening matrix (i, j, k, c, c) at every voxel.

    The whitening is the inverse Cholesky factor of the covariance over the scans that show the patient there, shrunk
    to the covariance pooled over all places with the weight of ten scans, as in the score ``zscore``.
    """
    count = np.maximum(training.mask.sum(axis=0, dtype=np.float32), 1)
    mean = training.voxels.sum(axis=0) / count
    offset = (training.voxels - mean) * training.mask[:, None]
    products = np.einsum("ncxyz,ndxyz->xyzcd", offset, offset, dtype=np.float64)
    pooled = products.sum(axis=(0, 1, 2)) / max(1, training.mask.sum())
    # Channels that are copies of each other have a singular covariance.
    pooled += np.eye(len(pooled)) * (1e-6 * np.trace(pooled) / len(pooled) + 1e-12)
    covariance = (products + 10 * pooled) / (count[..., None, None] + 10)
    whitening = np.linalg.inv(np.linalg.cholesky(covariance))
    return {"mean": mean.astype(np.float32), "whitening": whitening.astype(np.float32)}


@score("mahalanobis_voxel", order=2, fit=_fit_covariance, baseline=True)
def mahalanobis_voxel(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Mahalanobis distance √((x − mean)ᵀ Σ⁻¹ (x − mean)) over the image channels at every voxel.

    It sees what ``zscore`` cannot: intensities that are each usual, but not together. With one channel both are equal.

    Source: Saase et al., "Simple statistical methods for unsupervised brain anomaly detection on MRI are competitive to
    deep learning methods", 2020.
    """
    offset = inputs.voxels - state["mean"]
    white = np.einsum("xyzcd,bdxyz->bcxyz", state["whitening"], offset)
    return np.asarray(np.sqrt((white**2).sum(axis=1)))
