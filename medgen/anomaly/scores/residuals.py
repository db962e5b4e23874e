"""Channels of a generative model: voxel maps from reconstruction and likelihood."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from medgen.anomaly.scores.base import Inputs, State, score
from medgen.models.base import HasVoxelLikelihood, Reconstructs


@score("residual", needs=Reconstructs)
def residual(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Absolute reconstruction error |x − x̂| of the posterior-mean reconstruction, averaged over image channels.

    Source: Baur et al., "Deep autoencoding models for unsupervised anomaly segmentation in brain MR images", 2018.
    """
    return np.asarray((inputs.image - inputs.reconstruction).abs().mean(dim=1).cpu().numpy())


@score("squared", needs=Reconstructs)
def squared(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Squared reconstruction error (x − x̂)², averaged over image channels.

    Source: Zimmerer et al., "Unsupervised anomaly localization using variational auto-encoders", MICCAI 2019.
    """
    return np.asarray((inputs.image - inputs.reconstruction).square().mean(dim=1).cpu().numpy())


@score("nll", needs=HasVoxelLikelihood)
def nll(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Negative log-likelihood of every voxel, exp(−s)(x − x̂)² + s up to constants, s the predicted log-variance.

    Source: Mao et al., "Abnormality detection in chest X-ray images using uncertainty prediction autoencoders" (AE-U),
    MICCAI 2020; Cai et al., "MedIAnomaly", 2024.
    """
    with torch.inference_mode():
        return np.asarray(inputs.network(HasVoxelLikelihood).voxel_nll(inputs.image).float().mean(dim=1).cpu().numpy())
