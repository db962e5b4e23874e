"""Channels of a generative model: voxel maps from reconstruction and likelihood, and scan scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medgen.anomaly.registry import Inputs, State, score
from medgen.models.base import HasLatent, HasLikelihood, HasVoxelLikelihood, Reconstructs, SegmentsAnomalies
from medgen.seeds import torch_rng


@score("residual", needs=Reconstructs)
def residual(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Absolute reconstruction error |x − x̂| of the posterior-mean reconstruction, averaged over image channels.

    Source: Baur et al., "Deep autoencoding models for unsupervised anomaly segmentation in brain MR images", 2018.
    """
    return np.asarray((inputs.image - inputs.reconstruction).abs().mean(dim=1).cpu().numpy())


@score("squared", needs=Reconstructs)
def squared(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Squared reconstruction error (x − x̂)², averaged over image channels.

    Source: Zimmerer et al., "Unsupervised anomaly localization using variational auto-encoders", MICCAI 2019.
    """
    return np.asarray((inputs.image - inputs.reconstruction).square().mean(dim=1).cpu().numpy())


@score("nll", needs=HasVoxelLikelihood)
def nll(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Negative log-likelihood of every voxel, exp(−s)(x − x̂)² + s up to constants, s the predicted log-variance.

    Source: Mao et al., "Abnormality detection in chest X-ray images using uncertainty prediction autoencoders" (AE-U),
    MICCAI 2020; Cai et al., "MedIAnomaly", 2024.
    """
    with torch.inference_mode():
        return np.asarray(inputs.network(HasVoxelLikelihood).voxel_nll(inputs.image).float().mean(dim=1).cpu().numpy())


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


@score("selfsup", needs=SegmentsAnomalies)
def selfsup(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Log-odds of a self-supervised segmentation head that a place was tampered with.

    It is trained on synthetic corruptions and so shares its idea with implanted test anomalies: reports show it apart,
    and benchmarks repeat it with the alike corruptions left out of its training.

    Source: Tan et al., "Detecting outliers with foreign patch interpolation", MELBA 2022; Tan et al., "Detecting
    outliers with Poisson image interpolation", MICCAI 2021.
    """
    network = inputs.network(SegmentsAnomalies)
    scans = zip(inputs.image.split(1), inputs.foreground.split(1), strict=True)
    with torch.inference_mode():
        return np.concatenate([network.anomaly_logits(image, mask)[:, 0].cpu().numpy() for image, mask in scans])
