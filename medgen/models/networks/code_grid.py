"""A grid of codes whose prior looks at the neighbours that are already known, in eight passes."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from medgen.models import losses
from medgen.models.networks.blocks import ChannelNorm, Pointwise, ResBlock, full_precision

# Places in a cube of 2³ positions, far apart first: one pass each.
ORDER = ((0, 0, 0), (1, 1, 1), (0, 1, 1), (1, 0, 0), (1, 0, 1), (0, 1, 0), (1, 1, 0), (0, 0, 1))
# Limits of log-variances that no trained model comes near; they keep a bad early step from overflowing.
_LOGVAR = (-12.0, 6.0)
# Ridge of the regression on neighbours, in scans' worth of unit variance.
_RIDGE = 10.0


class Codes(NamedTuple):
    """Codes of one level with their posterior and prior, all of one shape: (b, d) or (b, n, i, j, k)."""

    code: Tensor
    mean: Tensor
    logvar: Tensor
    prior_mean: Tensor
    prior_logvar: Tensor

    def kl(self) -> Tensor:
        """KL of the posterior from the prior, in nats per number; of grids, given the drawn neighbours."""
        return losses.kl_gaussians(self.mean, self.logvar, self.prior_mean, self.prior_logvar)

    def standardised(self) -> Tensor:
        """The codes in standard deviations from what their prior expects."""
        return (self.code - self.prior_mean) * torch.exp(-0.5 * self.prior_logvar)

    def log_ratio(self) -> Tensor:
        """Log p(code) − log q(code | scan) in nats, (b,)."""
        log_p = losses.gaussian_nll(self.code, self.prior_mean, self.prior_logvar)
        log_q = losses.gaussian_nll(self.code, self.mean, self.logvar)
        return (log_q - log_p).flatten(1).sum(1)


class CodeGrid(nn.Module):
    """Prior and posterior of codes (b, n, i, j, k), diagonal Gaussians given what comes before.

    The prior is autoregressive over eight passes, one for each place in a cube of 2³ positions (a coarse-to-fine order
    of pixels, Reed et al. 2017): its mean is a linear function of the codes of earlier passes among the 26 neighbours,
    plus what a network says from the state of the decoder. In training all passes are computed at once, for all codes
    are known. The posterior is that of :class:`~medgen.models.networks.block_codes.BlockCodes`, changed by a network
    that sees the scan.

    Args:
        width: Channels of the decoder's state and of the encoder's features.
        codes: Numbers at each position.
    """

    def __init__(self, width: int, codes: int) -> None:
        super().__init__()
        self.codes = codes
        self.block = ResBlock(width)
        self.norm, self.seen_norm = ChannelNorm(width), ChannelNorm(width)
        self.expect = Pointwise(width, 2 * codes)
        self.join = Pointwise(2 * width, width)
        self.change = Pointwise(width, 2 * codes)
        self.embed = Pointwise(codes, width)
        # Of every pass: weights of the neighbours, and log-variance of what they leave.
        self.neighbours = nn.Parameter(torch.zeros(len(ORDER), codes, codes, 3, 3, 3))
        self.left = nn.Parameter(torch.zeros(len(ORDER), codes))
        for parameter in (*self.expect.parameters(), *self.change.parameters()):
            nn.init.zeros_(parameter)

    def posterior(self, y: Tensor, seen: Tensor, mean: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q from state, features of the scan, and the first guess."""
        both = self.join(torch.cat([self.norm(y), self.seen_norm(seen)], dim=1))
        shift, wider = self.change(functional.silu(both)).float().chunk(2, dim=1)
        return mean + shift, (logvar + wider).clamp(*_LOGVAR)

    def prior(self, y: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of p at every position, given the state and the codes of earlier passes."""
        mean, logvar = self._expected(y)
        near = torch.zeros_like(code, dtype=torch.float32)
        for number, (a, b, c) in enumerate(ORDER):
            here = (..., slice(a, None, 2), slice(b, None, 2), slice(c, None, 2))
            if number and near[here].numel():
                near[here] = self._near(code, number)
        return mean + near, logvar

    def draw(self, y: Tensor, noise: Tensor | None = None) -> Tensor:
        """Codes drawn from the prior with standard normal ``noise``, pass by pass; without it, those expected."""
        mean, logvar = self._expected(y)
        spread = torch.exp(0.5 * logvar)
        code = torch.zeros_like(mean)
        for number, (a, b, c) in enumerate(ORDER):
            here = (..., slice(a, None, 2), slice(b, None, 2), slice(c, None, 2))
            if not code[here].numel():
                continue
            value = mean[here]
            if number:
                value = value + self._near(code, number)
            if noise is not None:
                value = value + spread[here] * noise[here]
            code = code.clone()
            code[here] = value
        return code

    def _expected(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """What the network says of mean and log-variance, with every pass's own variance."""
        mean, logvar = self.expect(functional.silu(self.norm(y))).float().chunk(2, dim=1)
        left = torch.zeros_like(logvar)
        for number, (a, b, c) in enumerate(ORDER):
            left[..., a::2, b::2, c::2] = self.left[number, :, None, None, None]
        return mean, (logvar + left).clamp(*_LOGVAR)

    def _near(self, code: Tensor, number: int) -> Tensor:
        """What earlier passes among the neighbours say of the positions of a pass."""
        with full_precision(code.device):
            return functional.conv3d(self._known(code, number), self.neighbours[number], stride=2)

    def _known(self, code: Tensor, number: int) -> Tensor:
        """Codes of earlier passes, 0 elsewhere, with a rim of 0, from where the pass has its first position."""
        known = torch.zeros_like(code, dtype=torch.float32)
        for a, b, c in ORDER[:number]:
            known[..., a::2, b::2, c::2] = code[..., a::2, b::2, c::2]
        a, b, c = ORDER[number]
        return functional.pad(known, (1,) * 6)[:, :, a:, b:, c:]

    @torch.no_grad()
    def fit(self, mean: Tensor, logvar: Tensor, seen: Tensor) -> None:
        """Start the prior as the ridge regression of codes on their neighbours.

        Args:
            mean: Posterior means of the training scans, (n, codes, i, j, k).
            logvar: Their log-variances, (codes,); drawn codes vary by these as well.
            seen: Share of every position's block that shows the patient, (n, 1, i, j, k).
        """
        own = logvar.double().exp()
        for number, (a, b, c) in enumerate(ORDER):
            here = (..., slice(a, None, 2), slice(b, None, 2), slice(c, None, 2))
            if not mean[here].numel():
                continue
            gram, cross = own.new_zeros(27 * self.codes, 27 * self.codes), own.new_zeros(27 * self.codes, self.codes)
            square, count = own.new_zeros(self.codes), own.new_zeros(())
            for scan, share in zip(mean.split(1), seen.split(1), strict=True):
                target = scan[here][0].flatten(1).T.double()
                weight = share[here].flatten()[:, None].double()
                rows = self._windows(self._known(scan, number), scan[here].shape[2:]).double()
                gram, cross = gram + rows.T @ (rows * weight), cross + rows.T @ (target * weight)
                square, count = square + (target.square() * weight).sum(0), count + weight.sum()
            # Only what is ever known gets noise: other columns are 0 and keep weight 0 by the ridge.
            known = (gram.diagonal() > 0).double()
            noise = own.repeat_interleave(27) * known
            penalised = gram + torch.diag(count * noise + _RIDGE)
            weights = torch.linalg.solve(penalised, cross) * known[:, None]
            rest = square - 2 * (weights * cross).sum(0) + (weights * (gram @ weights)).sum(0)
            variance = rest / count.clamp_min(1e-6) + (weights.square() * noise[:, None]).sum(0) + own
            self.neighbours[number].copy_(weights.T.reshape(self.codes, self.codes, 3, 3, 3))
            self.left[number].copy_(variance.clamp_min(1e-4).log())

    @staticmethod
    def _windows(known: Tensor, size: torch.Size) -> Tensor:
        """The 3³ neighbourhoods of a pass's positions, (positions, codes · 27), in the order of a convolution."""
        parts = [
            known[0, :, a : a + 2 * size[0] - 1 : 2, b : b + 2 * size[1] - 1 : 2, c : c + 2 * size[2] - 1 : 2]
            for a, b, c in itertools.product(range(3), repeat=3)
        ]
        return torch.stack(parts, dim=1).flatten(2).flatten(0, 1).T
