"""The score ``latent_gmm``: how unlikely a scan's code is in a mixture of healthy codes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from medgen.anomaly.scores.base import Inputs, State, score
from medgen.models.base import HasLatent
from medgen.seeds import derive

# Dimensions of the mixture, at most one for every four scans, and its components, at most one for every five.
_MIXTURE_DIMENSIONS = 8
_SCANS_PER_DIMENSION = 4
_MIXTURE_COMPONENTS = 3
_SCANS_PER_COMPONENT = 5
# Added to the variances within a component, where the variance over all scans is 1: no component may shrink to a scan.
_MIXTURE_FLOOR = 0.1


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


@score("latent_gmm", order=17, level="scan", needs=HasLatent, float32=True, fit=_fit_mixture)
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
