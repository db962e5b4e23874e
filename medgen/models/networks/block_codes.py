"""Codes of blocks of voxels: probabilistic PCA of all blocks of a cohort, the same at every place."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medgen.models.networks.blocks import depth_to_space, full_precision, space_to_depth

# Share of a block that has to be seen for it to count where enough blocks are.
_WHOLE = 0.9


class BlockCodes(nn.Module):
    """x = Σₖ zₖ Bₖ + noise in each block of ``side``³ voxels, z ~ N(0, I): buffers that are not trained.

    Probabilistic principal components (Tipping and Bishop 1999): the posterior of z is N(scores, exp(logvar)) with one
    variance per component.

    >>> codes = BlockCodes(side=2, codes=3, channels=1)
    >>> rest = torch.randn(20, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> codes.fit(rest, torch.ones(20, 1, 8, 8, 8))
    >>> codes.scores(rest).shape, codes(codes.scores(rest)).shape
    (torch.Size([20, 3, 4, 4, 4]), torch.Size([20, 1, 8, 8, 8]))

    Args:
        side: Voxels along an axis of a block, a power of two.
        codes: Number of components, less than the voxels of a block times ``channels``.
        channels: Image channels.
    """

    def __init__(self, side: int, codes: int, channels: int) -> None:
        super().__init__()
        self.halvings = side.bit_length() - 1
        size = channels * side**3
        self.basis: Tensor
        self.weights: Tensor
        self.logvar: Tensor
        # Components, each as long as its standard deviation; what scores are made with; log-variance of the posterior.
        self.register_buffer("basis", torch.zeros(codes, size))
        self.register_buffer("weights", torch.zeros(codes, size))
        self.register_buffer("logvar", torch.zeros(codes))

    def blocks(self, x: Tensor) -> Tensor:
        """(b, c, i, j, k), multiples of ``side``, to (b, c · side³, i/side, j/side, k/side)."""
        for _ in range(self.halvings):
            x = space_to_depth(x)
        return x

    def scores(self, rest: Tensor) -> Tensor:
        """Mean of the posterior (b, codes, i/side, j/side, k/side) of (b, c, i, j, k), in float32."""
        with full_precision(rest.device):
            return torch.einsum("bpijk,np->bnijk", self.blocks(rest.float()), self.weights)

    def forward(self, z: Tensor) -> Tensor:
        """What codes (b, codes, i, j, k) stand for, (b, c, side · i, side · j, side · k), in float32."""
        with full_precision(z.device):
            x = torch.einsum("bnijk,np->bpijk", z.float(), self.basis)
            for _ in range(self.halvings):
                x = depth_to_space(x)
        return x

    @torch.no_grad()
    def fit(self, rest: Tensor, weight: Tensor) -> None:
        """Fit to (n, c, i, j, k) with voxel weights (n, 1, i, j, k): blocks that are seen whole, or weighted ones.

        What the components leave counts as noise of one variance, as in probabilistic PCA.
        """
        size = self.basis.shape[1]
        sums = torch.zeros(2, size, size, dtype=torch.float64, device=self.basis.device)
        counts = torch.zeros(2, dtype=torch.float64, device=self.basis.device)
        for image, share in zip(rest.split(1), weight.split(1), strict=True):
            rows = self.blocks(image.to(self.basis.device)).flatten(2)[0].T.double()
            seen = self.blocks(share.to(self.basis.device)).flatten(2)[0].mean(0).double()
            for place, kept in enumerate(((seen > _WHOLE).double(), seen)):
                sums[place] += (rows * kept[:, None]).T @ rows
                counts[place] += kept.sum()
        place = 0 if counts[0] > 4 * size else 1
        covariance = sums[place] / counts[place].clamp_min(1e-6)
        values, vectors = torch.linalg.eigh(covariance)
        values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
        number = len(self.basis)
        noise = values[number:].mean().clamp_min(1e-6)
        # Components are what exceeds the noise, so that B Bᵀ + noise is the covariance.
        strength = (values[:number] - noise).clamp_min(1e-6)
        basis = vectors.T[:number] * strength.sqrt()[:, None]
        self.basis.copy_(basis)
        self.weights.copy_(basis / (strength + noise)[:, None])
        self.logvar.copy_((noise / (strength + noise)).log())
