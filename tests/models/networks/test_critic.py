"""The gradient penalty in closed form, its second derivative, and features at the voxels."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from medgen.models.networks.critic import Critic, gradient_penalty

SHAPE = (8, 12, 8)


class Quadratic(nn.Module):
    """D(x) = a · sum of x² / 2, whose gradient is a · x."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(0.3))

    def forward(self, x: Tensor) -> Tensor:
        return self.a * x.square().flatten(1).sum(1) / 2


def critic() -> Critic:
    torch.manual_seed(0)
    made = Critic(1, (16, 16), 1, 4, SHAPE)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return made


def test_the_penalty_is_the_formula() -> None:
    mine, mix = Quadratic(), torch.tensor([0.2, 0.9])
    real, fake = torch.randn(2, 1, *SHAPE), torch.randn(2, 1, *SHAPE)
    found = gradient_penalty(mine, real, fake, mix)  # type: ignore[arg-type]
    between = mix.view(-1, 1, 1, 1, 1) * real + (1 - mix.view(-1, 1, 1, 1, 1)) * fake
    # ‖∇D‖ = a ‖x‖, and a root mean square is the norm over √voxels.
    norm = between.flatten(1).norm(dim=1) * math.sqrt(math.prod(SHAPE))
    assert float(found.detach()) == pytest.approx(float((0.3 * norm - 1).square().mean()), rel=1e-5)
    found.backward()
    assert mine.a.grad is not None
    assert float(mine.a.grad) == pytest.approx(float((2 * (0.3 * norm - 1) * norm).mean()), rel=1e-5)


def test_its_second_derivative_is_that_of_finite_differences() -> None:
    mine = critic().double()
    parameter = mine.network.stem.weight
    real, fake, mix = torch.randn(2, 1, *SHAPE), torch.randn(2, 1, *SHAPE), torch.rand(2)
    # The penalty looks in single precision at scans; the weights are double, so let the scans be.
    scans = [part.double() for part in (real, fake)]

    def penalty() -> Tensor:
        weight = mix.double().view(-1, 1, 1, 1, 1)
        between = (weight * scans[0] + (1 - weight) * scans[1]).requires_grad_()
        value = mine.network(between).sum()
        (gradient,) = torch.autograd.grad(value, between, create_graph=True)
        return ((gradient.flatten(1).square().sum(1) * math.prod(SHAPE)).sqrt() - 1).square().mean()

    expected = torch.autograd.grad(penalty(), parameter)[0]
    found = torch.autograd.grad(gradient_penalty(mine.float(), real, fake, mix), mine.network.stem.weight)[0]
    torch.testing.assert_close(found.double(), expected, atol=1e-3, rtol=1e-2)
    assert float(found.abs().max()) > 0.01


def compiled(*scans: Tensor) -> Tensor:
    """What a compiled network is called through; it has no second derivative."""
    raise AssertionError("the penalty went through compiled code")


def test_the_penalty_is_there_in_validation_and_under_compilation() -> None:
    mine, real, fake = critic(), torch.randn(2, 1, *SHAPE), torch.randn(2, 1, *SHAPE)
    expected = gradient_penalty(mine, real, fake, torch.rand(2, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        again = gradient_penalty(mine, real, fake, torch.rand(2, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(again, expected)
    mine._compiled_call_impl = compiled  # type: ignore[assignment]
    with pytest.raises(AssertionError, match="compiled code"):
        mine(real)
    found = gradient_penalty(mine, real, fake, torch.rand(2, generator=torch.Generator().manual_seed(0)))
    found.backward()
    torch.testing.assert_close(found, expected)


def test_a_change_is_seen_where_it_is() -> None:
    mine, x = critic(), torch.randn(1, 1, *SHAPE)
    changed = x.clone()
    changed[..., 5:8, 8:12, 5:8] += 2
    found = mine.distance(x, changed)
    assert found.shape == (1, 1, *SHAPE)
    assert found[..., 5:8, 8:12, 5:8].mean() > 10 * found[..., :2, :3, :2].mean()
    assert not mine.distance(x, x).any()
