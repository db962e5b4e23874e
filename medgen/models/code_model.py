"""What grids of codes of new scans are drawn from: Gaussians with the spread of their place, or a flow from these."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

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

    The way is y_θ = cos θ · ε + sin θ · e, from noise
    ε ~ N(0, I) to e, and the network regresses its derivative: conditional flow matching (Lipman et al., "Flow matching
    for generative modeling", ICLR 2023) along the straight lines (1 − t) ε + t e of rectified flow (Liu et al. 2023),
    seen over their own standard deviation, tan θ = t / (1 − t); the trigonometric interpolant of Albergo and
    Vanden-Eijnden (ICLR 2023). Variances are then 1 on the whole way, and a network that says 0, as this one does at
    first, leaves the noise as it is for any number of steps: the flow begins as Gaussian codes.

    Codes are strong or weak by regions of a scan, more than Gaussians are. So the network is shown how strong they are
    at each position, and says a gain beside a shift: the best velocity of a Gaussian with another variance is a gain.

    A position of the grid and its seven neighbours in a cube are one place of the network, since each has its own turn
    in the prior's order.

    Args:
        width: Channels of the state.
        codes: Numbers at each position.
        settings: Those of the network.
    """

    def __init__(self, width: int, codes: int, settings: CodeFlowSettings) -> None:
        super().__init__()
        self.norm = blocks.ChannelNorm(width)
        self.shown = blocks.Pointwise(width, codes)
        self.network = TimeUNet(8 * (2 * codes + 1), settings.widths, settings.blocks, 8 * 2 * codes)

    def forward(self, at: Tensor, time: Tensor, state: Tensor) -> Tensor:
        """Velocities for (b, n, i, j, k), times (b,) in [0, 1], and states (b, width, i, j, k)."""
        shown = self.shown(functional.silu(self.norm(state)))
        strength = (at.square().mean(1, keepdim=True) + _LEAST).log()
        seen = torch.cat([at.to(shown.dtype), strength.to(shown.dtype), shown], dim=1)
        said = self.network(blocks.space_to_depth(blocks.pad_to_multiple(seen, 2)), time)
        shift, gain = blocks.crop_to(blocks.depth_to_space(said), at.shape[2:]).float().chunk(2, dim=1)
        return shift + gain * at


class CodeModel(nn.Module):
    """Codes e (b, n, i, j, k) of one grid, in standard deviations from what their prior expects.

    They would be N(0, I) if the prior were right at every place; each number is drawn with the root mean square that
    training scans have there, its ``spread``: by independent Gaussians, or by a :class:`CodeFlow` of e over the spread.
    That is what new scans are drawn from, and no part of a likelihood.

    Args:
        width: Channels of the decoder's state.
        codes: Numbers at each position.
        grid: Positions (i, j, k).
        flow: Settings of the flow; None for Gaussians.
    """

    def __init__(self, width: int, codes: int, grid: Sequence[int], flow: CodeFlowSettings | None) -> None:
        super().__init__()
        self.spread: Tensor
        self.register_buffer("spread", torch.ones(codes, *grid))
        self.flow = None if flow is None else CodeFlow(width, codes, flow)

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
        if self.flow is None:
            raise RuntimeError("expected a model with a flow: there is nothing to train without one")
        error = (self.flow(at, time, state) - velocity).square()
        return (error * weight).sum() / (weight.sum() * codes.shape[1]).clamp_min(1e-6)

    def draw(self, noise: Tensor, state: Tensor, steps: int) -> Tensor:
        """The codes that standard normal noise leads to, by ``steps`` of the solver where there is a flow."""
        flow = self.flow
        if flow is not None:
            noise = arrived(lambda at, time: flow(at, time, state), noise, steps)
        return self.spread * noise

    @torch.no_grad()
    def measure(self, squares: Tensor, count: int) -> None:
        """Take over the spread of codes: root mean squares of every number at every place.

        Args:
            squares: Sums over scans of their squares, (n, i, j, k).
            count: Scans.
        """
        usual = squares.mean(0) / count
        self.spread.copy_(((squares + _USUAL * usual) / (count + _USUAL)).clamp_min(1e-6).sqrt())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # Artifacts from before there was a spread were drawn without it.
        state_dict.setdefault(prefix + "spread", torch.ones_like(self.spread))
        super()._load_from_state_dict(state_dict, prefix, *rest)


class CodeModels(nn.ModuleList):
    """Those of all grids of a model, coarse to fine, each given what is drawn above it."""

    def levels(self) -> list[CodeModel]:
        """They themselves."""
        return [level for level in self if isinstance(level, CodeModel)]

    def error(self, seen: Sequence[Seen], weight: Tensor) -> Tensor:
        """Mean over the grids of :meth:`CodeModel.error`; ``weight`` (b, 1, i, j, k) is that of the voxels."""
        found = []
        for level, (codes, state) in zip(self.levels(), seen, strict=True):
            side = weight.shape[2] // codes.shape[2]
            found.append(level.error(codes, state, functional.avg_pool3d(weight, side)))
        return torch.stack(found).mean()

    def measure(self, scans: Iterable[Sequence[Seen]]) -> None:
        """Take over the spread of codes at every place, from what is seen of one scan after the other."""
        levels, count = self.levels(), 0
        sums = [torch.zeros_like(level.spread) for level in levels]
        for seen in scans:
            count += 1
            for own, (codes, _) in zip(sums, seen, strict=True):
                own.add_(codes[0].square())
        for level, own in zip(levels, sums, strict=True):
            level.measure(own, count)


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
