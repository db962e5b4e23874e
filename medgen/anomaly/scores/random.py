"""The score ``random``: a control that knows nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.scores.base import Inputs, State, score
from medgen.seeds import numpy_rng


@score("random", order=12, baseline=True, local=False)
def random(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Uniform noise, the same for every scan: the control that must score at chance.

    Source: Saito and Rehmsmeier, "The precision-recall plot is more informative than the ROC plot", PLoS ONE 2015 (the
    average precision of a random score is the prevalence).
    """
    noise = numpy_rng(0, "score", "random").random(inputs.mask.shape[1:], dtype=np.float32)
    return np.broadcast_to(noise, inputs.mask.shape)
