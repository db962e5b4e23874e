"""Haar wavelets: what neighbouring voxels share, and what they differ by, apart."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from medgen.models.networks.blocks import crop_to, depth_to_space, pad_to_multiple, space_to_depth

# Share of a block that has to be seen for its bands to count.
_WHOLE = 0.99


def haar(x: Tensor) -> Tensor:
    """(b, c, 2i, 2j, 2k) to (b, 8c, i, j, k): of every 2 × 2 × 2 block the sum and seven differences.

    Orthonormal: squares keep their sum. Channel 8n + m is band m of channel n; band 0 is the sum over √8.

    >>> x = torch.rand(1, 1, 4, 4, 4)
    >>> bool(torch.allclose(inverse_haar(haar(x)), x, atol=1e-6)), bool(torch.allclose(haar(x).norm(), x.norm()))
    (True, True)
    """
    return _mixed(space_to_depth(x))


def inverse_haar(y: Tensor) -> Tensor:
    """Inverse of :func:`haar`: (b, 8c, i, j, k) to (b, c, 2i, 2j, 2k)."""
    # The matrix is symmetric and orthogonal: its own inverse.
    return depth_to_space(_mixed(y))


def whitened(x: Tensor, fine: Tensor, deep: Tensor) -> Tensor:
    """Bands of (b, c, 2i, 2j, 2k) over two levels, each divided by its standard deviation, (b, 8c, i, j, k).

    Args:
        x: What is brought to bands of variance 1.
        fine: Standard deviations of the bands of voxels, (8c, 1, 1, 1); those of sums are not used.
        deep: Those of the bands of the sums, (8c, 1, 1, 1).
    """
    bands = haar(x)
    sums = _scaled_sums(bands[:, ::8], 1 / deep)
    return torch.cat([sums[:, :, None], (bands / fine).unflatten(1, (-1, 8))[:, :, 1:]], dim=2).flatten(1, 2)


def coloured(bands: Tensor, fine: Tensor, deep: Tensor) -> Tensor:
    """Inverse of :func:`whitened`: (b, 8c, i, j, k) to (b, c, 2i, 2j, 2k)."""
    sums = _scaled_sums(bands[:, ::8], deep)
    rest = (bands * fine).unflatten(1, (-1, 8))[:, :, 1:]
    return inverse_haar(torch.cat([sums[:, :, None], rest], dim=2).flatten(1, 2))


def log_volume(fine: Tensor, deep: Tensor, half: Sequence[int]) -> Tensor:
    """Log |det| of :func:`whitened` as a map of the voxels of one scan, a scalar, float64.

    The transform is orthonormal, so that only the divisions count. Where a side of the grid of sums is odd its last
    layer is repeated before the second level: a block there has no difference along that axis.

    Args:
        fine: Standard deviations of the bands of voxels, as for :func:`whitened`.
        deep: Those of the bands of the sums.
        half: Shape (i, j, k) of the grid of sums.
    """
    voxels, sums = (bands.double().log().view(-1, 8).sum(0) for bands in (fine, deep))
    total = voxels[1:].sum() * math.prod(half)
    for band in range(8):
        differs = (band >> 2 & 1, band >> 1 & 1, band & 1)
        pairs = (size // 2 if bit else -(-size // 2) for size, bit in zip(half, differs, strict=True))
        total = total + sums[band] * math.prod(pairs)
    return -total


def band_squares(x: Tensor, seen: Tensor) -> list[tuple[Tensor, float]]:
    """Sums of the squares of the bands of both levels, (8c,) each, over blocks that are seen whole, and their number.

    Args:
        x: (1, c, 2i, 2j, 2k).
        seen: (1, 1, 2i, 2j, 2k) of 0 and 1.
    """
    found = []
    for _ in range(2):
        bands = haar(pad_to_multiple(x, 2))
        seen = (functional.avg_pool3d(pad_to_multiple(seen, 2), 2) > _WHOLE).float()
        found.append(((bands.square() * seen).sum((0, 2, 3, 4)), float(seen.sum())))
        x = bands[:, ::8]
    return found


def _scaled_sums(sums: Tensor, factor: Tensor) -> Tensor:
    deep = haar(pad_to_multiple(sums, 2)) * factor
    return crop_to(inverse_haar(deep), sums.shape[2:])


def _mixed(y: Tensor) -> Tensor:
    b, c, *size = y.shape
    # [[1, 1], [1, -1]] / √2, made where it is used: from a list it would be a copy that a GPU makes the host wait for.
    place = torch.arange(2, device=y.device)
    pair = (1 - 2 * place[:, None] * place).to(y.dtype) / 2**0.5
    bands = torch.kron(torch.kron(pair, pair), pair)
    return torch.einsum("mn,bcnijk->bcmijk", bands, y.reshape(b, c // 8, 8, *size)).reshape(b, c, *size)
