"""Flows from standard normal numbers to grids of codes as scans have them, each given the state of the decoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from medgen.config import Config
from medgen.models.base import Widths
from medgen.models.networks import blocks
from medgen.models.networks.time_unet import TimeUNet

# Numbers (b, ...) at times (b,) in [0, 1] to how they move, of the same shape.
Velocity = Callable[[Tensor, Tensor], Tensor]

# Of a grid: codes in standard deviations from what their prior expects, and the states of the decoder.
Seen = tuple[Tensor, Tensor]

# Draws of noise and time for each scan: inferring its codes takes longer than a pass through the network.
_DRAWS = 4
# What is added to the mean square of the codes at a position before its logarithm.
_LEAST = 0.05
# Scans whose codes are as at the place at large that count beside those that show a number of a place.
_USUAL = 8.0


class CodeFlowSettings(Config):
    """Settings of the flow that grids of codes of new scans are drawn by.

    Attributes:
        share: Share of the training's steps that it gets, after those of the other networks.
        widths: Channels per level of its network, multiples of 16; a place of the first level is a cube of 2³
            positions.
        blocks: Residual blocks per level, on the way down and on the way up.
    """

    share: float = Field(default=0.5, gt=0, lt=1)
    widths: Widths = (64, 96)
    blocks: int = Field(default=1, ge=1, le=8)


class CodeFlow(nn.Module):
    """Velocity of a grid of codes e (b, n, i, j, k) on their way from noise, given the decoder's state above them.

    Codes are standardised: standard deviations from what their prior expects, over the ``spread`` that training scans
    have at the place, N(0, I) if that were all there is to know. The way is y_θ = cos θ · ε + sin θ · e, from noise
    ε ~ N(0, I) to e, and the network regresses its derivative: conditional flow matching (Lipman et al., "Flow matching
    for generative modeling", ICLR 2023) along the straight lines (1 − t) ε + t e of rectified flow (Liu et al. 2023),
    seen over their own standard deviation, tan θ = t / (1 − t); the trigonometric interpolant of Albergo and
    Vanden-Eijnden (ICLR 2023). Variances are then 1 on the whole way, and a network that says 0, as this one does at
    first, leaves the noise as it is for any number of steps: the flow begins as the model with Gaussian codes.

    Codes are strong or weak by regions of a scan, more than Gaussians are. So the network is shown how strong they are
    at each position, and says a gain beside a shift: the best velocity of a Gaussian with another variance is a gain.

    A position of the grid and its seven neighbours in a cube are one place of the network, since each has its own turn
    in the prior's order.

    Args:
        width: Channels of the state.
        codes: Numbers at each position.
        grid: Positions (i, j, k).
        widths: Channels per level of the network.
        depth: Residual blocks per level, on the way down and on the way up.
    """

    def __init__(self, width: int, codes: int, grid: Sequence[int], widths: Sequence[int], depth: int) -> None:
        super().__init__()
        self.norm = blocks.ChannelNorm(width)
        self.shown = blocks.Pointwise(width, codes)
        self.network = TimeUNet(8 * (2 * codes + 1), widths, depth, 8 * 2 * codes)
        self.spread: Tensor
        self.register_buffer("spread", torch.ones(codes, *grid))

    def forward(self, at: Tensor, time: Tensor, state: Tensor) -> Tensor:
        """Velocities for (b, n, i, j, k), times (b,) in [0, 1], and states (b, width, i, j, k)."""
        shown = self.shown(functional.silu(self.norm(state)))
        strength = (at.square().mean(1, keepdim=True) + _LEAST).log()
        seen = torch.cat([at.to(shown.dtype), strength.to(shown.dtype), shown], dim=1)
        said = self.network(blocks.space_to_depth(blocks.pad_to_multiple(seen, 2)), time)
        shift, gain = blocks.crop_to(blocks.depth_to_space(said), at.shape[2:]).float().chunk(2, dim=1)
        return shift + gain * at

    def error(self, codes: Tensor, state: Tensor, weight: Tensor) -> Tensor:
        """Weighted mean squared error of the velocity, over noise and times drawn from torch's global generator.

        It is 1 for a network that says 0 and codes of variance 1, and below by what the network knows of them.

        Args:
            codes: Codes in standard deviations of their prior, (b, n, i, j, k).
            state: The decoder's states, (b, width, i, j, k).
            weight: Of every position, (b, 1, i, j, k).
        """
        codes, state, weight = (own.repeat_interleave(_DRAWS, 0) for own in (codes / self.spread, state, weight))
        noise, time = torch.randn_like(codes), torch.rand(len(codes), device=codes.device)
        at, velocity = on_the_way(noise, codes, time)
        error = (self(at, time, state) - velocity).square()
        return (error * weight).sum() / (weight.sum() * codes.shape[1]).clamp_min(1e-6)

    def draw(self, noise: Tensor, state: Tensor, steps: int) -> Tensor:
        """Codes in standard deviations of their prior that the flow makes of noise, by ``steps`` of the solver."""
        return self.spread * arrived(lambda at, time: self(at, time, state), noise, steps)

    @torch.no_grad()
    def measure(self, squares: Tensor, count: int) -> None:
        """Take over the spread of codes: root mean squares of every number at every place.

        Args:
            squares: Sums over scans of their squares, (n, i, j, k).
            count: Scans.
        """
        usual = squares.mean(0) / count
        self.spread.copy_(((squares + _USUAL * usual) / (count + _USUAL)).clamp_min(1e-6).sqrt())


class CodeFlows(nn.ModuleList):
    """The flows of all grids of a model, coarse to fine, each given what is drawn above it."""

    def flows(self) -> list[CodeFlow]:
        """They themselves."""
        return [flow for flow in self if isinstance(flow, CodeFlow)]

    def error(self, seen: Sequence[Seen], weight: Tensor) -> Tensor:
        """Mean over the grids of :meth:`CodeFlow.error`; ``weight`` (b, 1, i, j, k) is that of the voxels."""
        found = []
        for flow, (codes, state) in zip(self.flows(), seen, strict=True):
            side = weight.shape[2] // codes.shape[2]
            found.append(flow.error(codes, state, functional.avg_pool3d(weight, side)))
        return torch.stack(found).mean()

    def measure(self, scans: Iterable[Sequence[Seen]]) -> None:
        """Take over the spread of codes at every place, from what is seen of one scan after the other."""
        flows, count = self.flows(), 0
        sums = [torch.zeros_like(flow.spread) for flow in flows]
        for seen in scans:
            count += 1
            for own, (codes, _) in zip(sums, seen, strict=True):
                own.add_(codes[0].square())
        for flow, own in zip(flows, sums, strict=True):
            flow.measure(own, count)


def on_the_way(noise: Tensor, codes: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """y_θ and its derivative by θ, at times (b,) in [0, 1] of the quarter circle, θ = π/2 · time."""
    angle = (0.5 * math.pi * time).view(-1, *[1] * (noise.ndim - 1))
    near, far = angle.cos(), angle.sin()
    return near * noise + far * codes, near * codes - far * noise


def arrived(velocity: Velocity, noise: Tensor, steps: int) -> Tensor:
    """Where noise arrives at time 1 by Heun's second-order rule: two evaluations of the velocity for each step.

    >>> turned = arrived(lambda at, time: at.flip(1) * torch.tensor([[1.0, -1.0]]), torch.tensor([[0.0, 1.0]]), 32)
    >>> turned.allclose(torch.tensor([[1.0, 0.0]]), atol=1e-3)
    True
    """
    at, angle = noise, 0.5 * math.pi / steps
    for number in range(steps):
        now, then = (at.new_full((len(at),), (number + more) / steps) for more in (0, 1))
        first = velocity(at, now)
        at = at + 0.5 * angle * (first + velocity(at + angle * first, then))
    return at
