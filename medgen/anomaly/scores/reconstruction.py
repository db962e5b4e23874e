"""Channels of reconstructing models beyond the plain residual: structure, uncertainty, restoration, ensembles, GAN."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medgen.anomaly.scores.base import Inputs, State, score
from medgen.models import losses
from medgen.models.base import Denoises, Discriminates, HasDecoder, Reconstructs
from medgen.models.networks import blocks
from medgen.seeds import torch_rng
from medgen.transforms.masked_smoothing import smooth

# Model intensities: the 1st and 99th percentile of a scan's foreground are 0 and 1.
_DATA_RANGE = 1.0
# Weight of the total variation of a restoration, times the typical standard deviation σ of the decoder. An edit t of a
# cube of n³ voxels that are off by C gains n³(Ct − t²/2)/σ² nats and costs 6n²t · 0.5/σ: the best is t = C − 3σ/n. So a
# lone voxel is left alone up to 3 standard deviations, a cube of 27 up to 1: noise stays, lesions go.
_TV_WEIGHT = 0.5
# Differences below this many standard deviations count as squares in the total variation, which makes it smooth.
_TV_CORNER = 0.3
# Most reconstructions per model in an ensemble: the variance of 16 is known to about a third.
_MOST_SAMPLES = 16
# Weight of the discriminator's features beside the image residual: 1 as published.
_KAPPA = 1.0


def _voxel_map(values: Tensor) -> NDArray[np.float32]:
    """Mean over channels of (b, c, i, j, k) as a NumPy array (b, i, j, k)."""
    return np.asarray(values.float().mean(dim=1).cpu().numpy())


def structural_dissimilarity(x: NDArray[np.float32], y: NDArray[np.float32], scales: int = 2) -> NDArray[np.float32]:
    """1 − SSIM of two images (i, j, k), averaged over ``scales`` resolutions, each half the one before.

    Windows are cubes of 7 voxels (less where the grid is smaller): at half resolution they span 14.

    Returns:
        (i, j, k) float32 in [0, 2]; 0 where the images agree.
    """
    from skimage.metrics import structural_similarity

    total = np.zeros(x.shape, dtype=np.float32)
    both = torch.from_numpy(np.stack([x, y])[:, None].astype(np.float32))
    for level in range(scales):
        factor = 2**level
        padded = blocks.pad_to_multiple(both, factor)
        coarse = functional.avg_pool3d(padded, factor)[:, 0].numpy()
        side = min(coarse.shape[1:])
        _, similarity = structural_similarity(
            *coarse, win_size=min(7, side - 1 + side % 2), data_range=_DATA_RANGE, full=True
        )
        map_ = torch.from_numpy(np.asarray(similarity, dtype=np.float32))[None, None]
        fine = functional.interpolate(map_, size=tuple(padded.shape[2:]), mode="trilinear", align_corners=False)
        total += 1 - blocks.crop_to(fine, x.shape)[0, 0].numpy()
    return total / np.float32(scales)


@score("ssim", needs=Reconstructs)
def ssim(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Structural dissimilarity 1 − SSIM of scan and reconstruction at full and half resolution, mean over channels.

    It looks at local mean, contrast and pattern together and so sees changes of texture that keep the intensity.

    Source: Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE TIP 2004;
    Bergmann et al., "Improving unsupervised defect segmentation by applying structural similarity to autoencoders",
    VISAPP 2019.
    """
    guesses = (inputs.reconstruction * inputs.foreground).cpu().numpy()
    maps = [
        np.mean([structural_dissimilarity(x, y) for x, y in zip(scan, guess, strict=True)], axis=0)
        for scan, guess in zip(inputs.voxels, guesses, strict=True)
    ]
    return np.stack(maps)


