"""Memory of a step that is only counted: against tensors that exist, and against the sum of what is known."""

from __future__ import annotations

import pytest
import torch

from medgen.models.catalogue import build, family_class, parse_settings
from medgen.preprocessing.dataset import Dataset
from medgen.training import peak_memory
from medgen.training.config import TrainingConfig
from medgen.training.peak_memory import Held, step_memory

FLOAT = 4


def settings(family, side=16, **changes):
    tiny = {**family_class(family).tiny, **changes}
    return parse_settings({"family": family, "shape": (side, side, side), "in_channels": 1, **tiny})


@pytest.mark.parametrize("family", ["vae", "flow", "context"])
@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_it_is_what_tensors_that_exist_take(family, precision):
    own = settings(family)
    labels = getattr(own, "n_labels", 0)
    training = TrainingConfig(steps=9, batch_size=2, precision=precision, checkpoint_activations=False)
    real = peak_memory._measured(own, training, labels)
    counted = step_memory(own, training, labels)
    assert counted.parameters == real.parameters
    # Kernels that exist keep a little for themselves (layouts, statistics of norms).
    assert counted.kept == pytest.approx(real.kept, rel=0.02)
    assert counted.peak == pytest.approx(real.peak, rel=0.1)


def test_between_steps_there_are_weights_their_average_and_two_moments():
    own = settings("context")
    counted = step_memory(own, TrainingConfig(steps=9, batch_size=2, precision="32"))
    buffers = 2 * 16**3
    assert counted.kept == pytest.approx(FLOAT * (4 * counted.parameters + buffers), rel=0.02)
    without = step_memory(own, TrainingConfig(steps=9, batch_size=2, precision="32", ema=0))
    assert counted.kept - without.kept == pytest.approx(FLOAT * counted.parameters, rel=0.02)


def test_activations_grow_with_the_batch_and_shrink_where_they_are_computed_again():
    own = settings("context", 32, depth=4)

    def activations(**changes):
        made = step_memory(own, TrainingConfig(steps=9, **{"batch_size": 2, "precision": "32", **changes}))
        return made.peak - made.kept

    assert activations(batch_size=8) == pytest.approx(4 * activations(), rel=0.15)
    assert activations(checkpoint_activations=True) < 0.7 * activations(checkpoint_activations=False)
    assert activations(precision="bf16") < activations()


def test_what_nobody_holds_is_not_counted():
    with Held() as held:
        first = torch.ones(1000)
        view = first[:10]
        del first
        assert held.now == 1000 * FLOAT
        del view
        assert held.now == 0
    assert held.peak == 1000 * FLOAT


@pytest.mark.parametrize(("family", "most"), [("vae", 5.5), ("vaegan", 3.7)])
def test_a_start_takes_the_memory_of_few_cohorts(family, most):
    names = tuple(map(str, range(40)))
    images = torch.rand((40, 1, 64, 24, 24), generator=torch.Generator().manual_seed(0))
    made = {"family": family, "shape": (64, 24, 24), "in_channels": 1, "widths": (16, 32), "latent": 8}
    model = build(made, seed=0)
    with Held() as held:
        model.initialize(Dataset(names, names, images, images > 0.2))
    # The cohort itself is among them.
    assert held.peak < most * images.numel() * FLOAT
