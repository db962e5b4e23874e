"""The Gaussian of principal components: the likelihood that every deep model of scans has to exceed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from medgen.models.networks.linear import LinearModel
from medgen.preprocessing.dataset import Dataset

# Share of the mean variance that every voxel's variance has at least.
_FLOOR = 0.1


@dataclass(frozen=True, eq=False)
class LinearGaussian:
    """x ~ N(μ, B Bᵀ + diag v): principal components of the training scans, and per voxel what they leave.

    v is the residual variance of the training scans over their degrees of freedom, n − 1 − k, plus a tenth of its mean,
    so that few scans which happen to agree are no certainty.

    Attributes:
        linear: Mean and components.
        variance: v, (c, i, j, k).
    """

    linear: LinearModel
    variance: Tensor

    @classmethod
    def fit(cls, train: Dataset, components: int) -> LinearGaussian:
        """Fit to the foreground of the training scans, with at most n − 2 components."""
        count = max(1, min(components, len(train) - 2))
        linear = LinearModel(count, train.channels, 0, train.shape)
        seen = train.foregrounds.float()
        weight = seen + 0.1 * (1 - seen)
        linear.fit(train.images, weight, train.images[:, :0])
        rest = torch.cat([x - linear(linear.scores(x))[0] for x in train.images.split(8)])
        left = (weight * rest.square()).sum(0) / weight.sum(0) * len(train) / max(1, len(train) - 1 - count)
        return cls(linear, left + _FLOOR * left.mean())

    def reconstruct(self, x: Tensor) -> Tensor:
        """Projection of (b, c, i, j, k) on mean and components."""
        return self.linear(self.linear.scores(x))[0]

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """Draw ``n`` images (n, c, i, j, k) of the Gaussian; equal generators, equal images."""
        scores = torch.randn((n, len(self.linear.basis)), generator=generator)
        noise = torch.randn((n, *self.variance.shape), generator=generator)
        return self.linear(scores)[0] + self.variance.sqrt() * noise

    def log_likelihood(self, x: Tensor, mask: Tensor) -> Tensor:
        """Exact log-density in nats, (b,), of the voxels of ``mask`` (b, 1, i, j, k), the others integrated out.

        By the matrix inversion lemma: with M = I + Bᵀ V⁻¹ B, log det(B Bᵀ + V) = log det M + log det V, and
        rᵀ(B Bᵀ + V)⁻¹r = rᵀV⁻¹r − |M^(−1/2) Bᵀ V⁻¹ r|².
        """
        basis = self.linear.basis.flatten(1).double()
        variance = self.variance.flatten().double()
        mean = self.linear.mean.flatten().double()
        found = []
        for scan, inside in zip(x, mask, strict=True):
            seen = inside.expand_as(scan).flatten().bool()
            own, left = basis[:, seen], variance[seen]
            rest = scan.flatten().double()[seen] - mean[seen]
            inner = torch.eye(len(own), dtype=torch.float64) + (own / left) @ own.T
            factor = torch.linalg.cholesky(inner)
            moved = torch.linalg.solve_triangular(factor, ((own / left) @ rest)[:, None], upper=False)
            distance = (rest.square() / left).sum() - moved.square().sum()
            volume = left.log().sum() + 2 * factor.diagonal().log().sum()
            found.append(-0.5 * (int(seen.sum()) * math.log(2 * math.pi) + volume + distance))
        return torch.stack(found).float()
