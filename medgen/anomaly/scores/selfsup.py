"""The score ``selfsup``: how much a place looks like one that was tampered with."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medgen.anomaly.scores.base import Inputs, State, score
from medgen.anomaly.scores.corruptions import corrupt
from medgen.anomaly.scores.descriptors import LIMIT, Rows, descriptors_of, fit_local, flat_descriptors, standardised
from medgen.anomaly.scores.settings.corruptions import DEFAULT
from medgen.errors import ConfigError
from medgen.seeds import derive, numpy_rng

# Most corrupted copies of a training scan, and about how many are enough in all: a hundred weights are known by then.
_COPIES, _ENOUGH = 8, 160
# Regions per copy, their radii in voxels, and voxels kept per copy.
_REGIONS, _RADII = 6, (1.5, 7.0)
_CHANGED, _HEALTHY = 1500, 2500
# Places at which the weight of a |z| may change: small deviations are noise, large ones saturate.
_KNOTS = (1.5, 3.0)
# Inverse strength of the weights' shrinkage to zero.
_SHRINKAGE = 0.01


def _corrupted(inputs: Inputs) -> list[list[tuple[NDArray[np.float16], NDArray[np.intp], NDArray[np.bool_]]]]:
    """Per scan and corrupted copy: descriptors (c · d, m), indices into the foreground, and whether changed (m,).

    What is pasted comes from the scan itself (shifted and mirrored where another scan is called for), so that a copy
    belongs to its scan alone and every fold may use it.
    """
    kinds = tuple(inputs.settings.get("corruptions", DEFAULT))
    copies = max(1, min(_COPIES, _ENOUGH // len(inputs)))
    result = []
    for scan, mask, memo in zip(inputs.voxels, inputs.mask, inputs.memo, strict=True):
        key = f"corrupted {copies} {kinds}"
        if key not in memo:
            seed = int.from_bytes(hashlib.sha256(scan.tobytes()).digest()[:6], "big")
            memo[key] = [_copy(scan, mask, kinds, derive(seed, "corruption", copy)) for copy in range(copies)]
        result.append(memo[key])
    return result


def _copy(
    scan: NDArray[np.float32], mask: NDArray[np.bool_], kinds: tuple[str, ...], seed: int
) -> tuple[NDArray[np.float16], NDArray[np.intp], NDArray[np.bool_]]:
    rng = numpy_rng(seed, "voxels")
    # Never by zero: tissue that equals its mirror image would be a sign of corruption that no lesion bears.
    shift = rng.choice([-3, -2, 2, 3], size=3)
    other = np.roll(scan[:, ::-1], shift, axis=(1, 2, 3))
    images = torch.from_numpy(np.stack([scan, other]))
    foregrounds = torch.from_numpy(np.stack([mask, np.zeros_like(mask)])[:, None].astype(np.float32))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        changed, truth = corrupt(images, foregrounds, kinds, _RADII, _REGIONS)
    marked = truth[0, 0].numpy()[mask] > 0
    chosen = [rng.permutation(np.flatnonzero(marked))[:_CHANGED], rng.permutation(np.flatnonzero(~marked))[:_HEALTHY]]
    rows = np.concatenate(chosen)
    return flat_descriptors(changed[0].numpy(), mask)[:, rows], rows, marked[rows]


def _fit_selfsup(training: Inputs) -> dict[str, NDArray[Any]]:
    """Weights of an additive logistic model of "this voxel was corrupted" on standardised descriptors."""
    from sklearn.linear_model import LogisticRegression

    state = fit_local(training)
    count = training.mask.sum(axis=0, dtype=np.float32)
    rows, labels = [], []
    for copies, own, mask in zip(_corrupted(training), descriptors_of(training), training.mask, strict=True):
        both = (mask & state["region"])[mask]
        place = np.cumsum(state["region"].ravel()).reshape(mask.shape)[mask] - 1
        for values, voxels, changed in copies:
            known = both[voxels]
            at, here = place[voxels[known]], voxels[known]
            n = count[mask][here]
            # The scan's own part taken out of the mean: a new scan has none in it.
            mean = (n * state["mean"][:, at] - own[:, here]) / (n - 1)
            z = np.clip((values[:, known] - mean) / state["sd"][:, at], -LIMIT, LIMIT)
            rows.append(_shapes(z.astype(np.float32)).astype(np.float16))
            labels.append(changed[known])
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
    return np.concatenate([z, size, *(np.maximum(size - knot, 0) for knot in _KNOTS)]).T


@score("selfsup", order=20, fit=_fit_selfsup, shares="descriptors")
def selfsup(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Log-odds that a place was tampered with: standardised descriptors weighted by a self-supervised classifier.

    An additive logistic model, trained in seconds on synthetic corruptions of the training scans (intensity, noise,
    sharpness, deformation, displaced tissue). It shares its idea with implanted test anomalies: reports show it apart,
    and benchmarks repeat it with the alike corruptions left out.

    Source: Tan et al., "Detecting outliers with foreign patch interpolation" (FPI), MELBA 2022; Tan et al., "Detecting
    outliers with Poisson image interpolation" (PII), MICCAI 2021; Hastie and Tibshirani, "Generalized additive
    models", Statistical Science 1986, instead of their networks, which need thousands of steps and scans.
    """
    result = np.full(inputs.mask.shape, np.float32(-LIMIT))
    for target, values, mask in zip(result, descriptors_of(inputs), inputs.mask, strict=True):
        z, both = standardised(values, mask, state)
        target[both] = _shapes(z) @ state["weight"] + state["bias"]
    return result
