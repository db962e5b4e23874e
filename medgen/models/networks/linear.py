"""The linear part of the autoencoders: mean scan and principal components, found before training starts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medgen.models.networks.blocks import full_precision

# Layers of the volumes that the components are fitted from at a time.
_SLAB = 8


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

        Slab by slab, so that nothing of the cohort's size is made beside it.

        Args:
            images: (n, c, i, j, k).
            weight: (n, 1, i, j, k), positive.
            extra: (n, extra, i, j, k).

        Returns:
            Weighted variance of the images per voxel, (c, i, j, k).
        """
        n = len(images)
        total = weight.sum(0)
        # The weights that the components are orthogonal in.
        average = total / n
        variance, means = (images.new_empty(maps.shape) for maps in (self.spread, self.mean))
        gram = torch.zeros((n, n), dtype=torch.float64, device=images.device)
        slabs = [slice(start, start + _SLAB) for start in range(0, images.shape[2], _SLAB)]
        for slab in slabs:
            mean = (weight[:, :, slab] * images[:, :, slab]).sum(0) / total[:, slab]
            centred = images[:, :, slab] - mean
            variance[:, slab] = (weight[:, :, slab] * centred.square()).sum(0) / total[:, slab]
            means[:, slab] = torch.cat([mean, extra[:, :, slab].mean(0)])
            flat = (centred * average[:, slab].sqrt()).flatten(1)
            gram += flat @ flat.T
        values, vectors = torch.linalg.eigh(gram)
        # The mean has used up one dimension.
        usable = min(len(self.basis), n - 1)
        values = values.flip(0)[:usable] / n
        scores = (vectors.flip(1)[:, :usable] * n**0.5).to(images.dtype)
        keep = values > 1e-6 * values.sum()
        for buffer in (self.basis, self.precision):
            buffer.zero_()
        for slab in slabs:
            both = torch.cat([images[:, :, slab], extra[:, :, slab]], dim=1) - means[:, slab]
            basis = (scores.T @ both.flatten(1) / n).unflatten(1, means[:, slab].shape)
            self.basis[:usable, :, slab].copy_(basis * keep[:, None, None, None, None])
        self.precision[:usable].copy_(torch.where(keep, 1 / values.clamp_min(1e-12), 0))
        self.mean.copy_(means)
        self.weight.copy_(average)
        return variance
