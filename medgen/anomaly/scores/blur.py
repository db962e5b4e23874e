"""The score ``blur``: what a blurred copy of the scan lacks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.scores.base import Inputs, State, score
from medgen.transforms.masked_smoothing import smooth

_SIGMAS = (1.0, 2.0, 4.0)


@score("blur", order=8, baseline=True)
def blur(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """|x − G_σ(x)| averaged over σ = 1, 2, 4 voxels: how much a place differs from its surroundings.

    Source: Marr and Hildreth, "Theory of edge detection", Proceedings of the Royal Society B 1980 (difference of
    Gaussians).
    """
    result = np.zeros(inputs.mask.shape, dtype=np.float32)
    for target, channels, mask in zip(result, inputs.voxels, inputs.mask, strict=True):
        scales = [np.abs(channel - smooth(channel, mask, sigma)) for channel in channels for sigma in _SIGMAS]
        np.mean(scales, axis=0, out=target)
    return result
