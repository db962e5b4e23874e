"""Haar wavelets: what neighbouring voxels share, and what they differ by, apart."""

from __future__ import annotations

import torch
from torch import Tensor

from medgen.models.networks.blocks import depth_to_space, space_to_depth


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


def _mixed(y: Tensor) -> Tensor:
    b, c, *size = y.shape
    # [[1, 1], [1, -1]] / √2, made where it is used: from a list it would be a copy that a GPU makes the host wait for.
    place = torch.arange(2, device=y.device)
    pair = (1 - 2 * place[:, None] * place).to(y.dtype) / 2**0.5
    bands = torch.kron(torch.kron(pair, pair), pair)
    return torch.einsum("mn,bcnijk->bcmijk", bands, y.reshape(b, c // 8, 8, *size)).reshape(b, c, *size)
