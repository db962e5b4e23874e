"""The score ``regret``: how much likelier a scan gets with a code of its own."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medgen.anomaly.scores.base import Inputs, State, score
from medgen.models import losses
from medgen.models.base import HasDecoder
from medgen.seeds import torch_rng

# Pairs of draws for the regret, and step of Adam in posterior standard deviations.
_REGRET_PAIRS = 2
_REGRET_STEP = 0.2


@score("regret", order=14, level="scan", needs=HasDecoder, float32=True, costly=True)
def regret(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Likelihood regret in nats: how much this scan's evidence lower bound gains from a posterior of its own.

    The bound (over the foreground) after ``restoration_steps`` steps of Adam on mean and log-variance of q(z | x), the
    decoder fixed, minus the bound with the encoder's q. The best q met on the way counts, the encoder's among them, so
    the regret is not negative. A likelihood alone is high for scans that are merely simple; the difference is not.

    Both bounds use the same few draws z = μ ± σ r with random signs r, the same for every scan: mean and variance of q
    are met exactly in every dimension, so no step can gain by fitting the draws' own mean or variance.

    Source: Xiao et al., "Likelihood regret: an out-of-distribution detection score for variational auto-encoder",
    NeurIPS 2020, eq. 5.
    """
    network = inputs.network(HasDecoder)
    steps = int(inputs.settings.get("restoration_steps", 50))
    scans = zip(inputs.image.split(1), inputs.foreground.split(1), strict=True)
    return np.array([_regret(network, image, mask, steps) for image, mask in scans], dtype=np.float32)


def _regret(network: HasDecoder, image: Tensor, mask: Tensor, steps: int) -> float:
    """Gain of the bound in nats for one scan (1, c, i, j, k) with foreground (1, 1, i, j, k)."""
    with torch.no_grad():
        mean, logvar = (part.detach().float() for part in network.encode(image))
    generator = torch_rng(0, "regret", device=str(image.device))
    shape = (_REGRET_PAIRS, mean.shape[1])
    signs = 2.0 * torch.randint(0, 2, shape, generator=generator, device=image.device) - 1
    draws = torch.cat([signs, -signs])

    def bound(shift: Tensor, widen: Tensor) -> Tensor:
        # In units of the encoder's own posterior, so that one step size suits wide and narrow dimensions.
        own_mean, own_logvar = mean + torch.exp(0.5 * logvar) * shift, logvar + widen
        decoded = network.decode(own_mean + torch.exp(0.5 * own_logvar) * draws)
        nll = losses.gaussian_nll(image, decoded.mean, decoded.logvar) * mask
        # A bound has 10⁵ terms and a regret may be a few nats: more digits than float32 sums keep.
        kl = losses.kl_standard_normal(own_mean, own_logvar)
        return -nll.sum(dtype=torch.float64) / len(draws) - kl.sum(dtype=torch.float64)

    with torch.enable_grad():
        free = [torch.zeros_like(mean, requires_grad=True), torch.zeros_like(mean, requires_grad=True)]
        optimiser = torch.optim.Adam(free, lr=_REGRET_STEP)
        value = start = best = -math.inf
        for step in range(steps + 1):
            current = bound(*free)
            value = float(current.detach())
            start, best = (value if step == 0 else start), max(best, value)
            if step == steps:
                break
            for parameter, gradient in zip(free, torch.autograd.grad(-current, free), strict=True):
                parameter.grad = gradient
            # Ever smaller steps: Adam's do not shrink by themselves near the optimum.
            optimiser.param_groups[0]["lr"] = _REGRET_STEP * (1 - step / steps)
            optimiser.step()
    return best - start
