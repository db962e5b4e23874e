"""The critic of Wasserstein GANs: one number for a scan, its gradient penalty, and its features at the voxels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from medgen.models.networks import blocks


class Critic(nn.Module):
    """Residual levels and one number per scan; no norm sees two scans (Gulrajani et al. 2017, section 4).

    Args:
        channels: Image channels.
        widths: Channels per level, multiples of 16; the first level is at half the resolution.
        depth: Residual blocks per level.
        narrow: Channels that the coarsest level is reduced to before it becomes one number.
        shape: Voxels (i, j, k) of a scan.
    """

    def __init__(self, channels: int, widths: Sequence[int], depth: int, narrow: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.factor = 2 ** len(widths)
        coarse = [size // self.factor for size in blocks.padded_shape(shape, self.factor)]
        self.network = blocks.Encoder(channels, widths, depth, narrow, coarse, out=1)

    def forward(self, x: Tensor) -> Tensor:
        """Values (b,) float32 of scans (b, channels, i, j, k)."""
        return self.network(blocks.pad_to_multiple(x, self.factor))[:, 0].float()

    def features(self, x: Tensor) -> list[Tensor]:
        """What every residual block gives, fine to coarse, (b, width, i', j', k') each."""
        y = self.network.stem(blocks.channels_last(blocks.space_to_depth(blocks.pad_to_multiple(x, self.factor))))
        found = []
        for layer in self.network.levels:
            y = layer(y)
            if isinstance(layer, blocks.ResBlock):
                found.append(y)
        return found

    def distance(self, x: Tensor, other: Tensor) -> Tensor:
        """Squared difference of the features of two batches, at the voxels, (b, 1, i, j, k) float32.

        Averaged over the features of a block, brought to the voxels by trilinear interpolation, averaged over blocks.
        """
        shape = x.shape[2:]
        padded = blocks.padded_shape(shape, self.factor)
        maps = []
        for a, b in zip(self.features(x), self.features(other), strict=True):
            coarse = (a.float() - b.float()).square().mean(dim=1, keepdim=True)
            fine = functional.interpolate(coarse, size=padded, mode="trilinear", align_corners=False)
            maps.append(blocks.crop_to(fine, shape))
        return torch.stack(maps).mean(0)


def gradient_penalty(critic: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """E (‖∇D(x̂)‖ − 1)² at x̂ = ε x + (1 − ε) x̃ (Gulrajani et al. 2017, equation 3), a scalar with gradients.

    Scans are as far apart as the root mean square of their difference over voxels and channels, so that the slope of 1
    that is asked for, and the values, do not depend on the shape: ‖∇D‖ is √(number of voxels) times the Euclidean norm.

    Args:
        critic: Its uncompiled code is called: compiled code has no second derivative.
        real: x, (b, c, i, j, k).
        fake: x̃, of the same shape.
        mix: ε, (b,) in [0, 1].
    """
    # Validation, too, needs the slope.
    with blocks.full_precision(real.device), torch.enable_grad():
        weight = mix.float().view(-1, 1, 1, 1, 1)
        between = (weight * real.float() + (1 - weight) * fake.float()).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(critic.forward(between).sum(), between, create_graph=True)
        # The square root has no slope at 0.
        slope = (gradient.flatten(1).square().sum(1) * math.prod(between.shape[1:]) + 1e-12).sqrt()
        return (slope - 1).square().mean()
