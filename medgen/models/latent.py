"""What the autoencoding families share: a vector code, a Gaussian likelihood per voxel, bounds, and sampling."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from medgen.models import losses
from medgen.models.base import Drawn, GenerativeModel, ModelConfig, ScanCode, Widths
from medgen.models.facts import Likelihood
from medgen.models.networks import blocks
from medgen.models.networks.linear import LinearModel
from medgen.models.sampling import GaussianSampling, SamplingConfig
from medgen.models.stages import Phase

if TYPE_CHECKING:
    from medgen.preprocessing.dataset import Batch, Dataset

# Limits of the predicted log-variance: standard deviations of 0.05 to 4.5 in model intensities.
LOGVAR_RANGE = (-6.0, 3.0)
# Volumes decoded at a time where no gradient is kept.
_CHUNK = 8
# Log-variance of the posterior before the first step.
_START_LOGVAR = -4.0


class LatentSettings(ModelConfig):
    """Settings of an autoencoder with a vector code.

    Attributes:
        widths: Channels per level, multiples of 16; the first level is at half the resolution, each next at half again.
        blocks: Residual blocks per level, in the encoder and in the decoder.
        latent: Length of the code.
        components: Code dimensions that start as principal components of the training scans, at most ``latent``;
            0 is none.
        narrow: Channels that the coarsest level is reduced to before it becomes a vector.
        beta: Weight of the KL divergence; 1 is the evidence lower bound.
        free_bits: Nats per code dimension that cost nothing.
        background: Weight of voxels outside the foreground, relative to those inside.
        warmup: Share of the training during which ``beta`` (and adversarial weights) rise from 0.
    """

    widths: Widths = (32, 64, 128)
    blocks: int = Field(default=1, ge=1, le=8)
    latent: int = Field(default=64, ge=2, le=4096)
    components: int = Field(default=12, ge=0)
    narrow: int = Field(default=16, ge=1)
    beta: float = Field(default=1.0, ge=0)
    free_bits: float = Field(default=0.0, ge=0)
    background: float = Field(default=0.1, gt=0, le=1)
    warmup: float = Field(default=0.3, ge=0, le=1)

    def ramp(self, progress: float) -> float:
        """Factor in [0, 1] that rises linearly over the warm-up."""
        return min(1.0, progress / self.warmup) if self.warmup > 0 else 1.0


class Decoded(NamedTuple):
    """A decoder's prediction of a scan: image mean and log-variance (b, c, i, j, k), and any further maps."""

    mean: Tensor
    logvar: Tensor
    extra: Tensor


