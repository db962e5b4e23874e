"""The score ``pca``: what a few principal components of the training scans cannot make."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.scores.base import Inputs, State, score

_COMPONENTS = 12


def fit_pca(training: Inputs) -> dict[str, NDArray[Any]]:
    """Mean and leading components of the training scans inside the union of their foregrounds.

    With n scans and v ≫ n voxels the components come from the n × n Gram matrix X Xᵀ = U S² Uᵀ as V = Xᵀ U / S.
    """
    region = training.mask.any(axis=0)
    data = training.voxels[:, :, region].reshape(len(training), -1)
    mean = data.mean(axis=0)
    data = data - mean
    eigenvalues, vectors = np.linalg.eigh(data.astype(np.float64) @ data.T.astype(np.float64))
    order = np.argsort(eigenvalues)[::-1][: min(_COMPONENTS, max(1, len(training) - 2))]
    order = order[eigenvalues[order] > 1e-9 * max(float(eigenvalues.max()), 1e-12)]
    components = (vectors[:, order].T / np.sqrt(eigenvalues[order])[:, None]).astype(np.float32) @ data
    return {"region": region, "mean": mean.astype(np.float32), "components": components.astype(np.float32)}


@score("pca", order=4, fit=fit_pca, baseline=True)
def pca(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Residual |x − x̂| of the projection on the 12 leading principal components of the training scans.

    Source: Turk and Pentland, "Eigenfaces for recognition", Journal of Cognitive Neuroscience 1991 (distance from the
    space of eigenvectors, and the Gram trick).
    """
    region = state["region"]
    data = inputs.voxels[:, :, region].reshape(len(inputs), -1) - state["mean"]
    residual = data - (data @ state["components"].T) @ state["components"]
    result = np.zeros(inputs.voxels.shape, dtype=np.float32)
    result[:, :, region] = np.abs(residual).reshape(len(inputs), inputs.voxels.shape[1], -1)
    return np.asarray(result.mean(axis=1))
