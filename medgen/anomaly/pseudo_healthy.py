"""The pseudo-healthy scan: what the models make of a scan, having seen healthy ones only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from medgen.anomaly.config import AnomalyConfig
from medgen.anomaly.ensemble import FoldMember, inputs_for
from medgen.models.base import Reconstructs
from medgen.preprocessing.prepared import PreparedScan
from medgen.preprocessing.recipe import Preprocess
from medgen.volume import Volume


def reconstruct(
    members: Sequence[FoldMember], prepared: PreparedScan, config: AnomalyConfig, bf16: bool = False
) -> NDArray[np.float32] | None:
    """The mean over folds of the reconstruction by each fold's first model that reconstructs.

    Source: Baur et al., "Deep autoencoding models for unsupervised anomaly segmentation in brain MR images", 2018.

    Args:
        members: One per fold.
        prepared: The scan.
        config: How scans become heatmaps.
        bf16: Whether the models compute in bfloat16.

    Returns:
        (c, i, j, k) on the model grid in scan intensities, NaN outside the foreground; None if no model of the folds
        reconstructs.
    """
    if not all(any(isinstance(model, Reconstructs) for model in member.models) for member in members):
        return None
    image, foreground = torch.from_numpy(prepared.image)[None], torch.from_numpy(prepared.foreground)[None, None]
    total = np.zeros(prepared.image.shape, dtype=np.float32)
    for member in members:
        inputs = inputs_for(member.models, image, foreground, config, bf16=bf16)
        total += inputs.reconstruction[0].cpu().numpy()
    return in_scan_intensities(total / np.float32(len(members)), prepared)


def in_scan_intensities(image: NDArray[np.float32], prepared: PreparedScan) -> NDArray[np.float32]:
    """Model intensities (c, i, j, k) as those of the scan, NaN outside the foreground: offset + gain · model.

    Model intensities are clipped; what was cut off, such as the brightest vessels, does not come back.
    """
    offset, gain = np.array(prepared.scale, dtype=np.float32).T[:, :, None, None, None]
    return np.where(prepared.foreground, offset + gain * image, np.float32(np.nan))


def as_seen(prepared: PreparedScan, preprocess: Preprocess) -> Volume:
    """The scan as the models see it, on its native grid: at their resolution, intensities clipped as theirs.

    Minus the pseudo-healthy scan it is what the models failed to rebuild. The native scan minus the pseudo-healthy one
    also holds all structure that is too fine for the model grid, such as every sulcus at a spacing of 5 mm.

    Returns:
        (c, i, j, k) float32 in scan intensities, NaN outside the model grid and the foreground.
    """
    return preprocess.restore(in_scan_intensities(prepared.image, prepared), prepared, order=1, fill=np.nan)
