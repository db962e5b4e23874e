"""The score ``kl_gradient``: voxels that the divergence of the code hangs on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medgen.anomaly.scores.base import Inputs, State, score, voxel_map
from medgen.models import losses
from medgen.models.base import HasDecoder
from medgen.transforms.masked_smoothing import smooth


def kl_input_gradient(model: Any, x: Tensor) -> Tensor:
    """∂KL(q(z|x) ‖ N(0, I)) / ∂x in nats per unit of intensity, (b, c, i, j, k), of a model with ``encode``."""
    with torch.enable_grad():
        image = x.detach().clone().requires_grad_()
        kl = losses.kl_standard_normal(*model.encode(image)).sum()
        (gradient,) = torch.autograd.grad(kl, image)
    return gradient.detach()


@score("kl_gradient", order=24, needs=HasDecoder)
def kl_gradient(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Smoothed |∂KL(q(z|x) ‖ N(0, I)) / ∂x| times |x − x̂|: a place the code finds unlikely and that is rebuilt badly.

    The gradient's size is averaged over channels and smoothed by one voxel in the foreground, for it is speckled. Of
    several models with a code, one of family ``cevae``, which is trained for this score, is taken first, else the
    first of the configuration; gradient and residual come from the same model.

    Source: Zimmerer et al., "Context-encoding variational autoencoder for unsupervised anomaly detection", 2018;
    Zimmerer et al., "Unsupervised anomaly localization using variational auto-encoders", MICCAI 2019.
    """
    inputs.network(HasDecoder)
    able = inputs.networks(HasDecoder)
    model = next((model for model in able if model.family == "cevae"), able[0])
    maps = []
    for x, mask in zip(inputs.image.split(1), inputs.mask, strict=True):
        slope = smooth(voxel_map(kl_input_gradient(model, x).abs())[0], mask, 1.0)
        with torch.inference_mode():
            residual = voxel_map((x - model.decode(model.encode(x)[0]).mean).abs())[0]
        maps.append(slope * residual)
    return np.stack(maps)
