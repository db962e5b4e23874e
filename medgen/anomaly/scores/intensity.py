"""The score ``intensity``: how bright or dark a voxel is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.scores.base import Inputs, State, score


def _fit_centre(training: Inputs) -> dict[str, NDArray[Any]]:
    """Median intensity of the training scans' foreground per channel, (c,)."""
    return {"median": np.array([np.median(c[training.mask]) for c in np.moveaxis(training.voxels, 1, 0)], np.float32)}


@score("intensity", order=9, fit=_fit_centre, baseline=True)
def intensity(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Two-sided intensity threshold: distance of the intensity from the training scans' median, wherever it lies.

    Dark lesions are found as well as bright ones; ``equalised`` is for bright ones alone, as in FLAIR.

    Source: Meissen et al., "Challenging current semi-supervised anomaly segmentation methods for brain MRI", 2021.
    """
    return np.asarray(np.abs(inputs.voxels - state["median"][:, None, None, None]).mean(axis=1))
