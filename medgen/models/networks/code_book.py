"""A code book that follows what is encoded by moving averages, and gives vectors that nothing uses a new place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from medgen.models.networks.blocks import full_precision

# Rounds of k-means from which a book begins.
_ROUNDS = 10
# Most vectors that k-means and the search for the nearest look at together: bounds memory.
_CHUNK = 1 << 15
# Share of the uses that each vector would have if all were used alike, below which one counts as dead.
_DEAD = 0.05


class CodeBook(nn.Module):
    """Vector quantisation (van den Oord et al., "Neural discrete representation learning", NeurIPS 2017, appendix A.1).

    A vector e_k is the mean of what was nearest to it, both sums being moving averages: N_k ← γ N_k + (1 − γ) n_k,
    m_k ← γ m_k + (1 − γ) Σ z, e_k = m_k / N_k. Only N and m are kept, so that averages of them over processes, or over
    steps, are a sound book again. A vector that is hardly used begins anew at something just encoded (Dhariwal et al.,
    "Jukebox", 2020); which ones these are follows from N alone, so that processes agree on it.

    Args:
        size: Vectors in the book.
        length: Numbers in a vector.
        decay: γ.
    """

    def __init__(self, size: int, length: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.counts: Tensor
        self.sums: Tensor
        self.register_buffer("counts", torch.ones(size))
        self.register_buffer("sums", torch.randn(size, length))

    @property
    def vectors(self) -> Tensor:
        """The book, (size, length)."""
        return self.sums / self.counts.clamp_min(1e-6)[:, None]

    def state(self) -> Sequence[Tensor]:
        """The buffers that training moves, in place."""
        return self.counts, self.sums

    @torch.no_grad()
    def nearest(self, z: Tensor) -> Tensor:
        """Number of the nearest vector for each of (..., length), (...) int64; the first of several."""
        with full_precision(z.device):
            book = self.vectors
            half = 0.5 * book.square().sum(1)
            parts = [(half - part @ book.T).argmin(1) for part in z.float().flatten(0, -2).split(_CHUNK)]
        return torch.cat(parts).view(z.shape[:-1])

    def look_up(self, codes: Tensor) -> Tensor:
        """Vectors (..., length) of codes (...)."""
        return functional.embedding(codes, self.vectors)

    @torch.no_grad()
    def learn(self, z: Tensor, codes: Tensor) -> None:
        """One step towards vectors (n, length) that have just been encoded as ``codes`` (n,).

        Dead are those whose N was below a twentieth of the mean before the step; torch's stream draws their new place.
        Of several processes each proposes one, and the mean counts.
        """
        z = z.float()
        dead = self.counts < _DEAD * self.counts.mean()
        # A product and not an addition at indices, whose order, and rounding, are no one's choice on a GPU.
        used = (codes[:, None] == torch.arange(len(self.counts), device=codes.device)).float()
        with full_precision(z.device):
            self.sums.lerp_(used.T @ z, 1 - self.decay)
        self.counts.lerp_(used.sum(0), 1 - self.decay)
        # For all of them, so that the stream does not depend on how many are dead, and nothing waits for the device.
        places = torch.randint(len(z), (len(self.counts),), device=z.device)
        fresh = self.counts.mean()
        self.sums.copy_(torch.where(dead[:, None], fresh * z[places], self.sums))
        self.counts.copy_(torch.where(dead, fresh, self.counts))

    @torch.no_grad()
    def start(self, z: Tensor, per_step: float) -> None:
        """Begin with the means of k-means (Lloyd 1982) on (n, length), from vectors spread evenly over them.

        Args:
            z: What the encoder gives before the first step.
            per_step: How many vectors a step of the training encodes: the scale of N.
        """
        z, size = z.float(), len(self.counts)
        generator = torch.Generator().manual_seed(0)
        order = torch.randperm(len(z), generator=generator)
        rows = order.repeat(-(-size // len(z)))[:size].to(z.device)
        # More vectors than there are scans to fill them begin beside each other, not on the same spot.
        jitter = 1e-3 * torch.randn((size, z.shape[1]), generator=generator).to(z.device)
        self.counts.fill_(1.0)
        self.sums.copy_(z[rows] + jitter * z.std(0, correction=0))
        for _ in range(_ROUNDS):
            codes = self.nearest(z)
            number = torch.zeros_like(self.counts).index_add_(0, codes, torch.ones_like(z[:, 0]))
            total = torch.zeros_like(self.sums).index_add_(0, codes, z)
            empty = number == 0
            self.sums.copy_(torch.where(empty[:, None], self.sums, total / number.clamp_min(1)[:, None]))
        # Unused ones count as dead in the first step.
        share = number / number.sum() * per_step
        self.sums.copy_(self.sums * share[:, None].clamp_min(1e-3))
        self.counts.copy_(share.clamp_min(1e-3))
