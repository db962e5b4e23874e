"""What training a segmenter will cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from medgen.models.losses import dice_cross_entropy
from medgen.segmentation.segmenter import SegmenterConfig
from medgen.system.precision import precision_of
from medgen.training.cost import FLOAT_BYTES, WEIGHT_COPIES, WORKSPACE, Cost
from medgen.training.counting import KeptForBackward, timed_step, unchanged
from medgen.training.stand_in import stand_in
from medgen.training.trainer import device_of


def segmenter_cost(
    config: SegmenterConfig, channels: int, classes: int, shape: Sequence[int], device: str = "auto"
) -> Cost:
    """Cost of training one segmenter, measured as in :func:`training_cost`."""
    where = device_of(device)
    precision = precision_of(config.precision, where)
    small, batch = stand_in(shape), min(config.batch_size, 2)
    with torch.random.fork_rng(devices=[]):
        network = config.network(channels, classes).to(where).train()
    generator = torch.Generator().manual_seed(0)
    image = torch.rand((batch, channels, *small), generator=generator).to(where)
    target = torch.randint(0, classes, (batch, *small), generator=generator).to(where)
    own = list(network.parameters())

    def step() -> float:
        counter = KeptForBackward(own)
        with torch.autograd.graph.saved_tensors_hooks(counter, unchanged):
            with precision.autocast():
                scores = network(image)
            loss = dice_cross_entropy(scores, target)
        torch.autograd.backward(loss, inputs=own)
        return counter.total

    seconds, kept = timed_step(step, where)
    ratio = config.batch_size * math.prod(shape) / (batch * math.prod(small))
    parameters = sum(parameter.numel() for parameter in own)
    memory = (WEIGHT_COPIES - 1) * FLOAT_BYTES * parameters + WORKSPACE * kept * ratio
    return Cost(parameters, seconds * ratio * config.steps, memory, seconds * ratio)
