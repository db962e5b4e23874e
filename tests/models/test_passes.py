from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from medgen.models.catalogue import build
from medgen.models.families.vae import Vae
from medgen.models.networks.ladder import Climb, Descent
from medgen.models.passes import kept, once

SHAPE = (16, 24, 16)


@pytest.fixture(scope="module")
def vae() -> Vae:
    model = build({"family": "vae", "shape": SHAPE, **Vae.tiny, "code_flow": None}, seed=0)
    assert isinstance(model, Vae)
    return model.eval()


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The passes of the two networks, as they are made."""
    made: list[str] = []
    for network in (Climb, Descent):
        real: Callable[..., Any] = network.forward

        def counted(self: Any, *given: Any, _real: Callable[..., Any] = real) -> Any:
            made.append(type(self).__name__)
            return _real(self, *given)

        monkeypatch.setattr(network, "forward", counted)
    return made


def asked(model: Vae, x: Tensor) -> list[Tensor]:
    """What scores ask of a model."""
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        return [
            model.voxel_nll(x),
            model.voxel_maps(x)["code_kl"],
            model.reconstruct(x),
            model.decode(model.encode(x)[0]).logvar,
            model.log_likelihood(x, samples=2, generator=generator),
        ]


def test_passes_that_scores_share_are_made_once_and_give_the_same_bits(vae: Vae, passes: list[str]) -> None:
    x = torch.rand((1, 1, *SHAPE), generator=torch.Generator().manual_seed(1))
    alone = asked(vae, x)
    before = (passes.count("Climb"), passes.count("Descent"))
    passes.clear()
    with kept():
        together = asked(vae, x)
    # One climb; by the top code, at the means, with typical codes, and for the draws.
    assert (passes.count("Climb"), passes.count("Descent")) == (1, 4)
    assert before == (6, 6)
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one, other)


def test_nothing_is_kept_outside_of_the_block_nor_where_gradients_are_wanted(vae: Vae, passes: list[str]) -> None:
    x = torch.rand((1, 1, *SHAPE), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        with kept():
            vae.features(x)
        vae.features(x)
    assert passes.count("Climb") == 2
    with kept(), torch.enable_grad():
        assert vae.features(x)[0].requires_grad
        vae.features(x)
    assert passes.count("Climb") == 4


def test_other_tensors_precisions_and_instances_have_passes_of_their_own() -> None:
    class Counted:
        def __init__(self, factor: float) -> None:
            self.factor, self.calls = factor, 0

        @once
        def times(self, x: Tensor, more: float = 0.0) -> Tensor:
            self.calls += 1
            return x * self.factor + more

    one, other = Counted(2.0), Counted(3.0)
    x, y = torch.ones(3), torch.full((3,), 5.0)
    with torch.no_grad(), kept():
        assert one.times(x).tolist() == [2.0] * 3
        assert one.times(y).tolist() == [10.0] * 3
        assert other.times(x).tolist() == [3.0] * 3
        assert one.times(x, 1.0).tolist() == [3.0] * 3
        assert one.times(x, more=1.0).tolist() == [3.0] * 3
        # A view of the same scan is the same scan; a part of it is not.
        assert one.times(x[:]) is one.times(x)
        assert one.times(x[:2]).shape == (2,)
        with torch.autocast("cpu", torch.bfloat16):
            one.times(x)
        assert np.array_equal(one.times(x).numpy(), np.full(3, 2.0))
    assert (one.calls, other.calls) == (6, 1)
