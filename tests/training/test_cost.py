"""Estimates: they scale with the work, count memory as autograd keeps it, and leave random streams alone."""

from __future__ import annotations

import math

import pytest
import torch

from medgen.models.catalogue import build, parse_settings
from medgen.segmentation.cost import segmenter_cost
from medgen.segmentation.segmenter import SegmenterConfig
from medgen.training.cost import KeptForBackward, parameters_of, stand_in, training_cost
from medgen.training.trainer import TrainingConfig

TINY = {"family": "vae", "widths": (16, 32), "latent": 8, "narrow": 4}


def settings(shape=(16, 24, 16), **changes):
    return parse_settings({**TINY, "shape": shape, **changes})


def test_costs_scale_with_steps_batch_and_volume():
    base = training_cost(settings(), TrainingConfig(steps=10, batch_size=2), "cpu")
    longer = training_cost(settings(), TrainingConfig(steps=1000, batch_size=2), "cpu")
    wider = training_cost(settings(), TrainingConfig(steps=10, batch_size=8), "cpu")
    larger = training_cost(settings(shape=(256, 256, 256)), TrainingConfig(steps=10, batch_size=2), "cpu")
    # Time is measured, so only the order of magnitude is sure; memory is counted.
    assert longer.seconds > 10 * base.seconds
    assert longer.bytes == base.bytes
    activations = base.bytes - 20 * base.parameters
    assert wider.bytes - 20 * wider.parameters == pytest.approx(4 * activations)
    assert larger.bytes > 500 * base.bytes
    assert larger.parameters > base.parameters
    assert larger.seconds > 50 * base.seconds


def test_memory_is_what_autograd_keeps():
    weight = torch.randn(8, 4, requires_grad=True)
    x = torch.randn(1000, 4)
    counter = KeptForBackward([weight])
    with torch.autograd.graph.saved_tensors_hooks(counter, lambda tensor: tensor):
        y = x @ weight.T
        (torch.tanh(y).sum() + y.square().sum()).backward()
    # The input, tanh's output and the square's input; the weight is counted elsewhere.
    assert counter.total == 4 * (1000 * 4 + 2 * 1000 * 8)


def test_parameters_need_no_memory():
    assert parameters_of(settings()) == sum(p.numel() for p in build(settings()).parameters())
    assert parameters_of(settings(shape=(512, 512, 512))) > 1_000_000


def test_random_streams_stay_as_they_were():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    training_cost(settings(), TrainingConfig(steps=1, batch_size=1), "cpu")
    assert torch.equal(torch.rand(2), expected)


def test_stand_ins_are_small_and_keep_proportions():
    assert stand_in((200, 300, 100))[0] < stand_in((200, 300, 100))[1]
    assert math.prod(stand_in((512, 512, 512))) <= 48**3
    assert stand_in((300, 300, 12))[2] == 12


def test_segmenters_cost_more_with_more_steps_and_voxels():
    config = SegmenterConfig(channels=(8, 16), steps=10, batch_size=2)
    small = segmenter_cost(config, 1, 3, (16, 16, 16), "cpu")
    large = segmenter_cost(config.model_copy(update={"steps": 20}), 1, 3, (40, 40, 40), "cpu")
    assert large.bytes > 8 * small.bytes
    # Seconds depend on what else the machine does; that they are per step does not.
    assert (small.seconds, large.seconds) == pytest.approx((10 * small.step_seconds, 20 * large.step_seconds))
    assert small.step_seconds > 0
