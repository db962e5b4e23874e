"""The score ``robust_z``: how far an intensity is from its median at that place."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.scores.base import Inputs, State, score
from medgen.metrics.robust import robust_spread


def _fit_robust(training: Inputs) -> dict[str, NDArray[Any]]:
    """Median and scaled median absolute deviation at every voxel, (c, i, j, k); background counts as 0."""
    median = np.median(training.voxels, axis=0)
    mad = robust_spread(training.voxels, axis=0)
    floor = np.median(mad[mad > 0]) / 2 if (mad > 0).any() else 1e-6
    return {"median": median.astype(np.float32), "mad": np.maximum(mad, floor).astype(np.float32)}


@score("robust_z", order=3, fit=_fit_robust, baseline=True)
def robust_z(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Voxel-wise robust z: |x − median| / (1.4826 · MAD).

    Source: Leys et al., "Detecting outliers: do not use standard deviation around the mean, use absolute deviation
    around the median", Journal of Experimental Social Psychology 2013.
    """
    return np.asarray((np.abs(inputs.voxels - state["median"]) / state["mad"]).mean(axis=1))
