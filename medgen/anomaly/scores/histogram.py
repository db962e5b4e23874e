"""The score ``histogram``: how unusual the intensities of a scan are, wherever they lie."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.scores.base import Inputs, State, score

_BINS = 32


def _histograms(inputs: Inputs, low: NDArray[Any], high: NDArray[Any]) -> NDArray[np.float64]:
    """Square roots of the shares of foreground voxels per intensity bin, (b, c · 32); the end bins are open."""
    rows = []
    for scan, mask in zip(inputs.voxels, inputs.mask, strict=True):
        shares = []
        for channel, start, stop in zip(scan, low, high, strict=True):
            place = (channel[mask] - start) * (_BINS / max(float(stop - start), 1e-6))
            counts = np.bincount(np.clip(place, 0, _BINS - 1).astype(np.int64), minlength=_BINS)
            shares.append(counts / max(1, mask.sum()))
        rows.append(np.sqrt(np.concatenate(shares)))
    return np.array(rows)


def _fit_histogram(training: Inputs) -> dict[str, NDArray[Any]]:
    """Range of intensities per channel (c,), and mean and shrunk precision of the training scans' histograms."""
    from sklearn.covariance import LedoitWolf

    inside = [channel[training.mask] for channel in np.moveaxis(training.voxels, 1, 0)]
    low, high = np.array([c.min() for c in inside]), np.array([c.max() for c in inside])
    fitted = LedoitWolf().fit(_histograms(training, low, high))
    return {"low": low, "high": high, "location": fitted.location_, "precision": fitted.precision_}


@score("histogram", order=7, level="scan", fit=_fit_histogram, baseline=True)
def histogram(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Mahalanobis distance of the foreground's intensity histogram from those of the training scans.

    32 bins per channel over the intensities of the training scans; square roots of the shares, which make Euclidean
    distances of histograms those of Hellinger; covariance by Ledoit and Wolf.

    Source: Rao, "A review of canonical coordinates and an alternative to correspondence analysis using Hellinger
    distance", 1995; Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004.
    """
    offset = _histograms(inputs, state["low"], state["high"]) - state["location"]
    return np.asarray(np.sqrt(np.maximum(np.einsum("bi,ij,bj->b", offset, state["precision"], offset), 0)))
