"""Scores from local descriptors: how unusual intensity, sharpness, texture and symmetry are at a place.

The descriptors of :mod:`medgen.anomaly.scores.descriptors` are compared with their mean and standard deviation over the
training scans at that place. Two scores take the resulting z as they are; the self-supervised one weighs them by how
well they told apart corrupted from healthy places of the training scans.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from medgen.anomaly.scores.base import Inputs, State, score
from medgen.anomaly.scores.corruptions import corrupt
from medgen.anomaly.scores.descriptors import NAMES, describe
from medgen.anomaly.scores.settings.corruptions import DEFAULT
from medgen.errors import ConfigError
from medgen.seeds import derive, numpy_rng

# A scan's worth of the average variance at every voxel, and the blur of the variances in voxels.
_PRIOR, _BLUR = 10.0, 1.5
# A z beyond this says nothing more.
_LIMIT = 8.0
# Most corrupted copies of a training scan, and about how many are enough in all: a hundred weights are known by then.
_COPIES, _ENOUGH = 8, 160
# Regions per copy, their radii in voxels, and voxels kept per copy.
_REGIONS, _RADII = 6, (1.5, 7.0)
_CHANGED, _HEALTHY = 1500, 2500
# Places at which the weight of a |z| may change: small deviations are noise, large ones saturate.
_KNOTS = (1.5, 3.0)
# Inverse strength of the weights' shrinkage to zero.
_SHRINKAGE = 0.01

Rows = NDArray[np.float32]


def _described(inputs: Inputs) -> list[NDArray[np.float16]]:
    """Per scan the descriptors of its foreground, (c · d, n) float16, from the memo where they are known."""
    result = []
    for scan, mask, memo in zip(inputs.voxels, inputs.mask, inputs.memo, strict=True):
        if "descriptors" not in memo:
            memo["descriptors"] = _flat(scan, mask)
        result.append(memo["descriptors"])
    return result


def _flat(scan: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float16]:
    return np.concatenate([describe(channel, mask)[:, mask] for channel in scan]).astype(np.float16)


def _fit_local(training: Inputs) -> dict[str, NDArray[Any]]:
    """Mean and standard deviation of every descriptor over the scans that show a voxel, the latter shrunk."""
    described, masks = _described(training), training.mask
    count = masks.sum(axis=0, dtype=np.float32)
    region = count > 1
    spare = np.maximum(count - 1, 0)
    weight = ndimage.gaussian_filter(spare, _BLUR)[region] + _PRIOR
    means, deviations = [], []
    for row in range(len(described[0])):
        maps = [_grid(values[row], mask) for values, mask in zip(described, masks, strict=True)]
        mean = np.sum(maps, axis=0) / np.maximum(count, 1)
        square = np.zeros(count.shape, dtype=np.float32)
        for values, mask in zip(maps, masks, strict=True):
            square[mask] += (values[mask] - mean[mask]) ** 2
        pooled = float(square[region].sum() / max(float(spare[region].sum()), 1.0))
        variance = (ndimage.gaussian_filter(square, _BLUR)[region] + _PRIOR * pooled) / weight
        means.append(mean[region])
        deviations.append(np.sqrt(variance))
    # Half precision: three digits of a z are plenty, and the artifact holds these maps for every fold.
    return {
        "region": region,
        "mean": np.array(means, dtype=np.float16),
        "sd": np.maximum(np.array(deviations), 1e-3).astype(np.float16),
    }


def _grid(values: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    result = np.zeros(mask.shape, dtype=np.float32)
    result[mask] = values
    return result


def _z(values: NDArray[np.float16], mask: NDArray[np.bool_], state: State) -> tuple[Rows, NDArray[np.bool_]]:
    """Standardised descriptors (c · d, m) of the m voxels that are both in the scan and in the region, and where."""
    both = mask & state["region"]
    own, known = both[mask], both[state["region"]]
    z = (values[:, own].astype(np.float32) - state["mean"][:, known]) / state["sd"][:, known]
    return np.clip(z, -_LIMIT, _LIMIT), both


@score("descriptors", fit=_fit_local)
def descriptors(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Root mean square z of the local descriptors: intensity, contrast, sharpness, texture, asymmetry.

    A density of local descriptors given the place, with independent Gaussian factors: with few scans a full covariance
    at every voxel is worse.

    Source: Defard et al., "PaDiM: a patch distribution modeling framework for anomaly detection and localization",
    ICPR 2021; Goncharov et al., "Screener: self-supervised pathology segmentation model for 3D medical images", 2025.
    """
    result = np.zeros(inputs.mask.shape, dtype=np.float32)
    for target, values, mask in zip(result, _described(inputs), inputs.mask, strict=True):
        z, both = _z(values, mask, state)
        target[both] = np.sqrt(np.mean(z * z, axis=0))
    return result


