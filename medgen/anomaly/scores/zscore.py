"""The score ``zscore``: how far an intensity is from its mean at that place."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.scores.base import Inputs, State, score


def _fit_moments(training: Inputs) -> dict[str, NDArray[Any]]:
    """Mean and standard deviation at every voxel over the scans that show the patient there, (c, i, j, k)."""
    count = np.maximum(training.mask.sum(axis=0, dtype=np.float32), 1)
    mean = training.voxels.sum(axis=0) / count
    square = ((training.voxels - mean) ** 2 * training.mask[:, None]).sum(axis=0)
    pooled = float(square.sum() / max(1, training.mask.sum() * training.voxels.shape[1]))
    # Ten scans' worth of the average variance: at the rim of the foreground few scans say what is usual.
    sd = np.sqrt((square + 10 * pooled) / (count + 10))
    return {"mean": mean.astype(np.float32), "sd": np.maximum(sd, 1e-6).astype(np.float32)}


@score("zscore", order=1, fit=_fit_moments, baseline=True)
def zscore(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Voxel-wise z: |x − mean| / sd over the training scans at that place.

    Source: Saase et al., "Simple statistical methods for unsupervised brain anomaly detection on MRI are competitive to
    deep learning methods", 2020 (voxel-wise Mahalanobis distance, here per channel).
    """
    return np.asarray((np.abs(inputs.voxels - state["mean"]) / state["sd"]).mean(axis=1))
