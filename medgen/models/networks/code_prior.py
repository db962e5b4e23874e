"""An autoregressive model of codes on a grid: a causal transformer, its exact likelihood, and its samples."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from medgen.models.networks.blocks import Recomputed, full_precision

# Codes that each place is taken to have seen of every vector of the book before the first scan.
_PSEUDOCOUNT = 1.0
# Least variance of a number of a place's vector, and least share of it that the places before leave unexplained.
_LEAST, _UNEXPLAINED = 0.01, 0.1


class CausalBlock(Recomputed):
    """Attention to what came before, then a perceptron per place, each added to its input (pre-norm, GPT-2 2019)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.three = nn.Linear(width, 3 * width)
        self.join = nn.Linear(width, width)
        self.wide = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)
        # Begins by attending to all that came before alike, so that the first thing it can use is their mean.
        nn.init.zeros_(self.three.weight[:width])
        nn.init.zeros_(self.narrow.weight)
        nn.init.zeros_(self.narrow.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(b, t, width) to the same shape; place t sees places up to t."""
        return self.kept_or_again(self._inside, x)

    def _inside(self, x: Tensor) -> Tensor:
        query, key, value = self._heads(x)
        return self._rest(x, self.attend(query, key, value))

    @staticmethod
    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Causal scaled dot-product attention (Vaswani et al. 2017), (b, heads, t, width / heads)."""
        return functional.scaled_dot_product_attention(query, key, value, is_causal=True)

    def next(self, x: Tensor, keys: Tensor, values: Tensor, place: int) -> Tensor:
        """The same for one place (b, 1, width), with keys and values of the places before; its own are written there.

        Args:
            x: What place ``place`` holds.
            keys: (b, heads, t, width / heads), of which the first ``place`` are known.
            values: As the keys.
            place: Counted from 0.
        """
        query, key, value = self._heads(x)
        keys[:, :, place] = key[:, :, 0]
        values[:, :, place] = value[:, :, 0]
        seen = slice(place + 1)
        return self._rest(x, functional.scaled_dot_product_attention(query, keys[:, :, seen], values[:, :, seen]))

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        b, t, width = x.shape
        three = self.three(self.norms[0](x)).view(b, t, 3, self.heads, width // self.heads)
        query, key, value = three.permute(2, 0, 3, 1, 4).unbind(0)
        return query, key, value

    def _rest(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.join(attended.transpose(1, 2).flatten(2))
        return x + self.narrow(functional.gelu(self.wide(self.norms[1](x))))


class CodePrior(nn.Module):
    """p(codes) = Π p(code_t | codes before t), in the order in which the grid lies in memory (last axis fastest).

    Logits begin as a linear model of the training scans: how often each place has had every code, log (n + 1), and how
    far the vectors before a place, less their means there, were above or below on average, as a Gaussian prediction of
    its own vector beside the Gaussian without it (see :meth:`start`). The transformer adds ⟨h_t, e_k⟩ + ⟨g_t, w_k⟩ with
    e_k the book's vectors and w_k free ones, and sees the same: near codes mean near things from the start. Whatever
    the logits are, probabilities of all grids sum to 1: the likelihood is exact.

    Args:
        grid: Codes (i', j', k') of a scan.
        size: Vectors in the book.
        length: Numbers in each.
        width: Of the transformer, a multiple of 16.
        depth: Blocks.
        heads: Attention heads, a divisor of the width.
        dropout: Share of the inputs' numbers that training hides.
    """

    def __init__(
        self, grid: Sequence[int], size: int, length: int, width: int, depth: int, heads: int, dropout: float
    ) -> None:
        super().__init__()
        self.grid = tuple(grid)
        self.dropout = dropout
        self.embed = nn.Linear(2 * length, width)
        self.begin = nn.Parameter(torch.zeros(width))
        # One table per axis: the place to be predicted.
        self.places = nn.ParameterList(nn.Parameter(0.02 * torch.randn(number, width)) for number in self.grid)
        self.blocks = nn.ModuleList(CausalBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.direction = nn.Linear(width, length)
        self.free = nn.Linear(width, size)
        for layer in (self.direction, self.free):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        # Vectors of the book, as the prior sees them: of mean 0 and variance 1.
        self.book: Tensor
        self.register_buffer("book", torch.randn(size, length))
        # By place: how often it has had each code, the mean of its vectors, and what the linear model says of it.
        number = math.prod(self.grid)
        self.seen: Tensor
        self.expected: Tensor
        self.slope: Tensor
        self.bend: Tensor
        self.register_buffer("seen", torch.zeros(number, size))
        self.register_buffer("expected", torch.zeros(number, length))
        self.register_buffer("slope", torch.zeros(number, length))
        self.register_buffer("bend", torch.zeros(number, length))

    @torch.no_grad()
    def start(self, codes: Tensor, vectors: Tensor, shown: Tensor | None = None) -> None:
        """Take over a book (size, length), and fit the linear model to codes (n, i', j', k') of the training scans.

        Codes count as far as they are ``shown``, shares of the same shape; by default fully.

        With r_t the vector of place t less its mean there, and m_t the mean of all r before it: r_t ~ N(a m_t, v) per
        number of the vector, by least squares with one scan's worth of ridge, beside r_t ~ N(0, u). What the first adds
        to the logit of a code is the difference of the two log-densities, r² (1 / 2u − 1 / 2v) + r a m / v and terms
        that are the same for all codes.
        """
        centred = vectors - vectors.mean(0)
        self.book.copy_(centred / centred.std(0, correction=0).clamp_min(1e-6))
        flat = codes.flatten(1)
        counted = torch.ones_like(flat, dtype=self.seen.dtype) if shown is None else shown.flatten(1).to(self.seen)
        self.seen.zero_().scatter_add_(1, flat.T, counted.T.contiguous())
        self.expected.copy_(self.seen @ self.book / self.seen.sum(1, keepdim=True).clamp_min(1))
        rest = functional.embedding(flat, self.book) - self.expected
        before = running_mean(rest, counted)
        counted = counted[:, :, None]
        n = counted.sum(0)
        power = (counted * before.square()).sum(0)
        slope = (counted * before * rest).sum(0) / (power + power / n.clamp_min(1) + 1e-6)
        alone = ((counted * rest.square()).sum(0) / (n - 1).clamp_min(1)).clamp_min(_LEAST)
        # Two numbers are fitted; correlations above 0.95 are no knowledge of few scans.
        left = (counted * (rest - slope * before).square()).sum(0) / (n - 2).clamp_min(1)
        left = left.maximum(_UNEXPLAINED * alone).minimum(alone)
        self.slope.copy_(torch.where(left < alone, slope / left, 0.0))
        self.bend.copy_(0.5 / alone - 0.5 / left)

    def logits(self, codes: Tensor, shown: Tensor | None = None) -> Tensor:
        """Unnormalised log-probabilities (b, t, size) float32 of every place, given the codes (b, t) before it.

        Codes say something of later ones as far as they are ``shown`` (b, t), by default fully.
        """
        rest = functional.embedding(codes, self.book) - self.expected
        before = running_mean(rest, shown)
        rest = rest if shown is None else rest * shown[:, :, None]
        # What a place is told: the vector of the one before it, and the mean of all before it.
        said = self.embed(torch.cat([rest[:, :-1], before[:, 1:]], dim=2))
        x = torch.cat([self.begin.to(said).expand(len(codes), 1, -1), said], dim=1)
        x = functional.dropout(x, self.dropout, self.training) + self._table()
        for block in self.blocks:
            x = block(x)
        return self._head(x, before, slice(None))

    def nll(self, codes: Tensor, shown: Tensor | None = None) -> Tensor:
        """−log p(code | codes before it) of grids (b, i', j', k'), in nats, of the same shape; see :meth:`logits`."""
        flat = codes.flatten(1)
        logits = self.logits(flat, None if shown is None else shown.flatten(1))
        return functional.cross_entropy(logits.transpose(1, 2), flat, reduction="none").view(codes.shape)

    @torch.no_grad()
    def sample(
        self, uniform: Tensor, temperature: float = 1.0, top_p: float = 1.0, shown: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """Grids (n, i', j', k') by inversion of the distribution of one code after the other.

        Keys and values of the places before are kept, so that a place costs one step and not one of each before it.

        Args:
            uniform: Numbers in [0, 1), (n, t), that decide the codes.
            temperature: Logits are divided by it; 1 is the model, less is more typical.
            top_p: Only the likeliest codes that together have this probability are drawn (nucleus sampling, Holtzman et
                al. 2020); 1 is all.
            shown: How far each place is shown (t,), as in :meth:`logits`, and the code of those that are not, a scalar:
                what training scans do not show is not drawn either. By default all are.
        """
        n, number = uniform.shape
        table = self._table()
        codes = torch.zeros((n, number), dtype=torch.long, device=self.seen.device)
        blocks = [block for block in self.blocks if isinstance(block, CausalBlock)]
        shapes = [(n, block.heads, number, table.shape[1] // block.heads) for block in blocks]
        kept = [(table.new_empty(shape), table.new_empty(shape)) for shape in shapes]
        x = self.begin.expand(n, 1, -1)
        before = total = table.new_zeros((n, 1, self.book.shape[1]))
        share, blank = (table.new_ones(number), codes.new_zeros(())) if shown is None else shown
        so_far = share.cumsum(0).clamp_min(1e-3)
        for place in range(number):
            x = x + table[place]
            for block, (keys, values) in zip(blocks, kept, strict=True):
                x = block.next(x, keys, values, place)
            logits = self._head(x, before, slice(place, place + 1))[:, 0]
            code = drawn(logits / temperature, uniform[:, place].to(logits), top_p)
            codes[:, place] = torch.where(share[place] > 0, code, blank)
            rest = share[place] * (functional.embedding(codes[:, place : place + 1], self.book) - self.expected[place])
            total = total + rest
            before = total / so_far[place]
            x = self.embed(torch.cat([rest, before], dim=2))
        return codes.view(n, *self.grid)

    def _table(self) -> Tensor:
        i, j, k = self.places
        return (i[:, None, None] + j[None, :, None] + k[None, None]).flatten(0, 2)

    def _head(self, x: Tensor, before: Tensor, places: slice) -> Tensor:
        """Logits (b, t, size) of some places, from what the blocks give there and the running means (b, t, length)."""
        y = self.norm(x)
        with full_precision(x.device):
            y, bend = y.float(), self.bend[places]
            along = self.slope[places] * before - 2 * bend * self.expected[places]
            learnt = self.book.shape[1] ** -0.5 * self.direction(y) + along
            seen = torch.log(self.seen[places] + _PSEUDOCOUNT)
            return learnt @ self.book.T + bend @ self.book.square().T + self.free(y) + seen


def running_mean(x: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean of all places before each, (b, t, length) of the same shape, with weights (b, t); 0 at the first.

    >>> running_mean(torch.tensor([[[2.0], [4.0], [9.0]]])).flatten().tolist()
    [0.0, 2.0, 3.0]
    >>> running_mean(torch.tensor([[[2.0], [4.0], [9.0]]]), torch.tensor([[0.0, 0.5, 1.0]])).flatten().tolist()
    [0.0, 0.0, 4.0]
    """
    if weight is not None:
        w = weight[:, :, None]
        return ((x * w).cumsum(1) - x * w) / (w.cumsum(1) - w).clamp_min(1e-3)
    number = torch.arange(x.shape[1], device=x.device).clamp_min(1)
    return (x.cumsum(1) - x) / number[:, None]


def drawn(logits: Tensor, uniform: Tensor, top_p: float = 1.0) -> Tensor:
    """Codes (n,) drawn by inversion: the first whose cumulative probability, likeliest first, is above ``uniform``.

    >>> logits = torch.log(torch.tensor([[0.2, 0.5, 0.3]]))
    >>> [int(drawn(logits, torch.tensor([u]))) for u in (0.1, 0.6, 0.9)]
    [1, 2, 0]
    >>> int(drawn(logits, torch.tensor([0.99]), top_p=0.7))
    2
    """
    ordered, order = logits.float().softmax(1).sort(dim=1, descending=True, stable=True)
    total = ordered.cumsum(1)
    # A code belongs to the nucleus if those before it do not reach the share yet: the likeliest one always does.
    mass = torch.where(total - ordered < top_p, ordered, 0.0).sum(1, keepdim=True)
    place = (total <= uniform[:, None] * mass).sum(1, keepdim=True)
    # Rounding may leave the last of the cumulative sums below 1.
    last = (total - ordered < top_p).sum(1, keepdim=True) - 1
    return order.gather(1, place.minimum(last))[:, 0]
