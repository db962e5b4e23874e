"""The score ``flip``: the difference between left and right."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.scores.base import Inputs, State, score


@score("flip", order=10, baseline=True)
def flip(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Left-right asymmetry: |x − mirror image of x| across the middle of the first (right-left) axis.

    Source: Raina et al., "Exploiting bilateral symmetry in brain lesion segmentation", 2019.
    """
    return np.asarray(np.abs(inputs.voxels - inputs.voxels[:, :, ::-1]).mean(axis=1))
