"""Estimates: they scale with the work, count memory as autograd keeps it, and leave random streams alone."""

from __future__ import annotations

import itertools
import math
import sys
import textwrap
from dataclasses import replace

import pytest
import torch

from medgen.models import families
from medgen.models.catalogue import build, family_class, parse_settings
from medgen.segmentation.cost import segmenter_cost
from medgen.segmentation.segmenter import SegmenterConfig
from medgen.system.precision import precision_of
from medgen.training import cost as cost_module
from medgen.training.cost import parameters_of, sampling_seconds, training_cost
from medgen.training.counting import KeptForBackward, Operations, extrapolated
from medgen.training.stand_in import smaller, stand_in, stand_in_model, step_work
from medgen.training.trainer import TrainingConfig

TINY = {"family": "cevae", "widths": (16, 32), "latent": 8, "narrow": 4}


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


ATTENTIVE = """
    \"\"\"Attention between all blocks of 8 voxels, beside a convolution.\"\"\"

    from typing import Literal

    import torch
    from torch import nn
    from torch.nn import functional

    from medgen.models.base import GenerativeModel, ModelConfig


    class AttentiveSettings(ModelConfig):
        family: Literal["attentive"] = "attentive"


    class Attentive(GenerativeModel):
        family = "attentive"
        Settings = AttentiveSettings

        def __init__(self, settings):
            super().__init__(settings)
            self.tokens = nn.Conv3d(settings.in_channels, 16, 8, stride=8)
            self.fine = nn.Conv3d(settings.in_channels, 2, 3, padding=1)

        def phases(self):
            return {"all": list(self.parameters())}

        def mixed(self, image):
            x = self.tokens(image).flatten(2).mT
            return torch.softmax(x @ x.mT, dim=2) @ x

        def loss(self, phase, batch):
            return {"loss": self.mixed(batch.image).mean() + self.fine(batch.image).square().mean()}

        def sample(self, n, generator=None):
            image = torch.randn((n, self.settings.in_channels, *self.settings.shape), generator=generator)
            return image + self.mixed(image).mean()
"""


@pytest.fixture
def attentive(tmp_path, monkeypatch):
    (tmp_path / "attentive.py").write_text(textwrap.dedent(ATTENTIVE))
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(tmp_path)])
    yield
    sys.modules.pop("medgen.models.families.attentive", None)
    vars(families).pop("attentive", None)


def counted(settings, batch=1, n_labels=0):
    """Operations and bytes of every phase of the real thing."""
    precision = precision_of("32", torch.device("cpu"))
    model = stand_in_model(settings, settings.shape, precision)
    stages = step_work(model, TrainingConfig(batch_size=batch), batch, n_labels, torch.device("cpu"), precision)
    works = [work for stage in stages for work in stage]
    return [sum(work.operations) for work in works] + [sum(work.kept) for work in works]


def guessed(settings, batch=1, n_labels=0):
    """The same from two stand-ins."""
    precision, large = precision_of("32", torch.device("cpu")), stand_in(settings.shape)
    few, many = (
        itertools.chain(
            *step_work(
                stand_in_model(settings, shape, precision),
                TrainingConfig(batch_size=batch),
                batch,
                n_labels,
                torch.device("cpu"),
                precision,
            )
        )
        for shape in (smaller(large), large)
    )
    works = list(zip(few, many, strict=True))
    ratio, factor = math.prod(large) / math.prod(smaller(large)), math.prod(settings.shape) / math.prod(large)
    return [
        extrapolated(getattr(less, name), getattr(more, name), ratio, factor)
        for name in ("operations", "kept")
        for less, more in works
    ]


@pytest.mark.parametrize(("family", "labels"), [("vae", 0), ("flow", 2)])
def test_what_stand_ins_say_of_a_larger_volume_is_what_it_does(family, labels):
    given = {**family_class(family).tiny, "family": family, "shape": (64, 64, 48)}
    settings = parse_settings(given if not labels else {**given, "n_labels": labels})
    assert guessed(settings, 1, labels) == pytest.approx(counted(settings, 1, labels), rel=0.1)


def test_attention_grows_with_the_square(attentive):
    settings = parse_settings({"family": "attentive", "shape": (96, 96, 96)})
    real = counted(settings)
    assert guessed(settings) == pytest.approx(real, rel=0.05)
    # A line through the stand-in would be far off.
    near = counted(settings.model_copy(update={"shape": (48, 48, 48)}))
    assert all(8 * few < 0.6 * many for few, many in zip(near, real, strict=True))
    exact = TrainingConfig(steps=10, batch_size=1, precision="32")
    cost = training_cost(settings, exact, "cpu")
    assert cost.bytes == pytest.approx(20 * cost.parameters + 1.5 * real[1], rel=0.05)
    linear = training_cost(settings.model_copy(update={"shape": (48, 48, 48)}), exact, "cpu")
    assert cost.bytes > 10 * linear.bytes


def test_attention_of_a_processor_is_counted():
    query, key = torch.ones(2, 3, 50, 16), torch.ones(2, 3, 70, 16)
    with Operations() as found:
        torch.nn.functional.scaled_dot_product_attention(query, key, key)
    # Products of every query with every key, and of every weight with every value.
    assert sum(found.parts) == 2 * 2 * 2 * 3 * 50 * 70 * 16


def test_blocks_that_are_computed_again_take_less_memory():
    config = TrainingConfig(steps=1, batch_size=2)
    kept, again = (
        training_cost(settings((64, 64, 64)), config.model_copy(update={"checkpoint_activations": chosen}), "cpu")
        for chosen in (False, True)
    )
    weights = 20 * kept.parameters
    assert 0.4 < (again.bytes - weights) / (kept.bytes - weights) < 0.95


def test_stages_and_rare_phases_count_by_their_steps(monkeypatch):
    config = TrainingConfig(steps=100, batch_size=1)
    whole = training_cost(settings(), config, "cpu")
    real = cost_module.step_work

    def two_stages(model, *more):
        (works,) = real(model, *more)
        slow = replace(works[0], seconds=1.0, every=1)
        return [[slow, replace(slow, seconds=8.0, every=4)], [replace(slow, seconds=0.5, kept=[0.0])]]

    monkeypatch.setattr(cost_module, "step_work", two_stages)
    monkeypatch.setattr(cost_module, "stage_steps", lambda stages, steps: [60, 40])
    cost = training_cost(settings(), config.model_copy(update={"accumulate": 2}), "cpu")
    assert cost.seconds == pytest.approx(2 * (60 * (1 + 2) + 40 * 0.5))
    assert cost.bytes == pytest.approx(whole.bytes)


def test_sampling_is_timed_where_there_is_any(attentive):
    assert sampling_seconds(settings(), "cpu") > 0
    for family in ("flow", "maskvae"):
        own = parse_settings({"family": family, "shape": (16, 16, 16), **family_class(family).tiny})
        assert sampling_seconds(own, "cpu", 2) > 0
    dae = parse_settings({"family": "dae", "shape": (16, 16, 16), **family_class("dae").tiny})
    assert sampling_seconds(dae, "cpu") == 0
    quick, slow = (
        sampling_seconds(parse_settings({"family": "attentive", "shape": (n, n, n)}), "cpu") for n in (48, 240)
    )
    # Time is measured, so only the order is sure: 125 times the voxels, and far more with attention.
    assert slow > 60 * quick
