"""Scan scores of a generative model: its likelihood of a scan, and where the scan's code lies among healthy codes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from torch import Tensor

from medgen.anomaly.scores.base import Inputs, State, score
from medgen.models import losses
from medgen.models.base import HasDecoder, HasLatent, HasLikelihood
from medgen.seeds import derive, torch_rng

_NEIGHBOURS = 3
# Dimensions of the mixture, at most one for every four scans, and its components, at most one for every five.
_MIXTURE_DIMENSIONS = 8
_SCANS_PER_DIMENSION = 4
_MIXTURE_COMPONENTS = 3
_SCANS_PER_COMPONENT = 5
# Added to the variances within a component, where the variance over all scans is 1: no component may shrink to a scan.
_MIXTURE_FLOOR = 0.1
# Pairs of draws for the regret, and step of Adam in posterior standard deviations.
_REGRET_PAIRS = 2
_REGRET_STEP = 0.2


@score("iwae", level="scan", needs=HasLikelihood)
def iwae(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Negative importance-weighted bound on log p(x), in nats per foreground voxel.

    The same noise is used for every scan, so that a score does not depend on which other scans are scored with it.

    Source: Burda et al., "Importance weighted autoencoders", ICLR 2016, eq. 8.
    """
    samples = int(inputs.settings.get("likelihood_samples", 64))
    network = inputs.network(HasLikelihood)
    result = []
    for image, mask in zip(inputs.image, inputs.foreground, strict=True):
        generator = torch_rng(0, "iwae", device=str(image.device))
        with torch.inference_mode():
            value = network.log_likelihood(image[None], mask=mask[None], samples=samples, generator=generator)
        result.append(-float(value) / max(1, int(mask.sum())))
    return np.array(result, dtype=np.float32)


@score("regret", level="scan", needs=HasDecoder, costly=True)
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


def _fit_latent(training: Inputs) -> dict[str, NDArray[Any]]:
    """Mean and shrunk precision of the training scans' posterior means."""
    from sklearn.covariance import LedoitWolf

    fitted = LedoitWolf().fit(training.latent)
    return {"mean": fitted.location_.astype(np.float64), "precision": fitted.precision_.astype(np.float64)}


@score("mahalanobis", level="scan", needs=HasLatent, fit=_fit_latent)
def mahalanobis(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Mahalanobis distance of the posterior mean from those of the training scans, covariance by Ledoit and Wolf.

    Source: Lee et al., "A simple unified framework for detecting out-of-distribution samples", NeurIPS 2018; Ledoit and
    Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004.
    """
    offset = inputs.latent - state["mean"]
    return np.asarray(np.sqrt(np.maximum(np.einsum("bi,ij,bj->b", offset, state["precision"], offset), 0)))


def _fit_codes(training: Inputs) -> dict[str, NDArray[Any]]:
    """The training scans' posterior means, (n, d)."""
    return {"codes": training.latent}


@score("latent_knn", level="scan", needs=HasLatent, fit=_fit_codes)
def latent_knn(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Distance of the posterior mean to the third-nearest of the training scans' posterior means.

    Codes are not scaled to length 1 as in the paper: those of healthy scans follow N(0, I), where length tells.

    Source: Sun et al., "Out-of-distribution detection with deep nearest neighbors", ICML 2022.
    """
    distances = np.linalg.norm(inputs.latent[:, None] - state["codes"][None], axis=2)
    rank = min(_NEIGHBOURS, len(state["codes"])) - 1
    return np.asarray(np.partition(distances, rank, axis=1)[:, rank])


def _fit_mixture(training: Inputs) -> dict[str, NDArray[Any]]:
    """A Gaussian mixture in the leading principal components of the training codes, and one variance for the rest.

    With n codes of d dimensions and r ≪ n components: ``origin`` (d,), ``axes`` (r, d) scaled so that the coordinates
    have variance 1, ``rest`` (1,) the average variance in the other d − r dimensions, and the mixture's ``weights``
    (m,), ``means`` and ``variances`` (m, r) of those coordinates.
    """
    from sklearn.mixture import GaussianMixture

    codes = training.latent
    n, d = codes.shape
    origin = codes.mean(axis=0)
    _, singular, directions = np.linalg.svd(codes - origin, full_matrices=False)
    variances = singular**2 / max(1, n - 1)
    # What codes that do not vary at all get, relative to the scale of the prior.
    floor = 1e-6 * max(1.0, float(variances.sum())) / d
    kept = max(1, min(_MIXTURE_DIMENSIONS, d, n // _SCANS_PER_DIMENSION))
    axes = directions[:kept] / np.sqrt(np.maximum(variances[:kept], floor))[:, None]
    rest = max(float(variances[kept:].sum()) / max(1, d - kept), floor)
    coordinates = (codes - origin) @ axes.T
    distinct = len(np.unique(coordinates.round(6), axis=0))
    most = max(1, min(_MIXTURE_COMPONENTS, n // _SCANS_PER_COMPONENT, distinct))
    candidates = [
        GaussianMixture(
            count,
            covariance_type="diag",
            reg_covar=_MIXTURE_FLOOR,
            n_init=3,
            max_iter=1000,
            random_state=derive(0, "latent_gmm") % 2**32,
        ).fit(coordinates)
        for count in range(1, most + 1)
    ]
    chosen = min(candidates, key=lambda mixture: float(mixture.bic(coordinates)))
    return {
        "origin": origin,
        "axes": axes,
        "rest": np.array([rest]),
        "weights": chosen.weights_,
        "means": chosen.means_,
        "variances": chosen.covariances_,
    }


@score("latent_gmm", level="scan", needs=HasLatent, fit=_fit_mixture)
def latent_gmm(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Negative log-density of the posterior mean, in nats, under a Gaussian mixture of the training scans' codes.

    One to three components, chosen by BIC, with diagonal covariances in the leading principal components of the codes;
    the other dimensions, for which scans are too few, share one variance. That is a density over all dimensions.

    Source: Zong et al., "Deep autoencoding Gaussian mixture model for unsupervised anomaly detection", ICLR 2018;
    Moghaddam and Pentland, "Probabilistic visual learning for object representation", IEEE TPAMI 1997, eq. 16 (the
    density outside of the components); Schwarz, "Estimating the dimension of a model", 1978 (BIC).
    """
    offset = inputs.latent - state["origin"]
    axes, rest, variances = state["axes"], float(state["rest"][0]), state["variances"]
    coordinates = offset @ axes.T
    squared = (coordinates[:, None] - state["means"]) ** 2 / variances + np.log(2 * np.pi * variances)
    inside = logsumexp(np.log(state["weights"]) - 0.5 * squared.sum(axis=2), axis=1)
    lengths = np.linalg.norm(axes, axis=1)
    # Coordinates are stretched: their density becomes that of the code by the stretch's determinant.
    inside += np.log(lengths).sum()
    distance = np.maximum((offset**2).sum(axis=1) - ((coordinates / lengths) ** 2).sum(axis=1), 0)
    outside = -0.5 * (distance / rest + (offset.shape[1] - len(axes)) * math.log(2 * math.pi * rest))
    return np.asarray(-(inside + outside))
