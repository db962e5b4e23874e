"""Building blocks of the 3D networks.

Own blocks rather than MONAI's: MONAI's normalise over space (a tile would then change its neighbours' scores), its
autoencoders convolve at full resolution (15 times slower at equal quality), and importing it takes seconds.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from medgen.models.passes import in_slabs

# Channels times voxels along i and j up to which PyTorch does not ask oneDNN, and values below which it is right.
_FEW_VALUES, _HARDLY_ANY = 20480, 8192


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Context in which autocast is off, on devices that have it."""
    available = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if available else nullcontext()


def space_to_depth(x: Tensor) -> Tensor:
    """(b, c, 2i, 2j, 2k) to (b, 8c, i, j, k): 2 × 2 × 2 neighbours become channels; nothing is lost."""
    b, c, i, j, k = x.shape
    x = x.reshape(b, c, i // 2, 2, j // 2, 2, k // 2, 2).permute(0, 1, 3, 5, 7, 2, 4, 6)
    return x.reshape(b, 8 * c, i // 2, j // 2, k // 2)


def depth_to_space(x: Tensor) -> Tensor:
    """Inverse of :func:`space_to_depth`: (b, 8c, i, j, k) to (b, c, 2i, 2j, 2k)."""
    b, c, i, j, k = x.shape
    x = x.reshape(b, c // 8, 2, 2, 2, i, j, k).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return x.reshape(b, c // 8, 2 * i, 2 * j, 2 * k)


def channels_last(x: Tensor) -> Tensor:
    """The same tensor with channels innermost in memory: the per-voxel norm is then five times faster."""
    return x.contiguous(memory_format=torch.channels_last_3d)


def pad_to_multiple(x: Tensor, factor: int) -> Tensor:
    """Repeat the edge voxels until i, j, k are multiples of ``factor``; as much before as after, or one less."""
    padding: list[int] = []
    for size in reversed(x.shape[2:]):
        extra = -size % factor
        padding += [extra // 2, extra - extra // 2]
    return functional.pad(x, padding, mode="replicate") if any(padding) else x


def padded_shape(shape: Sequence[int], factor: int) -> tuple[int, int, int]:
    """The shape :func:`pad_to_multiple` makes of (i, j, k)."""
    i, j, k = (size + -size % factor for size in shape)
    return i, j, k


def crop_to(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Undo :func:`pad_to_multiple`: the middle of (b, c, ...) of the given shape (i, j, k)."""
    for axis, size in enumerate(shape, start=2):
        x = x.narrow(axis, (x.shape[axis] - size) // 2, size)
    return x


@torch.no_grad()
def smooth_start(layer: nn.Conv3d | nn.Linear, scale: float = 1.0) -> None:
    """Give the 8 channels that :func:`depth_to_space` makes neighbours equal weights, times ``scale``.

    Without it the output starts as a checkerboard and keeps traces of one (Aitken et al. 2017).
    """
    for parameter in (layer.weight, layer.bias):
        if parameter is not None:
            parameter.copy_(parameter[::8].repeat_interleave(8, dim=0) * scale)


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each voxel: no voxel sees another's statistics, so tiles agree."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, i, j, k) to the same shape, mean 0 and variance 1 over c before gain and bias."""
        y = functional.layer_norm(x.movedim(1, -1), self.weight.shape, self.weight, self.bias)
        return y.movedim(-1, 1)


def small_and_alone(x: Tensor) -> bool:
    """Whether PyTorch would take its slow convolution for a scan's features (1, c, i, j, k) in float32 on a CPU.

    Batches of one with so few values go to ``slow_conv3d``, which takes two to four times as long as oneDNN: the rule
    is ``use_mkldnn`` in ``aten/src/ATen/native/Convolution.cpp`` of torch 2.13.
    """
    return bool(
        type(x) is Tensor
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.shape[0] == 1
        and x.shape[1] * x.shape[2] * x.shape[3] <= _FEW_VALUES
        and x.numel() >= _HARDLY_ANY
        and not torch.compiler.is_compiling()
        # Who counts operations, or computes with shapes alone, wants PyTorch's own.
        and not torch._C._len_torch_dispatch_stack()
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.enabled
        and torch.backends.mkldnn.is_available()
    )


class Alone3(torch.autograd.Function):
    """The 3³ convolution of one scan by oneDNN, forwards and backwards; PyTorch's own up to rounding.

    The gradient of the input is a convolution with the mirrored weights. That of the weights is a sum over places, and
    so that of a batch of two half scans.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """(1, c, i, j, k), (out, c, 3, 3, 3), (out,) to (1, out, i, j, k)."""
        ctx.save_for_backward(x, weight)
        return _one_dnn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Gradients of the input, the weights and the bias; they can be differentiated again."""
        (gradient,), (x, weight) = gradients, ctx.saved_tensors
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = _one_dnn(gradient, weight.transpose(0, 1).flip(2, 3, 4), None)
        if ctx.needs_input_grad[1]:
            half = (x.shape[2] + 1) // 2
            odd = 2 * half - x.shape[2]
            wide, given = functional.pad(x, (0, 0, 0, 0, 1, 1 + odd)), functional.pad(gradient, (0, 0, 0, 0, 0, odd))
            of_weight = torch.ops.aten.convolution_backward(
                channels_last(torch.cat([given[:, :, :half], given[:, :, half:]])),
                channels_last(torch.cat([wide[:, :, : half + 2], wide[:, :, half:]])),
                weight,
                None,
                *([1] * 3, [0, 1, 1], [1] * 3, False, [0] * 3, 1, [False, True, False]),
            )[1]
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3, 4))
        return of_x, of_weight, of_bias


def _one_dnn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    made: Tensor = torch.ops.aten.mkldnn_convolution(
        channels_last(x), channels_last(weight), bias, [1] * 3, [1] * 3, [1] * 3, 1
    )
    return made


class Conv3(nn.Conv3d):
    """A 3³ convolution that keeps the shape.

    oneDNN's bfloat16 gradient of the weights is uninitialised memory where the first axis has two voxels (torch 2.13,
    every such shape tried): there the input gets one more voxel of the zero padding, and the output loses it again.
    """

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(channels, out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, channels, i, j, k) to (b, out, i, j, k)."""
        if self.bias is not None and small_and_alone(x):
            made: Tensor = Alone3.apply(x, self.weight, self.bias)
            return made
        if x.shape[2] != 2:
            return super().forward(x)
        return super().forward(functional.pad(x, (0, 0, 0, 0, 0, 1)))[:, :, :2]


class Pointwise(nn.Linear):
    """A 1³ convolution as a matrix product on the innermost channels.

    ``nn.Conv3d`` with a kernel of 1 leaves channels-last memory on CPU, and the copies cost more than the product.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, i, j, k) to (b, out, i, j, k), channels innermost in memory."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


def finished(norm: nn.Module, head: nn.Module, y: Tensor) -> Tensor:
    """What a network's last layer, a 3³ convolution, makes of its last features: head(SiLU(norm(y)))."""
    return in_slabs(lambda part: head(functional.silu(norm(part))), (y,), 1)


def joined(wider: nn.Module, join: nn.Module, coarse: Tensor, skipped: Tensor) -> Tensor:
    """A U-Net's step to the next finer level: join(coarse features made finer beside those of the way down)."""

    def inside(skipped: Tensor, coarse: Tensor) -> Tensor:
        made: Tensor = join(torch.cat([wider(coarse), skipped], dim=1))
        return made

    return in_slabs(inside, (skipped, coarse), 0)


class Finer(Pointwise):
    """Features at twice the resolution: :func:`depth_to_space` of eight times as many by :class:`Pointwise`.

    The product makes the channels of one voxel neighbours in memory at once, so that they move in one piece: four times
    as fast as moving numbers one by one, with the same numbers.
    """

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(channels, 8 * out)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, i, j, k) to (b, out, 2i, 2j, 2k), channels innermost in memory."""
        out = self.out_features // 8
        weight = self.weight.view(out, 8, -1).transpose(0, 1).flatten(0, 1)
        y = functional.linear(x.movedim(1, -1), weight, self.bias.view(out, 8).T.flatten())
        b, i, j, k, _ = y.shape
        y = y.view(b, i, j, k, 2, 2, 2, out).permute(0, 1, 4, 2, 5, 3, 6, 7)
        return y.reshape(b, 2 * i, 2 * j, 2 * k, out).movedim(-1, 1)


class Recomputed(nn.Module):
    """A block that need not keep all of its intermediate results in memory at once.

    In training it can compute them again in the backward pass: activation checkpointing (Chen et al., "Training deep
    nets with sublinear memory cost", 2016). Gradients are the same, as long as the insides draw no random numbers.
    Without gradients it computes large scans :func:`in_slabs`.

    Attributes:
        recompute: Whether it does so in training; the training sets it.
        reach: Planes along i away that an output depends on; None where that is not so, and slabs cannot be.
    """

    recompute: bool = False
    reach: int | None = None

    def kept_or_again(self, inside: Callable[..., Tensor], *inputs: Tensor | None) -> Tensor:
        """``inside(*inputs)``, whose intermediate results are kept for the backward pass or made there again."""
        if not (self.recompute and self.training and torch.is_grad_enabled()):
            return inside(*inputs) if self.reach is None else in_slabs(inside, inputs, self.reach)
        made: Tensor = checkpoint(inside, *inputs, use_reentrant=False, preserve_rng_state=False)
        return made


class ResBlock(Recomputed):
    """x + W₁ · SiLU(conv₃(norm(x)) + g · noise): one 3³ convolution, starting as the identity.

    ``g`` is a learned gain per channel for one noise map (Karras et al. 2019): texture that the code does not carry.
    """

    reach = 1

    def __init__(self, channels: int, noise: bool = False) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.conv = Conv3(channels, channels)
        self.mix = Pointwise(channels, channels)
        nn.init.zeros_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)
        self.gain = nn.Parameter(torch.full((channels,), 0.1)) if noise else None

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """(b, c, i, j, k) to the same shape; ``noise`` is (b, 1, i, j, k) or None for none."""
        return self.kept_or_again(self._inside, x, noise)

    def _inside(self, x: Tensor, noise: Tensor | None) -> Tensor:
        y = self.conv(self.norm(x))
        if self.gain is not None and noise is not None:
            y = y + self.gain.view(-1, 1, 1, 1) * noise
        return x + self.mix(functional.silu(y))


class Encoder(nn.Module):
    """Space-to-depth stem, residual levels each at half the resolution of the one before, then a vector."""

    def __init__(
        self, channels: int, widths: Sequence[int], blocks: int, narrow: int, size: Sequence[int], out: int
    ) -> None:
        super().__init__()
        self.stem = Conv3(8 * channels, widths[0])
        levels: list[nn.Module] = []
        for below, width in zip([None, *widths], widths, strict=False):
            if below is not None:
                levels.append(nn.Conv3d(below, width, 2, stride=2))
            levels += [ResBlock(width) for _ in range(blocks)]
        self.levels = nn.Sequential(*levels)
        self.norm = ChannelNorm(widths[-1])
        self.narrow = Pointwise(widths[-1], narrow)
        self.vector = nn.Linear(narrow * size[0] * size[1] * size[2], out)

    def forward(self, x: Tensor) -> Tensor:
        """(b, channels, i, j, k) to (b, out); i, j, k multiples of 2 to the number of widths."""
        y = self.levels(self.stem(channels_last(space_to_depth(x))))
        return self.vector(functional.silu(self.narrow(self.norm(y))).flatten(1))


class Decoder(nn.Module):
    """Mirror of :class:`Encoder`: a vector to (b, out, i, j, k), with optional noise at every level."""

    def __init__(
        self,
        code: int,
        widths: Sequence[int],
        blocks: int,
        narrow: int,
        size: Sequence[int],
        out: int,
        noise: bool = True,
    ) -> None:
        super().__init__()
        self.size = (narrow, *size)
        self.vector = nn.Linear(code, narrow * size[0] * size[1] * size[2])
        self.widen = Pointwise(narrow, widths[-1])
        down = list(reversed(widths))
        levels = [[ResBlock(width, noise) for _ in range(blocks)] for width in down]
        self.levels = nn.ModuleList(nn.ModuleList(level) for level in levels)
        ups = [Finer(a, b) for a, b in itertools.pairwise(down)]
        self.norm = ChannelNorm(widths[0])
        self.head = Conv3(widths[0], 8 * out)
        for up in ups:
            smooth_start(up)
        self.ups = nn.ModuleList(ups)
        # Small: training starts from what the model adds its output to.
        smooth_start(self.head, scale=0.1)

    def noise_shapes(self) -> list[tuple[int, int, int, int]]:
        """Shapes (1, i, j, k) of the noise maps, coarse to fine, one per level."""
        i, j, k = self.size[1:]
        return [(1, i << level, j << level, k << level) for level in range(len(self.levels))]

    def forward(self, z: Tensor, noise: Sequence[Tensor] | None = None) -> Tensor:
        """(b, code) to (b, out, i, j, k), with one noise map (b, 1, i, j, k) per level or none at all."""
        y = self.widen(channels_last(self.vector(z).unflatten(1, self.size)))
        for level, blocks in enumerate(self.levels):
            if level:
                y = self.ups[level - 1](y)
            for block in blocks.children():
                y = block(y, None if noise is None else noise[level])
        return depth_to_space(finished(self.norm, self.head, y))
