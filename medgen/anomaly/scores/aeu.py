"""The score ``aeu``: the residual in units of a model's own uncertainty."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from medgen.anomaly.scores.base import Inputs, State, score, voxel_map
from medgen.models.base import HasDecoder


@score("aeu", order=22, needs=HasDecoder)
def aeu(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Squared error over predicted variance, exp(−s)(x − x̂)², s the decoder's log-variance; mean over channels.

    Without the log term of ``nll``, which raises every place that is hard to predict.

    Source: Mao et al., "Abnormality detection in chest X-ray images using uncertainty prediction autoencoders", MICCAI
    2020; Cai et al., "MedIAnomaly", 2024.
    """
    model = inputs.network(HasDecoder)
    maps = []
    with torch.inference_mode():
        for x in inputs.image.split(1):
            decoded = model.decode(model.encode(x)[0])
            maps.append(voxel_map(torch.exp(-decoded.logvar) * (x - decoded.mean).square()))
    return np.concatenate(maps)
