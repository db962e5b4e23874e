"""Whether a candidate finds an anomaly: the one rule of all evaluations of findings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medgen.anomaly.findings.candidates import Candidates
from medgen.metrics.neighbourhood import TOUCHING
from medgen.volume import Volume

RULE = (
    "A finding hits an implant if its peak lies in the implant or touches it (one voxel), or if a voxel of its "
    "outlined part lies in it."
)


def hits_of(candidates: Candidates, heatmap: Volume, truth: NDArray[np.bool_], threshold: float) -> NDArray[np.bool_]:
    """Which candidates hit an anomaly, (m,); see :data:`RULE`.

    Args:
        candidates: Candidates of the heatmap, m of them.
        heatmap: One channel, NaN where not scored.
        truth: (i, j, k), the anomaly on the heatmap's grid.
        threshold: Heat (z) of findings.
    """
    found = np.zeros(len(candidates.heat), dtype=bool)
    if not truth.any():
        return found
    found |= ndimage.binary_dilation(truth, structure=TOUCHING)[tuple(candidates.voxels.T)]
    inside = candidates.parts(heatmap, threshold)[truth]
    found[np.unique(inside[inside > 0]).astype(np.int64) - 1] = True
    return found
