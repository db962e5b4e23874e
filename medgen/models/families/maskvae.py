"""A variational autoencoder of label maps: the anatomy that a generator of images is asked to paint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor, nn
from torch.nn import functional

from medgen.errors import TrainingError
from medgen.models import losses
from medgen.models.base import Drawn, ModelConfig, ScanCode, ScanModel, Widths
from medgen.models.latent import aggregated_posterior, posterior, randn_beside, reparametrise, start_narrow
from medgen.models.networks import blocks
from medgen.models.networks.linear import LinearModel
from medgen.models.sampling import GaussianSampling, SamplingConfig

if TYPE_CHECKING:
    from medgen.preprocessing.dataset import Batch, Dataset

# Label maps decoded at a time where no gradient is kept.
_CHUNK = 8
# Drawn anatomies that the balance of labels is fitted on, rounds of it, and the most that a round changes a logit.
_DRAWS, _ROUNDS, _STEP = 16, 8, 1.0


class MaskVaeSettings(ModelConfig):
    """Settings of :class:`MaskVae`.

    Attributes:
        n_labels: Labels besides the background, numbered 1 to ``n_labels``.
        widths: Channels per level, multiples of 16; the first level is at half the resolution.
        blocks: Residual blocks per level, in the encoder and in the decoder.
        latent: Length of the code.
        components: Code dimensions that start as principal components of the training shapes, at most ``latent``.
        narrow: Channels that the coarsest level is reduced to before it becomes a vector.
        truncation: Voxels at which the distances of the starting shape model are cut off.
        sharpness: Logits at the truncation in the starting shape model; the border is as soft as
            ``truncation / sharpness`` voxels.
        dice: Weight of 1 − soft Dice beside the cross-entropy.
        beta: Largest weight of the KL divergence, per voxel of anatomy.
        free_bits: Nats per code dimension that cost nothing.
        warmup: Share of the training during which ``beta`` rises from 0.
    """

    family: Literal["maskvae"] = "maskvae"
    n_labels: int = Field(ge=1, le=255)
    widths: Widths = (16, 32, 64)
    blocks: int = Field(default=1, ge=1, le=8)
    latent: int = Field(default=32, ge=2, le=4096)
    components: int = Field(default=16, ge=0)
    narrow: int = Field(default=8, ge=1)
    truncation: int = Field(default=5, ge=1, le=11)
    sharpness: float = Field(default=8.0, gt=0)
    dice: float = Field(default=1.0, ge=0)
    beta: float = Field(default=0.2, ge=0)
    free_bits: float = Field(default=0.1, ge=0)
    warmup: float = Field(default=0.5, ge=0, le=1)

    def ramp(self, progress: float) -> float:
        """Factor in [0, 1] that rises linearly over the warm-up."""
        return min(1.0, progress / self.warmup) if self.warmup > 0 else 1.0


class MaskVae(ScanModel):
    """p(y) = ∫ p(y | z) p(z) dz over label maps y, categorical per voxel (Skandarani et al. 2020 use it before a GAN).

    Source: Skandarani et al., "Generative adversarial networks in cardiology", 2020.

    The logits are those of a statistical shape model, principal components of truncated signed distances (Cootes et
    al. 1995; Leventon et al. 2000), plus what the networks add. Voxels count as much as their label can be trusted.
    Samples come from the aggregated posterior.

    The most probable label of every voxel is not a probable label map: what is thin and varies in place is most
    probable nowhere. The logits of drawn anatomies are therefore balanced, by one number for each label, so that labels
    have the mean volumes of the training scans (Saerens et al., "Adjusting the outputs of a classifier to new a priori
    probabilities", Neural Computation 2002, with volumes as the priors).
    """

    family: ClassVar[str] = "maskvae"
    Settings: ClassVar[type[MaskVaeSettings]] = MaskVaeSettings
    tiny: ClassVar[dict[str, Any]] = {
        "widths": (16, 32),
        "latent": 6,
        "components": 2,
        "narrow": 4,
        "n_labels": 2,
    }
    Sampling: ClassVar[type[SamplingConfig]] = GaussianSampling
    settings: MaskVaeSettings
    sampling: GaussianSampling

    def __init__(self, settings: MaskVaeSettings) -> None:
        super().__init__(settings)
        factor = 2 ** len(settings.widths)
        coarse = [size // factor for size in blocks.padded_shape(settings.shape, factor)]
        classes, code = settings.n_labels + 1, settings.latent
        shared = (settings.widths, settings.blocks, settings.narrow, coarse)
        self.encoder = blocks.Encoder(classes, *shared, out=2 * code)
        self.decoder = blocks.Decoder(code, *shared, out=classes, noise=False)
        components = min(settings.components, code)
        self.linear = LinearModel(components, classes, 0, settings.shape)
        start_narrow(self.encoder, code, components)
        self.latent_mean: Tensor
        self.latent_factor: Tensor
        self.register_buffer("latent_mean", torch.zeros(code))
        self.register_buffer("latent_factor", torch.eye(code))
        # Added to the logits of drawn anatomies, one number for each class.
        self.balance: Tensor
        self.register_buffer("balance", torch.zeros(classes))

    def phases(self) -> dict[str, list[nn.Parameter]]:
        """One phase with everything."""
        return {"all": list(self.parameters())}

    def encode_labels(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | y), (b, d) each, for labels (b, 1, i, j, k)."""
        classes = losses.one_hot(labels, self.settings.n_labels + 1)
        code = self.encoder(blocks.pad_to_multiple(classes, 2 ** len(self.settings.widths))).float()
        return posterior(code, self.linear.scores(self._shape(labels)))

    def decode_labels(self, z: Tensor) -> Tensor:
        """Logits (b, n_labels + 1, i, j, k), float32, for codes (b, d)."""
        maps = blocks.crop_to(self.decoder(z), self.settings.shape).float()
        return maps + self.settings.sharpness * self.linear(z)[0]

    def loss(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy + soft Dice + β · KL, voxels weighted by the confidence in their label."""
        settings = self.settings
        labels = self._labels(batch)
        weight = torch.ones_like(labels, dtype=torch.float32) if batch.confidence is None else batch.confidence
        mean, logvar = self.encode_labels(labels)
        logits = self.decode_labels(reparametrise(mean, logvar))
        entropy = functional.cross_entropy(logits, labels[:, 0], reduction="none")[:, None]
        nll = losses.weighted_mean(entropy, weight)
        overlap = losses.soft_dice(logits.softmax(1), losses.one_hot(labels, settings.n_labels + 1), weight)
        kl = losses.kl_standard_normal(mean, logvar)
        # Relative to the anatomy and not to the air around it, so that the field of view changes nothing.
        voxels = (labels > 0).float().sum().div(len(labels)).clamp_min(1)
        penalty = settings.beta * settings.ramp(batch.progress) * losses.free_bits(kl, settings.free_bits) / voxels
        fit = nll + settings.dice * (1 - overlap)
        terms = {"nll": nll.detach(), "dice": overlap.detach(), "kl": kl.sum(1).mean().detach()}
        return {"loss": fit + penalty, "monitor": fit.detach(), **terms}

    @torch.no_grad()
    def initialize(self, dataset: Dataset) -> None:
        """Start as the statistical shape model of the training labels."""
        shapes = torch.cat([self._shape(self._labels(dataset.batch([n]))) for n in range(len(dataset))])
        # Distances are cut off, so the anatomy's surroundings count for nothing without a weight.
        self.linear.fit(shapes, torch.ones_like(shapes[:, :1]), shapes[:, :0])

    @torch.no_grad()
    def finalize(self, dataset: Dataset) -> None:
        """Fit the Gaussian that samples are drawn from to the aggregated posterior, and balance the labels."""
        mean, factor = aggregated_posterior(*self.codes(dataset))
        self.latent_mean.copy_(mean)
        self.latent_factor.copy_(factor)
        self.balance_labels(dataset, self._draw(_DRAWS, Generator().manual_seed(0), GaussianSampling()))

    @torch.no_grad()
    def balance_labels(self, dataset: Dataset, codes: Tensor) -> None:
        """Find what brings the mean volumes of drawn labels to those of the training labels, round by round.

        Args:
            dataset: The training labels.
            codes: Codes of drawn anatomies, (n, d): of draws such as will be made, since the balance of codes that are
                spread otherwise is another one.
        """
        classes = self.settings.n_labels + 1
        counts = [self._volumes(self._labels(dataset.batch([n]))) for n in range(len(dataset))]
        wanted = torch.stack(counts).mean(0).to(self.balance.device)
        self.balance.zero_()
        for _ in range(_ROUNDS):
            found = self._volumes(self.labels_of(codes)) / len(codes)
            # A label that no training scan has stays as it is; one that is drawn nowhere moves by a whole step.
            change = (wanted.clamp_min(0.5) / found.clamp_min(0.5)).log().clamp(-_STEP, _STEP)
            self.balance += torch.where(wanted > 0, change, torch.zeros(classes, device=change.device))
            self.balance -= self.balance[0].clone()

    @torch.no_grad()
    def codes(self, dataset: Dataset) -> tuple[Tensor, Tensor]:
        """Posterior means and log-variances of a data set's labels, (n, d) each."""
        device = self.latent_mean.device
        found = [self.encode_labels(self._labels(dataset.batch([n]).to(device))) for n in range(len(dataset))]
        return torch.cat([mean for mean, _ in found]), torch.cat([logvar for _, logvar in found])

    @torch.no_grad()
    def labels_of(self, z: Tensor) -> Tensor:
        """The label maps of codes (b, d), (b, 1, i, j, k) int64: the largest balanced logit at every voxel."""
        balance = self.balance[:, None, None, None]
        return torch.cat([(self.decode_labels(part) + balance).argmax(1, keepdim=True) for part in z.split(_CHUNK)])

    @torch.no_grad()
    def locate(self, batch: Batch) -> ScanCode:
        """The posterior means of label maps."""
        return ScanCode(self.encode_labels(self._labels(batch))[0])

    @torch.no_grad()
    def draw_at(self, place: ScanCode) -> Drawn:
        """The most probable label maps."""
        return Drawn(None, self.labels_of(place.code))

    @torch.no_grad()
    def sample_labels(self, n: int, generator: Generator | None = None) -> Tensor:
        """Label maps (n, 1, i, j, k) int64 of codes drawn from the aggregated posterior."""
        return self.labels_of(self._draw(n, generator, self.sampling))

    def _draw(self, n: int, generator: Generator | None, sampling: GaussianSampling) -> Tensor:
        """Codes (n, d) of the aggregated posterior."""
        draws = sampling.shaped(randn_beside((n, len(self.latent_mean)), generator, self.latent_mean))
        return self.latent_mean + draws @ self.latent_factor.T

    def _volumes(self, labels: Tensor) -> Tensor:
        """Voxels of every class in label maps, (n_labels + 1,) float32."""
        return torch.bincount(labels.flatten(), minlength=self.settings.n_labels + 1).float()

    def _shape(self, labels: Tensor) -> Tensor:
        """Signed distances of every class, background too, (b, n_labels + 1, i, j, k)."""
        # The distance transform knows labels above 0 only.
        return losses.signed_distance(labels + 1, self.settings.n_labels + 1, self.settings.truncation)

    def _labels(self, batch: Batch) -> Tensor:
        if batch.labels is None:
            raise TrainingError("the maskvae family learns from labels, and these scans have no masks")
        return batch.labels