class LatentModel(GenerativeModel, ABC):
    """An autoencoder with code z ~ N(0, I), x | z ~ N(μ(z), exp s(z)) per voxel, and q(z | x) Gaussian.

    Shapes need not be divisible by anything: scans are padded by repeating their edge, and cropped again.

    Args:
        settings: The settings.
        extra: Further maps the decoder makes, beside image mean and log-variance.
    """

    Sampling: ClassVar[type[SamplingConfig]] = GaussianSampling
    settings: LatentSettings
    sampling: GaussianSampling

    def __init__(self, settings: LatentSettings, extra: int = 0) -> None:
        super().__init__(settings)
        factor = 2 ** len(settings.widths)
        coarse = [size // factor for size in blocks.padded_shape(settings.shape, factor)]
        channels, code = settings.in_channels, settings.latent
        shared = (settings.widths, settings.blocks, settings.narrow, coarse)
        self.encoder = blocks.Encoder(channels, *shared, out=2 * code)
        self.decoder = blocks.Decoder(code, *shared, out=2 * channels + extra)
        # What the networks' output is added to: the linear model of the training scans, see `initialize`.
        components = min(settings.components, code)
        self.linear = LinearModel(components, channels, extra, settings.shape)
        start_narrow(self.encoder, code, components)
        # The aggregated posterior that samples are drawn from: the prior until `finalize` has seen the training set.
        self.latent_mean: Tensor
        self.latent_factor: Tensor
        self.register_buffer("latent_mean", torch.zeros(code))
        self.register_buffer("latent_factor", torch.eye(code))

    def phases(self) -> Mapping[str, Phase | Sequence[nn.Parameter]]:
        """One phase with everything."""
        return {"all": list(self.parameters())}

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | x), (b, d) each, for images (b, c, i, j, k)."""
        code = self.encoder(blocks.pad_to_multiple(x, 2 ** len(self.settings.widths))).float()
        return posterior(code, self.linear.scores(x))

    def decode(self, z: Tensor, noise: list[Tensor] | None = None) -> Decoded:
        """The likelihood's parameters for codes (b, d); without ``noise`` the decoder is deterministic."""
        settings = self.settings
        c = settings.in_channels
        maps = blocks.crop_to(self.decoder(z, noise), settings.shape).float()
        mean, extra = self.linear(z)
        low, high = LOGVAR_RANGE
        # A sigmoid where AE-U clamps: the same limits, but voxels beyond them still get a gradient.
        logvar = low + (high - low) * torch.sigmoid(maps[:, c : 2 * c] + self.linear.spread)
        return Decoded(maps[:, :c] + mean, logvar, maps[:, 2 * c :] + extra)

    def draw_noise(self, n: int, generator: Generator | None = None) -> list[Tensor]:
        """Standard normal noise maps for ``n`` volumes, one (n, 1, i, j, k) per decoder level."""
        return [randn_beside((n, *shape), generator, self.latent_mean) for shape in self.decoder.noise_shapes()]

    def loss(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        """Negative β-ELBO per voxel, see :meth:`negative_elbo`."""
        mean, logvar = self.encode(batch.image)
        decoded = self.decode(reparametrise(mean, logvar))
        return self.negative_elbo(batch, mean, logvar, decoded)

    def negative_elbo(self, batch: Batch, mean: Tensor, logvar: Tensor, decoded: Decoded) -> dict[str, Tensor]:
        """(weighted NLL + β · KL) / weighted number of voxels, in nats per voxel, and its parts.

        Dividing the whole bound by one constant keeps β = 1 the ELBO and makes losses comparable across shapes.
        Logged: ``nll`` (nats per weighted voxel), ``kl`` (nats per scan) and ``rmse`` in the foreground.
        """
        settings = self.settings
        weight = batch.foreground + settings.background * (1 - batch.foreground)
        nll = losses.weighted_mean(losses.gaussian_nll(batch.image, decoded.mean, decoded.logvar), weight)
        kl = losses.kl_standard_normal(mean, logvar)
        voxels = (weight.sum() * settings.in_channels / len(weight)).clamp_min(1)
        penalty = settings.beta * settings.ramp(batch.progress) * losses.free_bits(kl, settings.free_bits)
        with torch.no_grad():
            rmse = losses.weighted_mean((decoded.mean - batch.image).square(), batch.foreground).sqrt()
        return {"loss": nll + penalty / voxels, "nll": nll.detach(), "kl": kl.sum(1).mean().detach(), "rmse": rmse}

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """Decoder mean at the posterior mean, (b, c, i, j, k): deterministic."""
        return self.decode(self.encode(x)[0]).mean

    @torch.no_grad()
    def locate(self, batch: Batch) -> ScanCode:
        """The posterior means of scans."""
        return ScanCode(self.encode(batch.image)[0])

    @torch.no_grad()
    def draw_at(self, place: ScanCode) -> Drawn:
        """The decoder's means."""
        return Drawn(self.decode(place.code).mean)

    @torch.no_grad()
    def voxel_nll(self, x: Tensor) -> Tensor:
        """−log N(x; μ(z), exp s(z)) at the posterior mean z, in nats per voxel, (b, c, i, j, k).

        A surrogate for −log p(x) per voxel: exact given z, but z is one point and not integrated over.
        """
        decoded = self.decode(self.encode(x)[0])
        return losses.gaussian_nll(x, decoded.mean, decoded.logvar)

    def likelihood(self) -> Likelihood:
        """A bound, see :meth:`log_likelihood`."""
        return Likelihood("bound", "the importance-weighted lower bound on log p(x) of the decoder without noise")

    @torch.no_grad()
    def log_likelihood(
        self, x: Tensor, mask: Tensor | None = None, samples: int = 64, generator: Generator | None = None
    ) -> Tensor:
        """Lower bound on log p(x) in nats per scan, (b,): the importance-weighted bound with ``samples`` draws.

        Its expectation is below the exact log-likelihood of the decoder without noise, and closer with more samples
        (:func:`medgen.models.losses.iwae_bound`). With ``mask`` (b, 1, i, j, k) only the voxels inside count as
        observed; the code is still inferred from the whole scan, which keeps it a bound.
        """
        mean, logvar = self.encode(x)
        log_p_x, log_p_z, log_q = self._importance(x, mask, mean, logvar, samples, generator)
        return losses.iwae_bound(log_p_x, log_p_z, log_q)

    @torch.no_grad()
    def elbo(
        self, x: Tensor, mask: Tensor | None = None, samples: int = 8, generator: Generator | None = None
    ) -> Tensor:
        """Evidence lower bound on log p(x) in nats per scan, (b,), with the KL in closed form."""
        mean, logvar = self.encode(x)
        log_p_x, _, _ = self._importance(x, mask, mean, logvar, samples, generator)
        return log_p_x.mean(0) - losses.kl_standard_normal(mean, logvar).sum(1)

    def _importance(
        self, x: Tensor, mask: Tensor | None, mean: Tensor, logvar: Tensor, samples: int, generator: Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return log p(x|z), log p(z) and log q(z|x), (samples, b) each, for draws z ~ q(z|x)."""
        draws = randn_beside((samples, *mean.shape), generator, mean)
        z = mean + torch.exp(0.5 * logvar) * draws
        weight = torch.ones_like(x) if mask is None else mask.float().expand_as(x)
        rows = []
        # Two loops so that memory stays at a few volumes, whatever the batch and the number of samples.
        for case in range(len(x)):
            parts = []
            for codes in z[:, case].split(_CHUNK):
                decoded = self.decode(codes)
                nll = losses.gaussian_nll(x[case : case + 1], decoded.mean, decoded.logvar)
                parts.append(-(nll * weight[case]).sum((1, 2, 3, 4)))
            rows.append(torch.cat(parts))
        log_p_z = -losses.gaussian_nll(z, torch.zeros_like(z), torch.zeros_like(z)).sum(-1)
        log_q = -losses.gaussian_nll(z, mean, logvar).sum(-1)
        return torch.stack(rows, dim=1), log_p_z, log_q

    @torch.no_grad()
    def initialize(self, dataset: Dataset) -> None:
        """Start as probabilistic PCA of the training scans, so that the networks learn only what is not linear.

        With a linear decoder that is the VAE's optimum (Lucas et al. 2019), it is a strong baseline on registered
        anatomy, and short trainings on small cohorts do not find it by themselves.
        """
        # The likelihood's own weights, so that scans with another field of view do not darken the mean.
        weight = torch.where(dataset.foregrounds, 1.0, self.settings.background)
        variance = self.linear.fit(dataset.images, weight, self.extra_maps(dataset))
        low, high = LOGVAR_RANGE
        # A tenth of the mean variance everywhere, so that few scans which happen to agree are no certainty.
        logvar = (variance + 0.1 * variance.mean() + 1e-6).log()
        self.linear.spread.copy_(torch.logit(((logvar - low) / (high - low)).clamp(0.02, 0.98)))

    def extra_maps(self, dataset: Dataset) -> Tensor:
        """The further maps of the training scans, (n, extra, i, j, k); none unless a family has some."""
        return dataset.images[:, :0]

    @torch.no_grad()
    def finalize(self, dataset: Dataset) -> None:
        """Fit the Gaussian that samples are drawn from: the :func:`aggregated_posterior` of the training scans."""
        codes = [self.encode(dataset.batch([n]).to(self.latent_mean.device).image) for n in range(len(dataset))]
        mean, factor = aggregated_posterior(torch.cat([mean for mean, _ in codes]), torch.cat([v for _, v in codes]))
        self.latent_mean.copy_(mean)
        self.latent_factor.copy_(factor)

    @torch.no_grad()
    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """Images (n, c, i, j, k): the decoder's mean, with its noise maps, at codes of the aggregated posterior."""
        return self.sample_decoded(n, generator).mean

    @torch.no_grad()
    def sample_decoded(self, n: int, generator: Generator | None = None) -> Decoded:
        """All that the decoder makes of ``n`` codes drawn from the aggregated posterior."""
        draws = self.sampling.shaped(randn_beside((n, len(self.latent_mean)), generator, self.latent_mean))
        z = self.latent_mean + draws @ self.latent_factor.T
        parts = [self.decode(codes, self.sampling_noise(len(codes), generator)) for codes in z.split(_CHUNK)]
        return Decoded(*(torch.cat(maps) for maps in zip(*parts, strict=True)))

    def sampling_noise(self, n: int, generator: Generator | None) -> list[Tensor] | None:
        """Noise maps that samples get; none unless a family trains its decoder with them."""
        return None


def aggregated_posterior(means: Tensor, logvars: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) and Cholesky factor (d, d), float32, of the Gaussian nearest to all scans' posteriors together.

    Its covariance is that of the posterior means, shrunk, plus their mean variance. The prior N(0, I) puts mass
    where no training scan lies; the aggregated posterior does not (Tomczak and Welling 2018). Shrinkage after
    Ledoit and Wolf (2004), since there are often fewer scans than dimensions.

    Args:
        means: (n, d).
        logvars: (n, d).
    """
    from sklearn.covariance import LedoitWolf

    codes = means.double().cpu().numpy()
    variance = logvars.double().exp().mean(0).cpu().numpy()
    spread = LedoitWolf().fit(codes).covariance_ if len(codes) > 1 else np.zeros((len(variance),) * 2)
    factor = np.linalg.cholesky(spread + np.diag(variance))
    return torch.from_numpy(codes.mean(0)).float(), torch.from_numpy(factor).float()


def start_narrow(encoder: blocks.Encoder, code: int, components: int) -> None:
    """Let an encoder begin with narrow posteriors whose first ``components`` means are the linear scores alone.

    A code that starts as noise of variance 1 is one the decoder first learns to ignore, and KL then keeps it so
    (posterior collapse).
    """
    with torch.no_grad():
        encoder.vector.bias[code:] += _START_LOGVAR
        encoder.vector.weight[:components] = 0
        encoder.vector.bias[:components] = 0


def posterior(code: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log-variance of q(z | x), (b, d) each.

    Args:
        code: What the encoder gives, (b, 2d): means, then log-variances.
        scores: Scores of the linear model, (b, at most d), which are added to the first means.
    """
    mean, logvar = code.chunk(2, dim=1)
    mean = torch.cat([mean[:, : scores.shape[1]] + scores, mean[:, scores.shape[1] :]], dim=1)
    # Limits that no trained model comes near; they keep a bad early step from overflowing.
    return mean, logvar.clamp(-12, 6)


def reparametrise(mean: Tensor, logvar: Tensor) -> Tensor:
    """A draw from N(mean, exp logvar) with gradients to both (Kingma and Welling 2014)."""
    return mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)


def randn_beside(shape: tuple[int, ...], generator: Generator | None, like: Tensor) -> Tensor:
    """Standard normal numbers beside ``like``, drawn where the generator lives, so that devices agree."""
    device = like.device if generator is None else generator.device
    return torch.randn(shape, generator=generator, device=device).to(like.device)
