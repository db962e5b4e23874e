"""The score ``code_surprise``: cubes of a scan that do not follow from the cubes before them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from medgen.anomaly.scores.base import Inputs, State, score, voxel_map
from medgen.models.base import HasCodes


@score("code_surprise", order=31, needs=HasCodes)
def code_surprise(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """−log p(code | codes before it) in nats, at the voxels: what the prior of the codes finds unlikely.

    As coarse as the grid of codes. A code is judged by those before it alone, in the order in which the grid lies in
    memory; what is strange and yet nearest to a common code is not seen here, but by ``residual`` and ``nll``.

    Source: Marimont and Tarroni, "Anomaly detection through latent space restoration using vector-quantized variational
    autoencoders", ISBI 2021; Pinaya et al., "Unsupervised brain imaging 3D anomaly detection and segmentation with
    transformers", Medical Image Analysis 2022.
    """
    model = inputs.network(HasCodes)
    with torch.inference_mode():
        return np.concatenate([voxel_map(model.code_surprise(x)) for x in inputs.image.split(1)])
