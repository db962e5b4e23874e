"""Whether a training keeps the insides of residual blocks for the backward pass or computes them again."""

from __future__ import annotations

import math
from collections.abc import Sequence

from medgen.models.base import ScanModel
from medgen.models.networks.blocks import Recomputed
from medgen.training.config import TrainingConfig

# Two scans of 128³. With the default widths `flow` keeps 510 bytes per voxel, and 260 where blocks are computed again.
_MANY_VOXELS = 2 * 128**3


def recomputes(config: TrainingConfig, shape: Sequence[int]) -> bool:
    """What ``training.checkpoint_activations`` means for scans of a shape (i, j, k)."""
    chosen = config.checkpoint_activations
    return config.batch_size * math.prod(shape) > _MANY_VOXELS if chosen == "auto" else chosen


def set_recomputation(model: ScanModel, config: TrainingConfig) -> bool:
    """Tell the blocks of a model what its training has chosen, and return it.

    A choice of the training and no part of the model: an artifact does not know of it.
    """
    again = recomputes(config, model.settings.shape)
    for module in model.modules():
        if isinstance(module, Recomputed):
            module.recompute = again
    return again
