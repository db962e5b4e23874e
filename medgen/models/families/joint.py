"""VAE-GAN over the image and the signed-distance maps of its labels: its samples are labelled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from medgen.errors import TrainingError
from medgen.models import losses
from medgen.models.adversarial.autoencoder import AdversarialModel, AdversarialSettings
from medgen.models.adversarial.sample_distance import sample_distance
from medgen.models.base import Drawn, ScanCode
from medgen.models.latent import Decoded
from medgen.models.stages import Phase
from medgen.preprocessing.dataset import Batch

if TYPE_CHECKING:
    from medgen.preprocessing.dataset import Dataset


class JointSettings(AdversarialSettings):
    """Settings of :class:`Joint`.

    Attributes:
        n_labels: Labels besides the background, numbered 1 to ``n_labels``.
        truncation: Voxels at which distances are cut off.
        label_weight: Weight of the label likelihood, per voxel, beside the image's.
    """

    family: Literal["joint"] = "joint"
    n_labels: int = Field(ge=1, le=255)
    truncation: int = Field(default=5, ge=1, le=11)
    label_weight: float = Field(default=1.0, gt=0)


class Joint(AdversarialModel):
    """p(x, y) = ∫ p(x | z) p(y | z) p(z) dz over image x and truncated signed-distance maps y of its labels.

    Source: Larsen et al., "Autoencoding beyond pixels using a learned similarity metric", ICML 2016.

    The code is inferred from the image alone. That still bounds log p(x, y) from below, it lets the encoder serve
    scans without labels, and it makes :meth:`reconstruct` and the likelihoods those of the image. y has a Gaussian
    likelihood with one learned variance per label (Rybkin et al. 2021); the discriminator sees image and maps
    together, so that they have to fit each other. Voxels count in the label likelihood as much as their label can be
    trusted.
    """

    family: ClassVar[str] = "joint"
    Settings: ClassVar[type[JointSettings]] = JointSettings
    tiny: ClassVar[dict[str, Any]] = {
        "widths": (16, 32),
        "latent": 8,
        "components": 2,
        "narrow": 4,
        "discriminator_widths": (16, 16),
        "n_labels": 2,
    }
    settings: JointSettings

    def __init__(self, settings: JointSettings) -> None:
        super().__init__(settings, extra=settings.n_labels)
        self.label_logvar = nn.Parameter(torch.full((settings.n_labels,), -2.0))

    def phases(self) -> dict[str, Phase]:
        """As :class:`AdversarialModel`, with the label variances on the generator's side."""
        phases = super().phases()
        return {**phases, "generator": Phase([*phases["generator"].parameters, self.label_logvar])}

    def likelihood_terms(self, batch: Batch, mean: Tensor, logvar: Tensor, decoded: Decoded) -> dict[str, Tensor]:
        """The image's β-ELBO plus the label maps' negative log-likelihood, in nats per voxel."""
        terms = self.negative_elbo(batch, mean, logvar, decoded)
        distance = self._distance(batch)
        spread = self.label_logvar.clamp(-6, 3).view(1, -1, 1, 1, 1)
        trust = torch.ones_like(distance[:, :1]) if batch.confidence is None else batch.confidence
        nll = losses.weighted_mean(losses.gaussian_nll(distance, decoded.extra, spread), trust)
        terms["loss"] = terms["loss"] + self.settings.label_weight * nll
        predicted = losses.labels_from_distance(decoded.extra.detach())
        some = predicted > 0
        agreement = some if batch.labels is None else some & (predicted == batch.labels[:, 0])
        precision = agreement.sum() / some.sum().clamp_min(1)
        return {**terms, "label_nll": nll.detach(), "label_precision": precision}

    def extra_maps(self, dataset: Dataset) -> Tensor:
        """Distance maps of the training scans."""
        return torch.cat([self._distance(dataset.batch([n])) for n in range(len(dataset))])

    def real_maps(self, batch: Batch) -> Tensor:
        """Image and distance maps of real scans."""
        return torch.cat([super().real_maps(batch), self._distance(batch)], dim=1)

    def fake_maps(self, decoded: Decoded) -> Tensor:
        """Image and distance maps of decoded ones."""
        return torch.cat([super().fake_maps(decoded), decoded.extra], dim=1)

    def seen_maps(self, x: Tensor) -> Tensor:
        """Scans with the distance maps that the model itself infers for them."""
        return torch.cat([super().seen_maps(x), self.decode(self.encode(x)[0]).extra], dim=1)

    def distance(self, batch: Batch, sample: Decoded) -> Tensor:
        """Of images, and of the intensities that they have in their labels."""
        made = losses.labels_from_distance(sample.extra)[:, None]
        labels = made if batch.labels is None else batch.labels
        return sample_distance(sample.mean, batch.image, (made, labels), self.settings.n_labels)

    @torch.no_grad()
    def sample_labelled(self, n: int, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Images (n, c, i, j, k) and their labels (n, i, j, k) int64: background where all distances are negative."""
        decoded = self.sample_decoded(n, generator)
        return decoded.mean, losses.labels_from_distance(decoded.extra)

    @torch.no_grad()
    def draw_at(self, place: ScanCode) -> Drawn:
        """The decoder's means, and the labels of its distance maps."""
        decoded = self.decode(place.code)
        return Drawn(decoded.mean, losses.labels_from_distance(decoded.extra)[:, None])

    def _distance(self, batch: Batch) -> Tensor:
        if batch.labels is None:
            raise TrainingError(
                "the joint family learns from labelled scans, and these have no masks; use vae or vaegan"
            )
        return losses.signed_distance(batch.labels, self.settings.n_labels, self.settings.truncation)
