"""The linear part of the autoencoders: mean scan and principal components, found before training starts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medgen.models.networks.blocks import full_precision


class LinearModel(nn.Module):
    """x = μ + Σₖ zₖ Bₖ with whitened scores z: buffers that travel with the weights and are not trained.

    Args:
        components: Number of components.
        channels: Image channels; scores are computed from these.
        extra: Further maps that follow the same scores, by regression.
        shape: Voxels (i, j, k).
    """

    def __init__(self, components: int, channels: int, extra: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.channels = channels
        self.mean: Tensor
        self.spread: Tensor
        self.basis: Tensor
        self.weight: Tensor
        self.precision: Tensor
        self.register_buffer("mean", torch.zeros((channels + extra, *shape)))
        # Added to the raw log-variance of the image.
        self.register_buffer("spread", torch.zeros((channels, *shape)))
        self.register_buffer("basis", torch.zeros((components, channels + extra, *shape)))
        self.register_buffer("weight", torch.zeros((1, *shape)))
        # One over each component's (weighted) variance; 0 for components that the cohort is too small for.
        self.register_buffer("precision", torch.zeros(components))

    def scores(self, x: Tensor) -> Tensor:
        """Whitened scores (b, components) of images (b, c, i, j, k), in float32 whatever the autocast."""
        with full_precision(x.device):
            centred = ((x.float() - self.mean[: self.channels]) * self.weight).flatten(1)
            return (centred @ self.basis[:, : self.channels].flatten(1).T) * self.precision

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Image (b, c, i, j, k) and further maps (b, extra, i, j, k) for codes whose first entries are scores."""
        with full_precision(z.device):
            moved = z[:, : len(self.basis)].float() @ self.basis.flatten(1)
            maps = self.mean + moved.unflatten(1, self.mean.shape)
        return maps[:, : self.channels], maps[:, self.channels :]

    @torch.no_grad()
    def fit(self, images: Tensor, weight: Tensor, extra: Tensor) -> Tensor:
        """Weighted PCA through the Gram matrix, which is small where scans are few (Turk and Pentland 1991).

        Args:
            images: (n, c, i, j, k).
            weight: (n, 1, i, j, k), positive.
            extra: (n, extra, i, j, k).

        Returns:
            Weighted variance of the images per voxel, (c, i, j, k).
        """
        n = len(images)
        total = weight.sum(0)
        mean = (weight * images).sum(0) / total
        centred = images - mean
        variance = (weight * centred.square()).sum(0) / total
        average = total / n
        flat = (centred * average.sqrt()).flatten(1)
        values, vectors = torch.linalg.eigh((flat @ flat.T).double())
        # The mean has used up one dimension.
        usable = min(len(self.basis), n - 1)
        values = values.flip(0)[:usable] / n
        scores = (vectors.flip(1)[:, :usable] * n**0.5).to(images.dtype)
        keep = values > 1e-6 * values.sum()
        extra_mean = extra.mean(0)
        both = torch.cat([centred, extra - extra_mean], dim=1).flatten(1)
        for buffer in (self.basis, self.precision):
            buffer.zero_()
        basis = (scores.T @ both / n).unflatten(1, self.mean.shape)
        self.basis[:usable].copy_(basis * keep[:, None, None, None, None])
        self.precision[:usable].copy_(torch.where(keep, 1 / values.clamp_min(1e-12), 0))
        self.mean.copy_(torch.cat([mean, extra_mean]))
        self.weight.copy_(average)
        return variance
