"""The score ``knn``: the difference from the most similar training scans."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.scores.base import Inputs, State, score
from medgen.anomaly.scores.pca import fit_pca

_NEIGHBOURS = 3


def fit_neighbours(training: Inputs) -> dict[str, NDArray[Any]]:
    """The principal components, and the training scans' scores on them, (n, components): no scan itself is kept."""
    state = fit_pca(training)
    return {**state, "scores": project(training, state)}


def project(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Scores (b, components) on the principal components of :func:`fit_pca`."""
    data = inputs.voxels[:, :, state["region"]].reshape(len(inputs), -1)
    return np.asarray((data - state["mean"]) @ state["components"].T)


def nearest(points: NDArray[Any], training: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Distances and rows (b, k) of the k training points (n, d) that are nearest to each of (b, d), nearest first."""
    distances = np.linalg.norm(points[:, None].astype(np.float64) - training[None], axis=2)
    rows = np.argsort(distances, axis=1, kind="stable")[:, :_NEIGHBOURS]
    return np.take_along_axis(distances, rows, axis=1), rows


@score("knn", order=5, fit=fit_neighbours, baseline=True)
def knn(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Residual |x − x̄| to the mean of the 3 training scans that are nearest in the space of ``pca``.

    The neighbours are seen through their 12 principal components. Nothing of the scan itself enters x̄, so unlike the
    projection of ``pca`` it cannot follow an anomaly.

    Source: Cohen and Hoshen, "Sub-image anomaly detection with deep pyramid correspondences", 2020 (here with principal
    components for features, and intensities compared).
    """
    _, rows = nearest(project(inputs, state), state["scores"])
    expected = state["mean"] + state["scores"][rows].mean(axis=1) @ state["components"]
    region = state["region"]
    result = np.zeros(inputs.voxels.shape, dtype=np.float32)
    residual = np.abs(inputs.voxels[:, :, region].reshape(len(inputs), -1) - expected)
    result[:, :, region] = residual.reshape(len(inputs), inputs.voxels.shape[1], -1)
    return np.asarray(result.mean(axis=1))
