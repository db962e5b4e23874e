"""f-AnoGAN: a Wasserstein GAN of healthy scans, then an encoder that finds the code of a scan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from medgen.models import losses
from medgen.models.families.wgan_gp import WassersteinModel, WassersteinSettings
from medgen.models.networks import blocks
from medgen.models.networks.view import completed, field_of_view
from medgen.models.stages import Phase, Stage

if TYPE_CHECKING:
    from medgen.preprocessing.dataset import Batch


class FAnoGanSettings(WassersteinSettings):
    """Settings of :class:`FAnoGan`.

    Attributes:
        encoder_share: Share of the training's steps that the encoder gets.
        kappa: Weight of the critic's features beside the image in its loss (κ = 1 as published).
    """

    family: Literal["fanogan"] = "fanogan"
    encoder_share: float = Field(default=0.4, gt=0, lt=1)
    kappa: float = Field(default=1.0, ge=0)


class FAnoGan(WassersteinModel):
    """f-AnoGAN (Schlegl et al., "f-AnoGAN", Medical Image Analysis 2019): a WGAN-GP, then the encoder izi_f.

    Source: Schlegl et al., "f-AnoGAN: fast unsupervised anomaly detection with generative adversarial networks",
    Medical Image Analysis 2019.

    The encoder learns E from ‖x − G(E(x))‖² + κ ‖f(x) − f(G(E(x)))‖², per voxel and per feature, with generator G and
    the critic's features f at rest; what is anomalous has no code, and stays in the residual. Its first dimensions
    start as the scores of the linear model that the generator starts from. Both parts see scans in units of fine
    detail.
    """

    family: ClassVar[str] = "fanogan"
    Settings: ClassVar[type[FAnoGanSettings]] = FAnoGanSettings
    settings: FAnoGanSettings

    def __init__(self, settings: FAnoGanSettings) -> None:
        super().__init__(settings)
        self.factor = 2 ** len(settings.widths)
        coarse = [size // self.factor for size in blocks.padded_shape(settings.shape, self.factor)]
        shared = (settings.widths, settings.blocks, settings.narrow, coarse)
        self.encoder = blocks.Encoder(settings.in_channels, *shared, out=settings.latent)
        with torch.no_grad():
            self.encoder.vector.weight.mul_(0.1)
            self.encoder.vector.bias.zero_()

    def stages(self) -> Sequence[Stage]:
        """``game``: generator and critic; then ``encoder``, which validation looks at by its own loss."""
        share = self.settings.encoder_share
        own = Phase(list(self.encoder.parameters()))
        return Stage("game", self.game_phases(), 1 - share), Stage("encoder", {"encoder": own}, share)

    def loss(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        """The game's losses, or izi_f of the encoder, with its parts ``image`` and ``features``."""
        if phase != "encoder":
            return self.game_loss(phase, batch)
        view = field_of_view(batch.foreground)
        x = batch.image * view / self.detail
        guess = self.decode(self.code(batch.image, view)) * view / self.detail
        image = losses.weighted_mean((x - guess).square(), batch.foreground)
        features = losses.weighted_mean(self.critic.distance(x, guess), batch.foreground)
        return {"loss": image + self.settings.kappa * features, "image": image.detach(), "features": features.detach()}

    def code(self, x: Tensor, view: Tensor | None = None) -> Tensor:
        """Codes (b, latent) float32 of scans (b, c, i, j, k).

        What lies outside of the field of view (b, 1, i, j, k), by default the box of what is not 0, the linear model
        completes.
        """
        x = completed(x, field_of_view(x) if view is None else view, self.linear)
        code = self.encoder(blocks.pad_to_multiple(x, self.factor)).float()
        scores = self.linear.scores(x)
        known = scores.shape[1]
        return torch.cat([code[:, :known] + scores, code[:, known:]], dim=1)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """What the generator makes of a scan's code, without noise, (b, c, i, j, k): deterministic.

        0 outside of the scan's field of view.
        """
        view = field_of_view(x)
        return self.decode(self.code(x, view)) * view

    @torch.no_grad()
    def discriminator_distance(self, x: Tensor, other: Tensor) -> Tensor:
        """Squared difference of the critic's features at the voxels, (b, 1, i, j, k): see :meth:`Critic.distance`."""
        return self.critic.distance(x / self.detail, other / self.detail)
