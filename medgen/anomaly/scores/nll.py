"""The score ``nll``: how unlikely a model finds every voxel."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from medgen.anomaly.scores.base import Inputs, State, score, voxel_map
from medgen.models.base import HasVoxelLikelihood


@score("nll", order=30, needs=HasVoxelLikelihood)
def nll(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Negative log-likelihood of every voxel, exp(−s)(x − x̂)² + s up to constants, s the predicted log-variance.

    Source: Mao et al., "Abnormality detection in chest X-ray images using uncertainty prediction autoencoders" (AE-U),
    MICCAI 2020; Cai et al., "MedIAnomaly", 2024.
    """
    model = inputs.network(HasVoxelLikelihood)
    with torch.inference_mode():
        return np.concatenate([voxel_map(model.voxel_nll(part)) for part in inputs.chunks])
