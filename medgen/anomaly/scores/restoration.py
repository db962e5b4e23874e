"""The score ``restoration``: the edit that makes a scan likely."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medgen.anomaly.scores.base import Inputs, State, score, voxel_map
from medgen.models import losses
from medgen.models.base import HasDecoder

# Weight of the total variation of a restoration, times the typical standard deviation σ of the decoder. An edit t of a
# cube of n³ voxels that are off by C gains n³(Ct − t²/2)/σ² nats and costs 6n²t · 0.5/σ: the best is t = C − 3σ/n. So a
# lone voxel is left alone up to 3 standard deviations, a cube of 27 up to 1: noise stays, lesions go.
_TV_WEIGHT = 0.5
# Differences below this many standard deviations count as squares in the total variation, which makes it smooth.
_TV_CORNER = 0.3


class RestorationObjective:
    """The objective of a MAP restoration of one scan, −ELBO(x + d) + λ TV(d), over edits d in the foreground, in nats.

    The bound is taken at the posterior mean, which makes it deterministic; its likelihood counts foreground voxels.
    TV is the isotropic total variation with corners rounded off below ``corner``; outside the foreground d is 0, and
    the step there counts, so that with a large λ nothing is edited at all.

    Args:
        model: Has a decoder.
        x: (1, c, i, j, k).
        foreground: (1, 1, i, j, k).
        weight: λ in units of one over the decoder's typical standard deviation.
    """

    def __init__(self, model: Any, x: Tensor, foreground: Tensor, weight: float = _TV_WEIGHT) -> None:
        self.model, self.x, self.inside = model, x.detach().clone(), foreground.to(x.dtype)
        with torch.no_grad():
            logvar = model.decode(model.encode(self.x)[0]).logvar
            inside = foreground.bool().expand_as(logvar)
            self.sd = float(torch.exp(0.5 * logvar[inside].median())) if inside.any() else 1.0
        self.weight = weight / self.sd
        self.corner = _TV_CORNER * self.sd

    def __call__(self, edit: Tensor) -> Tensor:
        """Value in nats, a scalar in float64, of an edit (1, c, i, j, k)."""
        edit = edit * self.inside
        y = self.x + edit
        mean, logvar = self.model.encode(y)
        decoded = self.model.decode(mean)
        nll = losses.gaussian_nll(y, decoded.mean, decoded.logvar) * self.inside
        kl = losses.kl_standard_normal(mean, logvar)
        return nll.double().sum() + kl.double().sum() + self.weight * self.variation(edit)

    def variation(self, edit: Tensor) -> Tensor:
        """Total variation of an edit whose surroundings are 0, a scalar in float64."""
        around = functional.pad(edit, (1, 1, 1, 1, 1, 1))
        here = around[..., :-1, :-1, :-1]
        square = (around[..., 1:, :-1, :-1] - here).square() + (around[..., :-1, 1:, :-1] - here).square()
        square = square + (around[..., :-1, :-1, 1:] - here).square()
        return ((square + self.corner**2).sqrt() - self.corner).double().sum()

    def solve(self, steps: int) -> Tensor:
        """The edit (1, c, i, j, k) after ``steps`` quasi-Newton steps (L-BFGS, Nocedal and Wright 2006) from none.

        Plain gradient steps, as published, need a step size for every model, and many of them.
        """
        with torch.enable_grad():
            # In standard deviations, where the likelihood is about equally curved everywhere.
            scaled = torch.zeros_like(self.x, requires_grad=True)
            optimiser = torch.optim.LBFGS(
                [scaled], max_iter=steps, max_eval=4 * steps, history_size=8, line_search_fn="strong_wolfe"
            )

            def objective() -> Tensor:
                optimiser.zero_grad()
                value = self(self.sd * scaled)
                (scaled.grad,) = torch.autograd.grad(value, scaled)
                return value

            optimiser.step(objective)
        return (self.sd * scaled * self.inside).detach()


@score("restoration", order=25, needs=HasDecoder, float32=True, costly=True)
def restoration(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Size of the edit |x − x'| that makes a scan likely: x' minimises −ELBO(x') + λ TV(x' − x); mean over channels.

    ``restoration_steps`` steps from x, one scan at a time; see :class:`RestorationObjective` for objective and weight.

    Source: You et al., "Unsupervised lesion detection via image restoration with a normative prior", MIDL 2019; Chen et
    al., "Unsupervised lesion detection via image restoration with a normative prior", Medical Image Analysis 2020.
    """
    model = inputs.network(HasDecoder)
    steps = int(inputs.settings.get("restoration_steps", 50))
    scans = zip(inputs.image.split(1), inputs.foreground.split(1), strict=True)
    return np.concatenate([voxel_map(RestorationObjective(model, x, mask).solve(steps).abs()) for x, mask in scans])
