"""The score ``latent_knn``: how far a scan's code is from its nearest healthy codes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.scores.base import Inputs, State, score
from medgen.models.base import HasLatent

_NEIGHBOURS = 3


def _fit_codes(training: Inputs) -> dict[str, NDArray[Any]]:
    """The training scans' posterior means, (n, d)."""
    return {"codes": training.latent}


@score("latent_knn", order=16, level="scan", needs=HasLatent, float32=True, fit=_fit_codes)
def latent_knn(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Distance of the posterior mean to the third-nearest of the training scans' posterior means.

    Codes are not scaled to length 1 as in the paper: those of healthy scans follow N(0, I), where length tells.

    Source: Sun et al., "Out-of-distribution detection with deep nearest neighbors", ICML 2022.
    """
    distances = np.linalg.norm(inputs.latent[:, None] - state["codes"][None], axis=2)
    rank = min(_NEIGHBOURS, len(state["codes"])) - 1
    return np.asarray(np.partition(distances, rank, axis=1)[:, rank])
