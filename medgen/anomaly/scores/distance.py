"""The score ``distance``: a control that knows nothing but the place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.scores.base import Inputs, State, score


@score("distance", order=11, baseline=True, local=False)
def distance(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Closeness to the centre of the foreground, in voxels below the farthest one: a control that sees no intensity.

    Source: Meissen et al., "On the pitfalls of using the residual error as anomaly score", MIDL 2022 (trivial
    predictors).
    """
    result = np.zeros(inputs.mask.shape, dtype=np.float32)
    for target, mask in zip(result, inputs.mask, strict=True):
        places = np.argwhere(mask)
        length = np.linalg.norm(places - places.mean(axis=0), axis=1)
        target[mask] = length.max() - length
    return result
