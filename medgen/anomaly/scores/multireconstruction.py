"""The score ``multireconstruction``: the distance from many reconstructions in units of their spread."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medgen.anomaly.scores.base import Inputs, State, score, voxel_map
from medgen.models.base import HasDecoder
from medgen.seeds import torch_rng

# Most reconstructions per model in an ensemble: the variance of 16 is known to about a third.
_MOST_SAMPLES = 16


def _fit_multireconstruction(training: Inputs) -> dict[str, NDArray[Any]]:
    """Mean squared residual of the training scans in the foreground, per channel: the average model's."""
    models = training.networks(HasDecoder)
    total = torch.zeros(training.image.shape[1], dtype=torch.float64, device=training.image.device)
    with torch.inference_mode():
        for x, mask in zip(training.image.split(1), training.foreground.split(1), strict=True):
            guess = torch.stack([model.decode(model.encode(x)[0]).mean for model in models]).mean(0)
            total += ((x - guess).square() * mask).double().sum((0, 2, 3, 4))
    return {"variance": (total / training.foreground.sum().clamp_min(1)).clamp_min(1e-8).cpu().numpy()}


@score("multireconstruction", order=26, needs=HasDecoder, fit=_fit_multireconstruction, costly=True)
def multireconstruction(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Squared distance from the mean of many reconstructions over their variance, (x − x̄)² / (σ_K² + σ₀²).

    Reconstructions decode ``likelihood_samples`` (at most 16) draws of q(z | x) of every model with a decoder, so that
    samples and models form one ensemble; σ_K² is their variance at the voxel, σ₀² the training scans' mean squared
    residual. The same noise is used for every scan. Mean over channels.

    Source: Behrendt et al., "Leveraging the Mahalanobis distance to enhance unsupervised brain MRI anomaly detection",
    MICCAI 2024, here with the diagonal of the covariance.
    """
    inputs.network(HasDecoder)
    count = min(int(inputs.settings.get("likelihood_samples", _MOST_SAMPLES)), _MOST_SAMPLES)
    floor = torch.from_numpy(state["variance"]).to(inputs.image).view(-1, 1, 1, 1)
    maps = []
    with torch.inference_mode():
        for x in inputs.image.split(1):
            number, mean, spread = 0, torch.zeros_like(x), torch.zeros_like(x)
            for place, model in enumerate(inputs.networks(HasDecoder)):
                centre, logvar = model.encode(x)
                noise = torch.randn(count, centre.shape[1], generator=torch_rng(0, "multireconstruction", place))
                for draw in noise.to(centre).split(1):
                    guess = model.decode(centre + torch.exp(0.5 * logvar) * draw).mean
                    # Welford's update: no ensemble of volumes in memory, and no difference of large sums.
                    number += 1
                    step = guess - mean
                    mean = mean + step / number
                    spread = spread + step * (guess - mean)
            maps.append(voxel_map((x - mean).square() / (spread / number + floor)))
    return np.concatenate(maps)
