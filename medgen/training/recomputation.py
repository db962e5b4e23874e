"""Whether a training keeps the insides of residual blocks for the backward pass or computes them again."""

from __future__ import annotations

import math

from medgen.models.base import ScanModel
from medgen.models.networks.blocks import Recomputed
from medgen.training.config import TrainingConfig

# Two scans of 128³. With the default widths `flow` keeps 510 bytes per voxel, and 260 where blocks are computed again.
_MANY_VOXELS = 2 * 128**3


def set_recomputation(model: ScanModel, config: TrainingConfig) -> bool:
    """Tell the blocks of a model what ``training.checkpoint_activations`` means for its scans, and return it.

    A choice of the training and no part of the model: an artifact does not know of it.
    """
    voxels = config.batch_size * math.prod(model.settings.shape)
    chosen = config.checkpoint_activations
    again = voxels > _MANY_VOXELS if chosen == "auto" else chosen
    for module in model.modules():
        if isinstance(module, Recomputed):
            module.recompute = again
    return again
