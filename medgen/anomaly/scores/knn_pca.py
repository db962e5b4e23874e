"""The score ``knn_pca``: how far a scan is from its nearest training scans."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.scores.base import Inputs, State, score
from medgen.anomaly.scores.knn import fit_neighbours, nearest, project


@score("knn_pca", order=6, level="scan", fit=fit_neighbours, baseline=True)
def knn_pca(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Mean distance to the 3 nearest training scans in the space of ``pca``, every component scaled to variance 1.

    Source: Angiulli and Pizzuti, "Fast outlier detection in high dimensional spaces", PKDD 2002 (sum of the distances
    to the k nearest).
    """
    # The training scores have mean zero.
    scale = np.sqrt((state["scores"].astype(np.float64) ** 2).sum(axis=0) / max(1, len(state["scores"]) - 1))
    distances, _ = nearest(project(inputs, state) / scale, state["scores"] / scale)
    return np.asarray(distances.mean(axis=1), dtype=np.float32)
