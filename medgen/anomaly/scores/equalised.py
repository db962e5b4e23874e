"""The score ``equalised``: how bright a voxel is among the voxels of its own scan."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from medgen.anomaly.scores.base import Inputs, State, score


@score("equalised", order=9, baseline=True)
def equalised(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Histogram-equalised intensity, in (0, 1): the share of the scan's foreground that is darker, mean over channels.

    What lesions of a FLAIR scan are found by without any model: bright is anomalous, dark is not. Equal intensities
    share their middle rank. 0 outside the foreground.

    Source: Meissen et al., "Challenging current semi-supervised anomaly segmentation methods for brain MRI", 2021.
    """
    result = np.zeros(inputs.voxels.shape, dtype=np.float32)
    for scan, mask, heat in zip(inputs.voxels, inputs.mask, result, strict=True):
        for channel, own in zip(scan, heat, strict=True):
            own[mask] = (rankdata(channel[mask]) - 0.5) / max(int(mask.sum()), 1)
    return np.asarray(result.mean(axis=1))
