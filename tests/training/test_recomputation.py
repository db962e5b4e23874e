"""Activations that are computed again: the same weights in less memory, for all families whose blocks can."""

from __future__ import annotations

import pytest
import torch

from medgen.models.catalogue import available, build, family_class
from medgen.models.networks.blocks import Recomputed, ResBlock
from medgen.preprocessing.dataset import Dataset
from medgen.training.counting import KeptForBackward, unchanged
from medgen.training.recomputation import set_recomputation
from medgen.training.trainer import TrainingConfig, fit

SHAPE = (16, 16, 16)
CONFIG = TrainingConfig(steps=2, batch_size=2, precision="32", log_every=1)


def dataset() -> Dataset:
    images = torch.rand((4, 1, *SHAPE), generator=torch.Generator().manual_seed(0))
    names = tuple("abcd")
    return Dataset(names, names, images, images >= 0, (images * 3).to(torch.uint8))


def tiny(family: str):
    return build({"family": family, "shape": SHAPE, **family_class(family).tiny}, seed=0)


def blocks_of(family: str) -> int:
    return sum(isinstance(module, Recomputed) for module in tiny(family).modules())


@pytest.mark.parametrize("family", [family for family in available() if blocks_of(family)])
def test_weights_are_the_same(family: str) -> None:
    trained = []
    for again in (False, True):
        config = CONFIG.model_copy(update={"checkpoint_activations": again})
        trained.append(fit(tiny(family), dataset(), config, seed=0, device="cpu"))
    first, second = trained
    for name, tensor in first.model.state_dict().items():
        torch.testing.assert_close(second.model.state_dict()[name], tensor, atol=1e-6, rtol=1e-5)


def test_gradients_are_the_same_and_less_is_kept() -> None:
    block = ResBlock(16, noise=True).train()
    torch.nn.init.normal_(block.mix.weight, generator=torch.Generator().manual_seed(0))
    x = torch.randn((1, 16, *SHAPE), generator=torch.Generator().manual_seed(1)).requires_grad_()
    noise = torch.randn((1, 1, *SHAPE), generator=torch.Generator().manual_seed(2))
    gradients, kept = [], []
    for again in (False, True):
        block.recompute = again
        counter = KeptForBackward(list(block.parameters()))
        with torch.autograd.graph.saved_tensors_hooks(counter, unchanged):
            loss = block(x, noise).square().sum()
        gradients.append(torch.autograd.grad(loss, [x, *block.parameters()]))
        kept.append(counter.total)
    for one, other in zip(*gradients, strict=True):
        assert one.abs().sum() > 0
        assert torch.equal(one, other)
    # The input, the noise and what the square keeps.
    assert kept[1] == x.nbytes + noise.nbytes + x.nbytes < kept[0] / 2


def test_auto_looks_at_the_voxels_of_a_batch() -> None:
    model = tiny("vae")
    small = CONFIG.model_copy(update={"batch_size": 1024})
    large = CONFIG.model_copy(update={"batch_size": 1025})
    assert not set_recomputation(model, small)
    assert set_recomputation(model, large)
    assert all(module.recompute for module in model.modules() if isinstance(module, Recomputed))
    assert not set_recomputation(model, large.model_copy(update={"checkpoint_activations": False}))
    assert not any(module.recompute for module in model.modules() if isinstance(module, Recomputed))
    assert set_recomputation(model, small.model_copy(update={"checkpoint_activations": True}))


def test_scores_keep_nothing_to_compute_again(monkeypatch: pytest.MonkeyPatch) -> None:
    block = ResBlock(16).eval()
    block.recompute = True

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("computed again outside of training")

    monkeypatch.setattr("medgen.models.networks.blocks.checkpoint", refuse)
    assert block(torch.ones(1, 16, 4, 4, 4)).shape == (1, 16, 4, 4, 4)
    with torch.no_grad():
        block.train()(torch.ones(1, 16, 4, 4, 4))
