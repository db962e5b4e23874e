"""The score ``mahalanobis``: how far a scan's code is from the mean of healthy codes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.scores.base import Inputs, State, score
from medgen.models.base import HasLatent


def _fit_latent(training: Inputs) -> dict[str, NDArray[Any]]:
    """Mean and shrunk precision of the training scans' posterior means."""
    from sklearn.covariance import LedoitWolf

    fitted = LedoitWolf().fit(training.latent)
    return {"mean": fitted.location_.astype(np.float64), "precision": fitted.precision_.astype(np.float64)}


@score("mahalanobis", order=15, level="scan", needs=HasLatent, float32=True, fit=_fit_latent)
def mahalanobis(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Mahalanobis distance of the posterior mean from those of the training scans, covariance by Ledoit and Wolf.

    Source: Lee et al., "A simple unified framework for detecting out-of-distribution samples", NeurIPS 2018; Ledoit and
    Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004.
    """
    offset = inputs.latent - state["mean"]
    return np.asarray(np.sqrt(np.maximum(np.einsum("bi,ij,bj->b", offset, state["precision"], offset), 0)))
