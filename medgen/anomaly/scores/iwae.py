"""The score ``iwae``: how unlikely a model finds a scan."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from medgen.anomaly.scores.base import Inputs, State, score
from medgen.models.base import HasLikelihood
from medgen.seeds import torch_rng


@score("iwae", order=13, level="scan", needs=HasLikelihood)
def iwae(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Negative importance-weighted bound on log p(x), in nats per foreground voxel.

    The same noise is used for every scan, so that a score does not depend on which other scans are scored with it.

    Source: Burda et al., "Importance weighted autoencoders", ICLR 2016, eq. 8.
    """
    samples = int(inputs.settings.get("likelihood_samples", 64))
    network = inputs.network(HasLikelihood)
    result = []
    for image, mask in zip(inputs.image, inputs.foreground, strict=True):
        generator = torch_rng(0, "iwae", device=str(image.device))
        with torch.inference_mode():
            value = network.log_likelihood(image[None], mask=mask[None], samples=samples, generator=generator)
        result.append(-float(value) / max(1, int(mask.sum())))
    return np.array(result, dtype=np.float32)
