"""The score ``texture``: how unusual the finest detail around a voxel is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.scores.base import Inputs, State, score
from medgen.anomaly.scores.descriptors import NAMES, standardised_scans


@score("texture", order=19, shares="descriptors")
def texture(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """|z| of the energy of the finest detail around a voxel: too sharp, too noisy, or blurred for this place.

    Source: Laws, "Rapid texture identification", SPIE 1980 (texture energy); Defard et al., "PaDiM", 2021 (z).
    """
    rows = [row for row in range(len(state["mean"])) if NAMES[row % len(NAMES)] in {"fine_1", "fine_2"}]
    result = np.zeros(inputs.mask.shape, dtype=np.float32)
    for target, (z, both) in zip(result, standardised_scans(inputs, state), strict=True):
        target[both] = np.sqrt(np.mean(z[rows] * z[rows], axis=0))
    return result
