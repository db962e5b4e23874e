"""The score ``residual``: the absolute error of a reconstruction."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.scores.base import Inputs, State, score
from medgen.models.base import Reconstructs


@score("residual", order=28, needs=Reconstructs)
def residual(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Absolute reconstruction error |x − x̂| of the posterior-mean reconstruction, averaged over image channels.

    Source: Baur et al., "Deep autoencoding models for unsupervised anomaly segmentation in brain MR images", 2018.
    """
    return np.asarray((inputs.image - inputs.reconstruction).abs().mean(dim=1).cpu().numpy())