@score("texture", shares="descriptors")
def texture(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """|z| of the energy of the finest detail around a voxel: too sharp, too noisy, or blurred for this place.

    Source: Laws, "Rapid texture identification", SPIE 1980 (texture energy); z as in Defard et al., "PaDiM", 2021.
    """
    rows = [row for row in range(len(state["mean"])) if NAMES[row % len(NAMES)] in {"fine_1", "fine_2"}]
    part = {**state, "mean": state["mean"][rows], "sd": state["sd"][rows]}
    result = np.zeros(inputs.mask.shape, dtype=np.float32)
    for target, values, mask in zip(result, _described(inputs), inputs.mask, strict=True):
        z, both = _z(values[rows], mask, part)
        target[both] = np.sqrt(np.mean(z * z, axis=0))
    return result


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
    return _flat(changed[0].numpy(), mask)[:, rows], rows, marked[rows]


def _fit_selfsup(training: Inputs) -> dict[str, NDArray[Any]]:
    """Weights of an additive logistic model of "this voxel was corrupted" on standardised descriptors."""
    from sklearn.linear_model import LogisticRegression

    state = _fit_local(training)
    count = training.mask.sum(axis=0, dtype=np.float32)
    rows, labels = [], []
    for copies, own, mask in zip(_corrupted(training), _described(training), training.mask, strict=True):
        both = (mask & state["region"])[mask]
        place = np.cumsum(state["region"].ravel()).reshape(mask.shape)[mask] - 1
        for values, voxels, changed in copies:
            known = both[voxels]
            at, here = place[voxels[known]], voxels[known]
            n = count[mask][here]
            # The scan's own part taken out of the mean: a new scan has none in it.
            mean = (n * state["mean"][:, at] - own[:, here]) / (n - 1)
            z = np.clip((values[:, known] - mean) / state["sd"][:, at], -_LIMIT, _LIMIT)
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


@score("selfsup", fit=_fit_selfsup, shares="descriptors")
def selfsup(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Log-odds that a place was tampered with: standardised descriptors weighted by a self-supervised classifier.

    An additive logistic model, trained in seconds on synthetic corruptions of the training scans (intensity, noise,
    sharpness, deformation, displaced tissue). It shares its idea with implanted test anomalies: reports show it apart,
    and benchmarks repeat it with the alike corruptions left out.

    Source: Tan et al., "Detecting outliers with foreign patch interpolation" (FPI), MELBA 2022; Tan et al., "Detecting
    outliers with Poisson image interpolation" (PII), MICCAI 2021; Hastie and Tibshirani, "Generalized additive
    models", Statistical Science 1986, instead of their networks, which need thousands of steps and scans.
    """
    result = np.full(inputs.mask.shape, np.float32(-_LIMIT))
    for target, values, mask in zip(result, _described(inputs), inputs.mask, strict=True):
        z, both = _z(values, mask, state)
        target[both] = _shapes(z) @ state["weight"] + state["bias"]
    return result
