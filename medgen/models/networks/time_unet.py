"""A U-Net that is told a time, scaled and shifted on every level by what it says; and what needs no network at it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medgen.models.networks import blocks

# Length of the embedding, and how fast its fastest wave turns over times in [0, 1].
_LENGTH, _FASTEST = 64, 32.0


class TimeUNet(nn.Module):
    """U-Net (Ronneberger et al. 2015) with a gain and a bias per channel and level that follow the time.

    After Perez et al., "FiLM", AAAI 2018; both start at 0, so that the network starts as one without time. Inputs of
    any shape, padded and cropped again; the first level has the resolution of the input.

    Args:
        channels: Input channels.
        widths: Channels per level, multiples of 16; each level has half the resolution of the one before.
        depth: Residual blocks per level, on the way down and on the way up.
        out: Output channels.
    """

    def __init__(self, channels: int, widths: Sequence[int], depth: int, out: int) -> None:
        super().__init__()
        self.factor = 2 ** (len(widths) - 1)
        self.stem = blocks.Conv3(channels, widths[0])
        self.down = nn.ModuleList(_level(width, depth) for width in widths)
        self.narrower = nn.ModuleList(nn.Conv3d(a, b, 2, stride=2) for a, b in itertools.pairwise(widths))
        pairs = list(itertools.pairwise(reversed(widths)))
        ups = [blocks.Finer(a, b) for a, b in pairs]
        for up in ups:
            blocks.smooth_start(up)
        self.wider = nn.ModuleList(ups)
        self.join = nn.ModuleList(blocks.Pointwise(2 * b, b) for _, b in pairs)
        self.up = nn.ModuleList(_level(b, depth) for _, b in pairs)
        self.norm = blocks.ChannelNorm(widths[0])
        self.head = blocks.Conv3(widths[0], out)
        self.embed = nn.Sequential(nn.Linear(_LENGTH, 2 * _LENGTH), nn.SiLU())
        times = [nn.Linear(2 * _LENGTH, 2 * width) for width in (*widths, *reversed(widths[:-1]))]
        for parameter in (*self.head.parameters(), *(own for layer in times for own in layer.parameters())):
            nn.init.zeros_(parameter)
        self.times = nn.ModuleList(times)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(b, channels, i, j, k) and times (b,) in [0, 1] to (b, out, i, j, k)."""
        shape = x.shape[2:]
        said = self.embed(waves(time).to(x.dtype))
        told = iter([layer(said)[:, :, None, None, None].chunk(2, dim=1) for layer in self.times])

        def in_time(y: Tensor) -> Tensor:
            gain, bias = next(told)
            return y * (1 + gain) + bias

        y = self.stem(blocks.channels_last(blocks.pad_to_multiple(x, self.factor)))
        skips = []
        for level, stage in enumerate(self.down):
            if level:
                skips.append(y)
                y = self.narrower[level - 1](y)
            y = stage(in_time(y))
        for wider, join, stage in zip(self.wider, self.join, self.up, strict=True):
            y = stage(in_time(blocks.joined(wider, join, y, skips.pop())))
        return blocks.crop_to(blocks.finished(self.norm, self.head, y), shape)


def _level(width: int, depth: int) -> nn.Sequential:
    return nn.Sequential(*(blocks.ResBlock(width) for _ in range(depth)))


def waves(time: Tensor) -> Tensor:
    """Cosines and sines of times (b,) at frequencies from 1/4 to 32 turns, (b, 64) float32 (Vaswani et al. 2017)."""
    half = _LENGTH // 2
    steps = torch.arange(half, device=time.device, dtype=torch.float32) / (half - 1)
    turns = 0.25 * torch.exp(steps * math.log(_FASTEST / 0.25))
    angles = 2 * math.pi * time.float()[:, None] * turns
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def guess(time: Tensor) -> tuple[Tensor, Tensor]:
    """Factor of r_t in the best linear guess of r − ε, and the standard deviation of what it leaves.

    For independent r and ε of variance 1: (2t − 1) / (t² + (1 − t)²) and 1 / √(t² + (1 − t)²).

    >>> [round(float(value), 3) for value in guess(torch.tensor(0.5))]
    [0.0, 1.414]
    """
    power = time.square() + (1 - time).square()
    return (2 * time - 1) / power, power.rsqrt()
