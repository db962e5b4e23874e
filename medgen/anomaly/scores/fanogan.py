"""The score ``fanogan``: a residual of intensities and of a discriminator's features."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from medgen.anomaly.scores.base import Inputs, State, score, voxel_map
from medgen.models.base import Discriminates

# Weight of the discriminator's features beside the image residual: 1 as published.
_KAPPA = 1.0


@score("fanogan", order=27, needs=Discriminates, float32=True)
def fanogan(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """|x − G(E(x))|² + κ |f_D(x) − f_D(G(E(x)))|², f_D the features of a discriminator; κ = 1 as published.

    Both squares are averaged over their channels, and that of the features over layers.

    Source: Schlegl et al., "f-AnoGAN: fast unsupervised anomaly detection with generative adversarial networks",
    Medical Image Analysis 2019.

    There it is one number per image; here the features stay where they are.
    """
    model = inputs.network(Discriminates)
    maps = []
    with torch.inference_mode():
        for x in inputs.image.split(1):
            guess = model.reconstruct(x)
            image = (x - guess).square().mean(dim=1, keepdim=True)
            maps.append(voxel_map(image + _KAPPA * model.discriminator_distance(x, guess)))
    return np.concatenate(maps)
