"""The score ``selfsup``: how much a place looks like one that was tampered with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.scores.base import SCORES, Inputs, State, score
from medgen.anomaly.scores.corrupted_copies import corrupted_copies
from medgen.anomaly.scores.descriptors import LIMIT, Rows, descriptors_of, standardised_scans, standardised_without
from medgen.errors import ConfigError

# Places at which the weight of a |z| may change: small deviations are noise, large ones saturate.
KNOTS = (1.5, 3.0)
# Voxels whose shapes are made at a time: those of a whole scan are hundreds of megabytes.
_PART = 1 << 13
# Inverse strength of the weights' shrinkage to zero.
_SHRINKAGE = 0.01


def _fit_selfsup(training: Inputs) -> dict[str, NDArray[Any]]:
    """Weights of an additive logistic model of "this voxel was corrupted" on standardised descriptors."""
    from sklearn.linear_model import LogisticRegression

    state = SCORES["descriptors"].fit(training)
    count = training.mask.sum(axis=0, dtype=np.float32)
    rows, labels = [], []
    for copies, own, mask in zip(corrupted_copies(training), descriptors_of(training), training.mask, strict=True):
        both = (mask & state["region"])[mask]
        place = np.cumsum(state["region"].ravel()).reshape(mask.shape)[mask] - 1
        for copy in copies:
            known = both[copy.voxels]
            at, here = place[copy.voxels[known]], copy.voxels[known]
            z = standardised_without(
                copy.values[:, known], own[:, here], count[mask][here], state["mean"][:, at], state["sd"][:, at]
            )
            rows.append(_shapes(z).astype(np.float16))
            labels.append(copy.changed[known])
    target = np.concatenate(labels)
    if target.all() or not target.any():
        raise ConfigError("anomaly: the training scans are too small or too flat for corruptions to be seen in them")
    fitted = LogisticRegression(C=_SHRINKAGE, solver="newton-cholesky").fit(
        np.concatenate(rows).astype(np.float32), target
    )
    return {"weight": fitted.coef_[0].astype(np.float32), "bias": fitted.intercept_.astype(np.float32)}


def _shapes(z: Rows) -> Rows:
    """(c · d, m) to (m, 4 c · d): z, |z| and what |z| exceeds each knot by, for a piecewise linear weighting."""
    size = np.abs(z)
    return np.concatenate([z, size, *(np.maximum(size - knot, 0) for knot in KNOTS)]).T


@score("selfsup", order=20, fit=_fit_selfsup, shares="descriptors", from_corruptions=True)
def selfsup(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Log-odds that a place was tampered with: standardised descriptors weighted by a self-supervised classifier.

    An additive logistic model, trained in seconds on synthetic corruptions of the training scans (intensity, noise,
    sharpness, deformation, displaced tissue). It shares its idea with implanted test anomalies: reports show it apart,
    and benchmarks repeat it with the alike corruptions left out.

    Source: Tan et al., "Detecting outliers with foreign patch interpolation" (FPI), MELBA 2022; Tan et al., "Detecting
    outliers with Poisson image interpolation" (PII), MICCAI 2021; Hastie and Tibshirani, "Generalized additive
    models", Statistical Science 1986.

    That is instead of Tan's networks, which need thousands of steps and scans.
    """
    result = np.full(inputs.mask.shape, np.float32(-LIMIT))
    for target, (z, both) in zip(result, standardised_scans(inputs, state), strict=True):
        odds = np.empty(z.shape[1], dtype=np.float32)
        for start in range(0, odds.size, _PART):
            part = slice(start, start + _PART)
            odds[part] = _shapes(z[:, part]) @ state["weight"] + state["bias"]
        target[both] = odds
    return result
