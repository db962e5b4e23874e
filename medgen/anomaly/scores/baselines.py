"""Simple scores that every deep channel has to beat; each is a published baseline and costs seconds to fit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.scores.base import Inputs, State, score
from medgen.metrics.robust import robust_spread
from medgen.seeds import numpy_rng
from medgen.transforms.masked_smoothing import smooth

_COMPONENTS = 12
_NEIGHBOURS = 3
_BINS = 32
_SIGMAS = (1.0, 2.0, 4.0)


def _fit_moments(training: Inputs) -> dict[str, NDArray[Any]]:
    """Mean and standard deviation at every voxel over the scans that show the patient there, (c, i, j, k)."""
    count = np.maximum(training.mask.sum(axis=0, dtype=np.float32), 1)
    mean = training.voxels.sum(axis=0) / count
    square = ((training.voxels - mean) ** 2 * training.mask[:, None]).sum(axis=0)
    pooled = float(square.sum() / max(1, training.mask.sum() * training.voxels.shape[1]))
    # Ten scans' worth of the average variance: at the rim of the foreground few scans say what is usual.
    sd = np.sqrt((square + 10 * pooled) / (count + 10))
    return {"mean": mean.astype(np.float32), "sd": np.maximum(sd, 1e-6).astype(np.float32)}


@score("zscore", fit=_fit_moments, baseline=True)
def zscore(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Voxel-wise z: |x − mean| / sd over the training scans at that place.

    Source: Saase et al., "Simple statistical methods for unsupervised brain anomaly detection on MRI are competitive to
    deep learning methods", 2020 (voxel-wise Mahalanobis distance, here per channel).
    """
    return np.asarray((np.abs(inputs.voxels - state["mean"]) / state["sd"]).mean(axis=1))


def _fit_covariance(training: Inputs) -> dict[str, NDArray[Any]]:
    """Mean (c, i, j, k) and a whitening matrix (i, j, k, c, c) at every voxel.

    The whitening is the inverse Cholesky factor of the covariance over the scans that show the patient there, shrunk
    to the covariance pooled over all places with the weight of ten scans, as in the score ``zscore``.
    """
    count = np.maximum(training.mask.sum(axis=0, dtype=np.float32), 1)
    mean = training.voxels.sum(axis=0) / count
    offset = (training.voxels - mean) * training.mask[:, None]
    products = np.einsum("ncxyz,ndxyz->xyzcd", offset, offset, dtype=np.float64)
    pooled = products.sum(axis=(0, 1, 2)) / max(1, training.mask.sum())
    # Channels that are copies of each other have a singular covariance.
    pooled += np.eye(len(pooled)) * (1e-6 * np.trace(pooled) / len(pooled) + 1e-12)
    covariance = (products + 10 * pooled) / (count[..., None, None] + 10)
    whitening = np.linalg.inv(np.linalg.cholesky(covariance))
    return {"mean": mean.astype(np.float32), "whitening": whitening.astype(np.float32)}