@score("aeu", needs=HasDecoder)
def aeu(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Squared error over predicted variance, exp(−s)(x − x̂)², s the decoder's log-variance; mean over channels.

    Without the log term of ``nll``, which raises every place that is hard to predict.

    Source: Mao et al., "Abnormality detection in chest X-ray images using uncertainty prediction autoencoders", MICCAI
    2020; Cai et al., "MedIAnomaly", 2024.
    """
    model = inputs.network(HasDecoder)
    maps = []
    with torch.inference_mode():
        for x in inputs.image.split(1):
            decoded = model.decode(model.encode(x)[0])
            maps.append(_voxel_map(torch.exp(-decoded.logvar) * (x - decoded.mean).square()))
    return np.concatenate(maps)


@score("dae", needs=Denoises)
def dae(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Absolute difference |x − denoised x| of a denoising autoencoder, averaged over image channels.

    Source: Kascenas et al., "Denoising autoencoders for unsupervised anomaly detection in brain MRI", MIDL 2022.
    """
    model = inputs.network(Denoises)
    with torch.inference_mode():
        return np.concatenate([_voxel_map((x - model.denoise(x)).abs()) for x in inputs.image.split(1)])


def kl_input_gradient(model: Any, x: Tensor) -> Tensor:
    """∂KL(q(z|x) ‖ N(0, I)) / ∂x in nats per unit of intensity, (b, c, i, j, k), of a model with ``encode``."""
    with torch.enable_grad():
        image = x.detach().clone().requires_grad_()
        kl = losses.kl_standard_normal(*model.encode(image)).sum()
        (gradient,) = torch.autograd.grad(kl, image)
    return gradient.detach()


@score("kl_gradient", needs=HasDecoder)
def kl_gradient(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Smoothed |∂KL(q(z|x) ‖ N(0, I)) / ∂x| times |x − x̂|: a place the code finds unlikely and that is rebuilt badly.

    The gradient's size is averaged over channels and smoothed by one voxel in the foreground, for it is speckled. Of
    several models with a code, one of family ``cevae``, which is trained for this score, is taken first, else the
    first of the configuration; gradient and residual come from the same model.

    Source: Zimmerer et al., "Context-encoding variational autoencoder for unsupervised anomaly detection", 2018;
    Zimmerer et al., "Unsupervised anomaly localization using variational auto-encoders", MICCAI 2019.
    """
    inputs.network(HasDecoder)
    able = inputs.networks(HasDecoder)
    model = next((model for model in able if model.family == "cevae"), able[0])
    maps = []
    for x, mask in zip(inputs.image.split(1), inputs.mask, strict=True):
        slope = smooth(_voxel_map(kl_input_gradient(model, x).abs())[0], mask, 1.0)
        with torch.inference_mode():
            residual = _voxel_map((x - model.decode(model.encode(x)[0]).mean).abs())[0]
        maps.append(slope * residual)
    return np.stack(maps)


class Restoration:
    """The objective of a MAP restoration of one scan, −ELBO(x + d) + λ TV(d), over edits d in the foreground, in nats.

    The bound is taken at the posterior mean, which makes it deterministic; its likelihood counts foreground voxels.
    TV is the isotropic total variation with corners rounded off below ``corner``; outside the foreground d is 0, and
    the step there counts, so that with a large λ nothing is edited at all.

    Args:
        model: Has a decoder.
        x: (1, c, i, j, k).
        foreground: (1, 1, i, j, k).
        weight: λ in units of one over the decoder's typical standard deviation.
    """

    def __init__(self, model: Any, x: Tensor, foreground: Tensor, weight: float = _TV_WEIGHT) -> None:
        self.model, self.x, self.inside = model, x.detach().clone(), foreground.to(x.dtype)
        with torch.no_grad():
            logvar = model.decode(model.encode(self.x)[0]).logvar
            inside = foreground.bool().expand_as(logvar)
            self.sd = float(torch.exp(0.5 * logvar[inside].median())) if inside.any() else 1.0
        self.weight = weight / self.sd
        self.corner = _TV_CORNER * self.sd

    def __call__(self, edit: Tensor) -> Tensor:
        """Value in nats, a scalar in float64, of an edit (1, c, i, j, k)."""
        edit = edit * self.inside
        y = self.x + edit
        mean, logvar = self.model.encode(y)
        decoded = self.model.decode(mean)
        nll = losses.gaussian_nll(y, decoded.mean, decoded.logvar) * self.inside
        kl = losses.kl_standard_normal(mean, logvar)
        return nll.double().sum() + kl.double().sum() + self.weight * self.variation(edit)

    def variation(self, edit: Tensor) -> Tensor:
        """Total variation of an edit whose surroundings are 0, a scalar in float64."""
        around = functional.pad(edit, (1, 1, 1, 1, 1, 1))
        here = around[..., :-1, :-1, :-1]
        square = (around[..., 1:, :-1, :-1] - here).square() + (around[..., :-1, 1:, :-1] - here).square()
        square = square + (around[..., :-1, :-1, 1:] - here).square()
        return ((square + self.corner**2).sqrt() - self.corner).double().sum()

    def solve(self, steps: int) -> Tensor:
        """The edit (1, c, i, j, k) after ``steps`` quasi-Newton steps (L-BFGS, Nocedal and Wright 2006) from none.

        Plain gradient steps, as published, need a step size for every model, and many of them.
        """
        with torch.enable_grad():
            # In standard deviations, where the likelihood is about equally curved everywhere.
            scaled = torch.zeros_like(self.x, requires_grad=True)
            optimiser = torch.optim.LBFGS(
                [scaled], max_iter=steps, max_eval=4 * steps, history_size=8, line_search_fn="strong_wolfe"
            )

            def objective() -> Tensor:
                optimiser.zero_grad()
                value = self(self.sd * scaled)
                (scaled.grad,) = torch.autograd.grad(value, scaled)
                return value

            optimiser.step(objective)
        return (self.sd * scaled * self.inside).detach()


@score("restoration", needs=HasDecoder, costly=True)
def restoration(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Size of the edit |x − x'| that makes a scan likely: x' minimises −ELBO(x') + λ TV(x' − x); mean over channels.

    ``restoration_steps`` steps from x, one scan at a time; see :class:`Restoration` for objective and weight.

    Source: You et al., "Unsupervised lesion detection via image restoration with a normative prior", MIDL 2019; Chen et
    al., "Unsupervised lesion detection via image restoration with a normative prior", Medical Image Analysis 2020.
    """
    model = inputs.network(HasDecoder)
    steps = int(inputs.settings.get("restoration_steps", 50))
    scans = zip(inputs.image.split(1), inputs.foreground.split(1), strict=True)
    return np.concatenate([_voxel_map(Restoration(model, x, mask).solve(steps).abs()) for x, mask in scans])


def _fit_multireconstruction(training: Inputs) -> dict[str, NDArray[Any]]:
    """Mean squared residual of the training scans in the foreground, per channel: the average model's."""
    models = training.networks(HasDecoder)
    total = torch.zeros(training.image.shape[1], dtype=torch.float64, device=training.image.device)
    with torch.inference_mode():
        for x, mask in zip(training.image.split(1), training.foreground.split(1), strict=True):
            guess = torch.stack([model.decode(model.encode(x)[0]).mean for model in models]).mean(0)
            total += ((x - guess).square() * mask).double().sum((0, 2, 3, 4))
    return {"variance": (total / training.foreground.sum().clamp_min(1)).clamp_min(1e-8).cpu().numpy()}


@score("multireconstruction", needs=HasDecoder, fit=_fit_multireconstruction, costly=True)
def multireconstruction(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Squared distance from the mean of many reconstructions over their variance, (x − x̄)² / (σ_K² + σ₀²).

    Reconstructions decode ``likelihood_samples`` (at most 16) draws of q(z | x) of every model with a decoder, so that
    samples and models form one ensemble; σ_K² is their variance at the voxel, σ₀² the training scans' mean squared
    residual. The same noise is used for every scan. Mean over channels.

    Source: Behrendt et al., "Leveraging the Mahalanobis distance to enhance unsupervised brain MRI anomaly detection",
    MICCAI 2024, here with the diagonal of the covariance.
    """
    inputs.network(HasDecoder)
    count = min(int(inputs.settings.get("likelihood_samples", _MOST_SAMPLES)), _MOST_SAMPLES)
    floor = torch.from_numpy(state["variance"]).to(inputs.image).view(-1, 1, 1, 1)
    maps = []
    with torch.inference_mode():
        for x in inputs.image.split(1):
            number, mean, spread = 0, torch.zeros_like(x), torch.zeros_like(x)
            for place, model in enumerate(inputs.networks(HasDecoder)):
                centre, logvar = model.encode(x)
                noise = torch.randn(count, centre.shape[1], generator=torch_rng(0, "multireconstruction", place))
                for draw in noise.to(centre).split(1):
                    guess = model.decode(centre + torch.exp(0.5 * logvar) * draw).mean
                    # Welford's update: no ensemble of volumes in memory, and no difference of large sums.
                    number += 1
                    step = guess - mean
                    mean = mean + step / number
                    spread = spread + step * (guess - mean)
            maps.append(_voxel_map((x - mean).square() / (spread / number + floor)))
    return np.concatenate(maps)


@score("fanogan", needs=Discriminates)
def fanogan(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """|x − G(E(x))|² + κ |f_D(x) − f_D(G(E(x)))|², f_D the features of a discriminator; κ = 1 as published.

    Both squares are averaged over their channels, and that of the features over layers.

    Source: Schlegl et al., "f-AnoGAN: fast unsupervised anomaly detection with generative adversarial networks",
    Medical Image Analysis 2019, which has one number per image; here the features stay where they are.
    """
    model = inputs.network(Discriminates)
    maps = []
    with torch.inference_mode():
        for x in inputs.image.split(1):
            guess = model.reconstruct(x)
            image = (x - guess).square().mean(dim=1, keepdim=True)
            maps.append(_voxel_map(image + _KAPPA * model.discriminator_distance(x, guess)))
    return np.concatenate(maps)
