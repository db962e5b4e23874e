"""The score ``squared``: the squared error of a reconstruction."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.scores.base import Inputs, State, score
from medgen.models.base import Reconstructs


@score("squared", order=29, needs=Reconstructs)
def squared(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Squared reconstruction error (x − x̂)², averaged over image channels.

    Source: Zimmerer et al., "Unsupervised anomaly localization using variational auto-encoders", MICCAI 2019.
    """
    return np.asarray((inputs.image - inputs.reconstruction).square().mean(dim=1).cpu().numpy())