@score("mahalanobis_voxel", fit=_fit_covariance, baseline=True)
def mahalanobis_voxel(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Mahalanobis distance √((x − mean)ᵀ Σ⁻¹ (x − mean)) over the image channels at every voxel.

    It sees what ``zscore`` cannot: intensities that are each usual, but not together. With one channel both are equal.

    Source: Saase et al., "Simple statistical methods for unsupervised brain anomaly detection on MRI are competitive to
    deep learning methods", 2020.
    """
    offset = inputs.voxels - state["mean"]
    white = np.einsum("xyzcd,bdxyz->bcxyz", state["whitening"], offset)
    return np.asarray(np.sqrt((white**2).sum(axis=1)))


def _fit_robust(training: Inputs) -> dict[str, NDArray[Any]]:
    """Median and scaled median absolute deviation at every voxel, (c, i, j, k); background counts as 0."""
    median = np.median(training.voxels, axis=0)
    mad = robust_spread(training.voxels, axis=0)
    floor = np.median(mad[mad > 0]) / 2 if (mad > 0).any() else 1e-6
    return {"median": median.astype(np.float32), "mad": np.maximum(mad, floor).astype(np.float32)}


@score("robust_z", fit=_fit_robust, baseline=True)
def robust_z(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Voxel-wise robust z: |x − median| / (1.4826 · MAD).

    Source: Leys et al., "Detecting outliers: do not use standard deviation around the mean, use absolute deviation
    around the median", Journal of Experimental Social Psychology 2013.
    """
    return np.asarray((np.abs(inputs.voxels - state["median"]) / state["mad"]).mean(axis=1))


def _fit_pca(training: Inputs) -> dict[str, NDArray[Any]]:
    """Mean and leading components of the training scans inside the union of their foregrounds.

    With n scans and v ≫ n voxels the components come from the n × n Gram matrix X Xᵀ = U S² Uᵀ as V = Xᵀ U / S.
    """
    region = training.mask.any(axis=0)
    data = training.voxels[:, :, region].reshape(len(training), -1)
    mean = data.mean(axis=0)
    data = data - mean
    eigenvalues, vectors = np.linalg.eigh(data.astype(np.float64) @ data.T.astype(np.float64))
    order = np.argsort(eigenvalues)[::-1][: min(_COMPONENTS, max(1, len(training) - 2))]
    order = order[eigenvalues[order] > 1e-9 * max(float(eigenvalues.max()), 1e-12)]
    components = (vectors[:, order].T / np.sqrt(eigenvalues[order])[:, None]).astype(np.float32) @ data
    return {"region": region, "mean": mean.astype(np.float32), "components": components.astype(np.float32)}


@score("pca", fit=_fit_pca, baseline=True)
def pca(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Residual |x − x̂| of the projection on the 12 leading principal components of the training scans.

    Source: Turk and Pentland, "Eigenfaces for recognition", Journal of Cognitive Neuroscience 1991 (distance from the
    space of eigenvectors, and the Gram trick).
    """
    region = state["region"]
    data = inputs.voxels[:, :, region].reshape(len(inputs), -1) - state["mean"]
    residual = data - (data @ state["components"].T) @ state["components"]
    result = np.zeros(inputs.voxels.shape, dtype=np.float32)
    result[:, :, region] = np.abs(residual).reshape(len(inputs), inputs.voxels.shape[1], -1)
    return np.asarray(result.mean(axis=1))


def _project(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Scores (b, components) on the principal components of :func:`_fit_pca`."""
    data = inputs.voxels[:, :, state["region"]].reshape(len(inputs), -1)
    return np.asarray((data - state["mean"]) @ state["components"].T)


def _fit_neighbours(training: Inputs) -> dict[str, NDArray[Any]]:
    """The principal components, and the training scans' scores on them, (n, components): no scan itself is kept."""
    state = _fit_pca(training)
    return {**state, "scores": _project(training, state)}


def _nearest(points: NDArray[Any], training: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Distances and rows (b, k) of the k training points (n, d) that are nearest to each of (b, d), nearest first."""
    distances = np.linalg.norm(points[:, None].astype(np.float64) - training[None], axis=2)
    rows = np.argsort(distances, axis=1, kind="stable")[:, :_NEIGHBOURS]
    return np.take_along_axis(distances, rows, axis=1), rows


@score("knn", fit=_fit_neighbours, baseline=True)
def knn(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Residual |x − x̄| to the mean of the 3 training scans that are nearest in the space of ``pca``.

    The neighbours are seen through their 12 principal components. Nothing of the scan itself enters x̄, so unlike the
    projection of ``pca`` it cannot follow an anomaly.

    Source: Cohen and Hoshen, "Sub-image anomaly detection with deep pyramid correspondences", 2020 (here with principal
    components for features, and intensities compared).
    """
    _, rows = _nearest(_project(inputs, state), state["scores"])
    expected = state["mean"] + state["scores"][rows].mean(axis=1) @ state["components"]
    region = state["region"]
    result = np.zeros(inputs.voxels.shape, dtype=np.float32)
    residual = np.abs(inputs.voxels[:, :, region].reshape(len(inputs), -1) - expected)
    result[:, :, region] = residual.reshape(len(inputs), inputs.voxels.shape[1], -1)
    return np.asarray(result.mean(axis=1))


@score("knn_pca", level="scan", fit=_fit_neighbours, baseline=True)
def knn_pca(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Mean distance to the 3 nearest training scans in the space of ``pca``, every component scaled to variance 1.

    Source: Angiulli and Pizzuti, "Fast outlier detection in high dimensional spaces", PKDD 2002 (sum of the distances
    to the k nearest).
    """
    # The training scores have mean zero.
    scale = np.sqrt((state["scores"].astype(np.float64) ** 2).sum(axis=0) / max(1, len(state["scores"]) - 1))
    distances, _ = _nearest(_project(inputs, state) / scale, state["scores"] / scale)
    return np.asarray(distances.mean(axis=1), dtype=np.float32)


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


@score("histogram", level="scan", fit=_fit_histogram, baseline=True)
def histogram(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Mahalanobis distance of the foreground's intensity histogram from those of the training scans.

    32 bins per channel over the intensities of the training scans; square roots of the shares, which make Euclidean
    distances of histograms those of Hellinger; covariance by Ledoit and Wolf.

    Source: Rao, "A review of canonical coordinates and an alternative to correspondence analysis using Hellinger
    distance", 1995; Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004.
    """
    offset = _histograms(inputs, state["low"], state["high"]) - state["location"]
    return np.asarray(np.sqrt(np.maximum(np.einsum("bi,ij,bj->b", offset, state["precision"], offset), 0)))


@score("blur", baseline=True)
def blur(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """|x − G_σ(x)| averaged over σ = 1, 2, 4 voxels: how much a place differs from its surroundings.

    Source: Marr and Hildreth, "Theory of edge detection", Proceedings of the Royal Society B 1980 (difference of
    Gaussians).
    """
    result = np.zeros(inputs.mask.shape, dtype=np.float32)
    for target, channels, mask in zip(result, inputs.voxels, inputs.mask, strict=True):
        scales = [np.abs(channel - smooth(channel, mask, sigma)) for channel in channels for sigma in _SIGMAS]
        np.mean(scales, axis=0, out=target)
    return result


def _fit_centre(training: Inputs) -> dict[str, NDArray[Any]]:
    """Median intensity of the training scans' foreground per channel, (c,)."""
    return {"median": np.array([np.median(c[training.mask]) for c in np.moveaxis(training.voxels, 1, 0)], np.float32)}


@score("intensity", fit=_fit_centre, baseline=True)
def intensity(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Two-sided intensity threshold: distance of the intensity from the training scans' median, wherever it lies.

    Source: Meissen et al., "Challenging current semi-supervised anomaly segmentation methods for brain MRI", 2021.
    """
    return np.asarray(np.abs(inputs.voxels - state["median"][:, None, None, None]).mean(axis=1))


@score("flip", baseline=True)
def flip(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Left-right asymmetry: |x − mirror image of x| across the middle of the first (right-left) axis.

    Source: Raina et al., "Exploiting bilateral symmetry in brain lesion segmentation", 2019.
    """
    return np.asarray(np.abs(inputs.voxels - inputs.voxels[:, :, ::-1]).mean(axis=1))


@score("distance", baseline=True, local=False)
def distance(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Closeness to the centre of the foreground, in voxels below the farthest one: a control that sees no intensity.

    Source: Meissen et al., "On the pitfalls of using the residual error as anomaly score", MIDL 2022 (trivial
    predictors).
    """
    result = np.zeros(inputs.mask.shape, dtype=np.float32)
    for target, mask in zip(result, inputs.mask, strict=True):
        places = np.argwhere(mask)
        length = np.linalg.norm(places - places.mean(axis=0), axis=1)
        target[mask] = length.max() - length
    return result


@score("random", baseline=True, local=False)
def random(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Uniform noise, the same for every scan: the control that must score at chance.

    Source: Saito and Rehmsmeier, "The precision-recall plot is more informative than the ROC plot", PLoS ONE 2015 (the
    average precision of a random score is the prevalence).
    """
    noise = numpy_rng(0, "score", "random").random(inputs.mask.shape[1:], dtype=np.float32)
    return np.broadcast_to(noise, inputs.mask.shape)
