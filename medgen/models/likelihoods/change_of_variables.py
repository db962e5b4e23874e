"""Likelihood of a flow by the instantaneous change of variables: the divergence of its velocity along the way."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

# Points (b, ...) and times (b,) to velocities (b, ...); points of a batch do not see each other.
Velocity = Callable[[Tensor, Tensor], Tensor]


def rademacher(like: Tensor, generator: Generator | None = None) -> Tensor:
    """Signs +1 and −1 with equal probability: of all probes those whose estimate of a trace varies least."""
    device = like.device if generator is None else generator.device
    signs = torch.randint(0, 2, like.shape, generator=generator, device=device)
    return (2 * signs - 1).to(like)


def divergence(velocity: Velocity, at: Tensor, time: Tensor, probe: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Velocities and their divergence Σᵢ ∂vᵢ/∂xᵢ, (b,) float64.

    With a probe ε of mean 0 and covariance I it is εᵀ (∂v/∂x) ε, an unbiased estimate by one backward pass (Hutchinson,
    "A stochastic estimator of the trace of the influence matrix", 1990). Without one it is exact, by as many passes as
    a point has numbers.

    >>> rotation = torch.tensor([[2.0, -1.0], [1.0, 3.0]])
    >>> divergence(lambda x, t: x @ rotation.T, torch.randn(1, 2), torch.zeros(1))[1].item()
    5.0
    """
    with torch.inference_mode(False), torch.enable_grad():
        at = at.detach().clone().requires_grad_()
        said = velocity(at, time)
        if probe is not None:
            (pulled,) = torch.autograd.grad(said, at, probe)
            return said.detach(), (pulled * probe).flatten(1).double().sum(1)
        total = torch.zeros(len(at), dtype=torch.float64, device=at.device)
        for number in range(at[0].numel()):
            (row,) = torch.autograd.grad(said.flatten(1)[:, number].sum(), at, retain_graph=True)
            total += row.flatten(1)[:, number].double()
        return said.detach(), total


@torch.no_grad()
def log_density(velocity: Velocity, x: Tensor, steps: int, probe: Tensor | None = None) -> Tensor:
    """Log p₁(x) in nats, (b,) float64, where p₁ is what dx/dt = v(x, t) makes of N(0, I) from time 0 to 1.

    log p₁(x₁) = log N(x₀; 0, I) − ∫ div v(xₜ, t) dt (Chen et al., "Neural ordinary differential equations", NeurIPS
    2018), solved backwards from x₁ = x by ``steps`` steps of the classical Runge-Kutta method of order 4. With a probe
    the divergence is Hutchinson's estimate, with the same probe along the whole way, and the result unbiased (Grathwohl
    et al., "FFJORD", ICLR 2019); without one it is exact but for the steps.

    Args:
        velocity: v.
        x: Points (b, ...).
        steps: Of the solver, four evaluations each.
        probe: Of the shape of x.
    """
    step = 1 / steps
    total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for number in range(steps):
        time = x.new_full((len(x),), 1 - number * step)
        first, one = divergence(velocity, x, time, probe)
        second, two = divergence(velocity, x - step / 2 * first, time - step / 2, probe)
        third, three = divergence(velocity, x - step / 2 * second, time - step / 2, probe)
        fourth, four = divergence(velocity, x - step * third, (time - step).clamp_min(0), probe)
        x = x - step / 6 * (first + 2 * second + 2 * third + fourth)
        total += step / 6 * (one + 2 * two + 2 * three + four)
    return standard_normal(x) - total


def standard_normal(x: Tensor) -> Tensor:
    """Log N(x; 0, I) in nats, (b,) float64, for (b, ...)."""
    flat = x.flatten(1).double()
    return -0.5 * (flat.square().sum(1) + flat.shape[1] * math.log(2 * math.pi))
