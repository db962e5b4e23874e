"""Codes for adversarial samples, mixed from those of a batch about the mean of all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

# Share of the running mean that a batch replaces, at least.
_SHARE = 0.02


class MixedCodes(nn.Module):
    """m + Σ w_i (z_i − m) with weights of unit norm: for any distribution of codes, its mean and covariance.

    The running mean m is a buffer: a batch's own mean is too rough, and with a single scan is the scan itself. From one
    scan alone come its code and the mirror image of it.

    Args:
        length: Numbers in a code.
    """

    def __init__(self, length: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.batches: Tensor
        self.register_buffer("mean", torch.zeros(length))
        self.register_buffer("batches", torch.zeros(()))

    def state(self) -> Sequence[Tensor]:
        """The buffers that training moves, in place."""
        return self.mean, self.batches

    @torch.no_grad()
    def learn(self, z: Tensor) -> None:
        """Take the codes (b, length) of a batch into the mean: all alike at first, then the last fifty or so."""
        self.batches.add_(1)
        self.mean.lerp_(z.float().mean(0), (1 / self.batches).clamp_min(_SHARE))

    def forward(self, z: Tensor) -> Tensor:
        """As many codes as are given, (b, length), without gradients; draws from torch's stream."""
        centred = z.detach() - self.mean
        weights = functional.normalize(torch.randn(len(z), len(z), device=z.device), dim=1)
        return self.mean + weights.to(centred) @ centred
