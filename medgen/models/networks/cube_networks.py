"""From scans to a grid of vectors, one for each cube of voxels, and back: networks beside a linear model of cubes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from medgen.models.networks import blocks

# Factor on what the networks add to the linear model before the first step.
_START = 0.1


class CubeEncoder(nn.Module):
    """Scans to a vector per cube of 2^levels voxels: a projection of the cube, and what a network adds to it.

    Args:
        channels: Input channels.
        widths: Channels per level, multiples of 16; the first level is at half the resolution, each next at half again.
        depth: Residual blocks per level.
        code: Length of a vector.
    """

    def __init__(self, channels: int, widths: Sequence[int], depth: int, code: int) -> None:
        super().__init__()
        self.factor = 2 ** len(widths)
        self.project = nn.Conv3d(channels, code, self.factor, stride=self.factor, bias=False)
        layers: list[nn.Module] = [blocks.Conv3(8 * channels, widths[0])]
        layers += [blocks.ResBlock(widths[0]) for _ in range(depth)]
        for below, width in itertools.pairwise(widths):
            layers.append(nn.Conv3d(below, width, 2, stride=2))
            layers += [blocks.ResBlock(width) for _ in range(depth)]
        self.layers = nn.Sequential(*layers)
        self.norm = blocks.ChannelNorm(widths[-1])
        self.head = blocks.Pointwise(widths[-1], code)
        with torch.no_grad():
            self.head.weight.mul_(_START)
            self.head.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """(b, channels, i, j, k), i, j, k multiples of the factor, to (b, code, i', j', k')."""
        y = self.layers(blocks.channels_last(blocks.space_to_depth(x)))
        return self.project(x) + self.head(functional.silu(self.norm(y)))


class CubeDecoder(nn.Module):
    """Mirror of :class:`CubeEncoder`: a grid of vectors to (b, out, i, j, k).

    Args:
        code: Length of a vector.
        widths: As of the encoder.
        depth: Residual blocks per level.
        out: Maps that it makes.
        linear: The first so many of them are also made by the linear model, one cube from each vector.
    """

    def __init__(self, code: int, widths: Sequence[int], depth: int, out: int, linear: int) -> None:
        super().__init__()
        factor = 2 ** len(widths)
        self.linear = linear
        self.expand = nn.ConvTranspose3d(code, linear, factor, stride=factor, bias=False)
        down = list(reversed(widths))
        self.widen = blocks.Conv3(code, down[0])
        self.levels = nn.ModuleList(nn.Sequential(*(blocks.ResBlock(width) for _ in range(depth))) for width in down)
        self.ups = nn.ModuleList(blocks.Finer(a, b) for a, b in itertools.pairwise(down))
        for up in self.ups:
            blocks.smooth_start(up)  # type: ignore[arg-type]  # ModuleList forgets what it holds
        self.norm = blocks.ChannelNorm(widths[0])
        self.head = blocks.Conv3(widths[0], 8 * out)
        blocks.smooth_start(self.head, _START)

    def forward(self, z: Tensor) -> Tensor:
        """(b, code, i', j', k') to (b, out, i, j, k)."""
        y = self.widen(blocks.channels_last(z))
        for level, stage in enumerate(self.levels):
            if level:
                y = self.ups[level - 1](y)
            y = stage(y)
        maps = blocks.depth_to_space(blocks.finished(self.norm, self.head, y))
        return torch.cat([maps[:, : self.linear] + self.expand(z), maps[:, self.linear :]], dim=1)


@torch.no_grad()
def start_linear(encoder: CubeEncoder, decoder: CubeDecoder, images: Tensor) -> None:
    """Begin with the principal components of the cubes of centred images (n, c, i, j, k), each of variance 1.

    A vector then is what is best known linearly of its cube, and the networks learn the rest: short trainings on few
    scans do not find that start by themselves.
    """
    weight = encoder.project.weight
    code, size = len(weight), weight[0].numel()
    covariance, count = torch.zeros(size, size, dtype=torch.float64), 0
    for image in images.split(1):
        cubes = _cubes(image.cpu().double(), encoder.factor)
        covariance += cubes.T @ cubes
        count += len(cubes)
    variances, directions = torch.linalg.eigh(covariance / max(count, 1))
    kept = min(code, size)
    spread = variances.flip(0)[:kept].clamp_min(1e-12).sqrt()
    axes = directions.flip(1)[:, :kept].T
    # The sign of an eigenvector is the solver's: fix it, so that machines agree.
    axes = axes * torch.sign(axes.gather(1, axes.abs().argmax(1, keepdim=True)))
    # Components without variance are rounding; they begin at nothing.
    real = (spread > 1e-3 * spread[0]).double()[:, None]
    weight.zero_()
    decoder.expand.weight.zero_()
    weight[:kept] = (real * axes / spread[:, None]).view(kept, *weight.shape[1:]).to(weight)
    decoder.expand.weight[:kept] = (axes * spread[:, None]).view(kept, *decoder.expand.weight.shape[1:]).to(weight)


def _cubes(x: Tensor, factor: int) -> Tensor:
    """All cubes of (b, c, i, j, k) as rows (b i' j' k', c factor³), in the order of a convolution's weights."""
    cubes = x.unfold(2, factor, factor).unfold(3, factor, factor).unfold(4, factor, factor)
    return cubes.permute(0, 2, 3, 4, 1, 5, 6, 7).flatten(4).flatten(0, 3)
