"""A 3D U-Net of the house blocks: space-to-depth stem, per-voxel norm, no convolution at full resolution."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from medgen.models.networks import blocks


class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015) of residual blocks; inputs of any shape, padded and cropped again.

    Args:
        channels: Input channels.
        widths: Channels per level, multiples of 16; the first level is at half the resolution.
        depth: Residual blocks per level, on the way down and on the way up.
        out: Output channels.
        scale: Factor on the first weights of the output layer: small where the output is added to something.
    """

    def __init__(self, channels: int, widths: Sequence[int], depth: int, out: int, scale: float = 1.0) -> None:
        super().__init__()
        self.factor = 2 ** len(widths)
        self.stem = blocks.Conv3(8 * channels, widths[0])
        self.down = nn.ModuleList(_level(width, depth) for width in widths)
        self.narrower = nn.ModuleList(nn.Conv3d(a, b, 2, stride=2) for a, b in itertools.pairwise(widths))
        pairs = list(itertools.pairwise(reversed(widths)))
        self.wider = nn.ModuleList(blocks.Pointwise(a, 8 * b) for a, b in pairs)
        for layer in self.wider:
            blocks.smooth_start(layer)  # type: ignore[arg-type]  # ModuleList forgets what it holds
        self.join = nn.ModuleList(blocks.Pointwise(2 * b, b) for _, b in pairs)
        self.up = nn.ModuleList(_level(b, depth) for _, b in pairs)
        self.norm = blocks.ChannelNorm(widths[0])
        self.head = blocks.Conv3(widths[0], 8 * out)
        blocks.smooth_start(self.head, scale)

    def forward(self, x: Tensor) -> Tensor:
        """(b, channels, i, j, k) to (b, out, i, j, k)."""
        shape = x.shape[2:]
        y = self.stem(blocks.channels_last(blocks.space_to_depth(blocks.pad_to_multiple(x, self.factor))))
        skips = []
        for level, stage in enumerate(self.down):
            if level:
                skips.append(y)
                y = self.narrower[level - 1](y)
            y = stage(y)
        for wider, join, stage in zip(self.wider, self.join, self.up, strict=True):
            finer = blocks.channels_last(blocks.depth_to_space(wider(y)))
            y = stage(join(torch.cat([finer, skips.pop()], dim=1)))
        y = self.head(functional.silu(self.norm(y)))
        return blocks.crop_to(blocks.depth_to_space(y), shape)


def _level(width: int, depth: int) -> nn.Sequential:
    return nn.Sequential(*(blocks.ResBlock(width) for _ in range(depth)))
