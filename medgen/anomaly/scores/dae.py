"""The score ``dae``: what a denoising model takes away."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from medgen.anomaly.scores.base import Inputs, State, score, voxel_map
from medgen.models.base import Denoises


@score("dae", order=23, needs=Denoises)
def dae(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Absolute difference |x − denoised x| of a denoising autoencoder, averaged over image channels.

    Source: Kascenas et al., "Denoising autoencoders for unsupervised anomaly detection in brain MRI", MIDL 2022.
    """
    model = inputs.network(Denoises)
    with torch.inference_mode():
        return np.concatenate([voxel_map((x - model.denoise(x)).abs()) for x in inputs.image.split(1)])
