"""Wasserstein GAN with gradient penalty: the plain GAN of the field, begun at principal components."""

from __future__ import annotations

from abc import ABC
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from medgen.models.adversarial.sample_distance import sample_distance
from medgen.models.base import GenerativeModel, ModelConfig, Widths
from medgen.models.latent import randn_beside
from medgen.models.networks import blocks
from medgen.models.networks.critic import Critic, gradient_penalty
from medgen.models.networks.discriminator import diversity, fine_detail
from medgen.models.networks.linear import LinearModel
from medgen.models.networks.view import field_of_view, fit_seen, usual_view
from medgen.models.sampling import GaussianSampling, SamplingConfig
from medgen.models.stages import Phase, Role

if TYPE_CHECKING:
    from medgen.preprocessing.dataset import Batch, Dataset

# Scans made at a time where no gradient is kept.
_CHUNK = 8
# Learning rate of the generator beside the critic's.
_SLOWER = 0.1


class WassersteinSettings(ModelConfig):
    """Settings of a GAN with a critic.

    Attributes:
        widths: Channels per level of the generator, multiples of 16; the first level is at half the resolution.
        blocks: Residual blocks per level, of generator and critic.
        latent: Length of the code.
        components: Code dimensions that start as principal components of the training scans, at most ``latent``;
            0 is none, and the plain GAN.
        narrow: Channels of the coarsest level beside a vector.
        critic_widths: Channels per level of the critic.
        penalty: Weight of the gradient penalty (λ = 10 as published).
        critic_steps: Steps of the critic for each of the generator (5 as published).
        warmup: Share of the game in which the critic learns alone: one that knows nothing leads the generator away.
        background: Weight of voxels outside the foreground in the principal components, relative to those inside.
    """

    widths: Widths = (32, 64, 128)
    blocks: int = Field(default=1, ge=1, le=8)
    latent: int = Field(default=64, ge=2, le=4096)
    components: int = Field(default=12, ge=0)
    narrow: int = Field(default=16, ge=1)
    critic_widths: Widths = (32, 64, 96)
    penalty: float = Field(default=10.0, gt=0)
    critic_steps: int = Field(default=5, ge=1, le=100)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    background: float = Field(default=0.1, gt=0, le=1)


class ScanGenerator(nn.Module):
    """What a code and noise add to a linear model: coarse to fine, with noise at every level and at every voxel.

    The finest level has half the resolution, and its 2 × 2 × 2 voxels are made together; the last noise has a value of
    its own for every voxel and channel, so that texture need not repeat every 2 voxels. The network says how strong it
    is, up to a limit: grain without one outgrew the scans in a GAN of patches.
    """

    def __init__(self, settings: WassersteinSettings) -> None:
        super().__init__()
        factor = 2 ** len(settings.widths)
        self.shape, self.channels = settings.shape, settings.in_channels
        coarse = [size // factor for size in blocks.padded_shape(settings.shape, factor)]
        out = 2 * settings.in_channels
        self.decoder = blocks.Decoder(settings.latent, settings.widths, settings.blocks, settings.narrow, coarse, out)

    def noise_shapes(self) -> list[tuple[int, ...]]:
        """Shapes (1, i, j, k) of the noise of the levels, coarse to fine, and (c, i, j, k) of the voxels'."""
        return [*self.decoder.noise_shapes(), (self.channels, *self.shape)]

    def forward(self, z: Tensor, noise: list[Tensor] | None, limit: Tensor) -> Tensor:
        """(b, c, i, j, k) for codes (b, latent), with noise maps of :meth:`noise_shapes` or none at all.

        Args:
            z: Codes.
            noise: Standard normal noise.
            limit: Most standard deviation that the voxels' noise can have, per channel (c, 1, 1, 1).
        """
        levels = None if noise is None else noise[:-1]
        maps = blocks.crop_to(self.decoder(z, levels), self.shape).float()
        change, strength = maps.chunk(2, dim=1)
        return change if noise is None else change + limit * torch.tanh(strength) * noise[-1]


class WassersteinModel(GenerativeModel, ABC):
    """WGAN-GP (Gulrajani et al., "Improved training of Wasserstein GANs", NeurIPS 2017) of scans. Abstract.

    x = G(z, noise) + the linear model of the training scans, z ~ N(0, I). The critic sees scans in units of their fine
    detail: its slope is bounded, so that in model intensities the coarse image would take all of it. Samples are whole:
    the critic sees each through the field of view of a scan (:mod:`medgen.models.networks.view`).
    """

    tiny: ClassVar[dict[str, Any]] = {
        "widths": (16, 16),
        "latent": 8,
        "components": 2,
        "narrow": 4,
        "critic_widths": (16, 16),
    }
    Sampling: ClassVar[type[SamplingConfig]] = GaussianSampling
    settings: WassersteinSettings
    sampling: GaussianSampling

    def __init__(self, settings: WassersteinSettings) -> None:
        super().__init__(settings)
        c = settings.in_channels
        self.generator = ScanGenerator(settings)
        self.critic = Critic(c, settings.critic_widths, settings.blocks, settings.narrow, settings.shape)
        self.linear = LinearModel(min(settings.components, settings.latent), c, 0, settings.shape)
        self.detail: Tensor
        self.register_buffer("detail", torch.ones((c, 1, 1, 1)))
        # Where samples show anything.
        self.view: Tensor
        self.register_buffer("view", torch.ones((1, *settings.shape)))

    def game_phases(self) -> dict[str, Phase]:
        """``generator``, in one of ``critic_steps`` steps and slower (Heusel et al. 2017), then ``critic``."""
        every = self.settings.critic_steps
        generator = Phase(list(self.generator.parameters()), every=every, factor=_SLOWER, betas=(0.0, 0.9))
        return {
            "generator": generator,
            "critic": Phase(list(self.critic.parameters()), Role.DISCRIMINATOR, betas=(0.0, 0.9)),
        }

    def decode(self, z: Tensor, noise: list[Tensor] | None = None) -> Tensor:
        """Scans (b, c, i, j, k) float32 for codes (b, latent); deterministic without noise."""
        return self.generator(z, noise, self.detail) + self.linear(z)[0]

    def draw(self, n: int, generator: Generator | None = None, sampling: GaussianSampling | None = None) -> Tensor:
        """Scans (n, c, i, j, k) of codes and noise from N(0, I), with gradients to the generator.

        Without options of sampling, which shape the codes, they are what the critic has seen in training.
        """
        z = randn_beside((n, self.settings.latent), generator, self.detail)
        z = z if sampling is None else sampling.shaped(z)
        shapes = self.generator.noise_shapes()
        return self.decode(z, [randn_beside((n, *shape), generator, self.detail) for shape in shapes])

    def game_loss(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        """−E D(G(z)) of the generator; E D(G(z)) − E D(x) + λ · penalty of the critic.

        Logged: of the generator the distance ``monitor`` of its samples to the scans in fixed features, which
        validation looks at (an estimate by the critic is least where the critic is worst), and their ``diversity``; of
        the critic the estimated distance ``wasserstein``, in units of fine detail per voxel, and the ``penalty``.
        """
        # Both players see what is made through the boxes of the scans: the box itself is nothing to learn.
        view = field_of_view(batch.foreground)
        real = batch.image * view
        if phase == "generator":
            fake = self.draw(len(real)) * view
            monitor = sample_distance(fake, real)
            # A loss of 0 moves nothing.
            loss = -self.critic(fake / self.detail).mean() * float(batch.progress >= self.settings.warmup)
            return {"loss": loss, "monitor": monitor, "diversity": diversity(fake, real)}
        with torch.no_grad():
            fake = self.draw(len(real)) * view / self.detail
        real = real / self.detail
        apart = self.critic(real).mean() - self.critic(fake).mean()
        penalty = gradient_penalty(self.critic, real, fake, torch.rand(len(real), device=real.device))
        loss = self.settings.penalty * penalty - apart
        return {"loss": loss, "wasserstein": apart.detach(), "penalty": penalty.detach()}

    @torch.no_grad()
    def initialize(self, dataset: Dataset) -> None:
        """Start as the principal components of the training scans, so that the game is about what they leave."""
        foreground = dataset.foregrounds.float()
        weight = foreground + self.settings.background * (1 - foreground)
        views = field_of_view(foreground)
        self.view.copy_(usual_view(views))
        self.detail.copy_(fine_detail(fit_seen(self.linear, dataset.images, views, weight)))

    @torch.no_grad()
    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """Scans (n, c, i, j, k) of codes from N(0, I), as the options of sampling want them, with noise.

        0 where fewer than half of the training scans look.
        """
        sizes = [min(_CHUNK, n - first) for first in range(0, n, _CHUNK)]
        return torch.cat([self.draw(size, generator, self.sampling) for size in sizes]) * self.view


class WganGpSettings(WassersteinSettings):
    """Settings of :class:`WganGp`."""

    family: Literal["wgan_gp"] = "wgan_gp"


class WganGp(WassersteinModel):
    """WGAN-GP (Gulrajani et al. 2017) in 3D: it samples and offers nothing else.

    Source: Gulrajani et al., "Improved training of Wasserstein GANs", NeurIPS 2017.

    With ``components: 0`` everything is learnt by the game, as published; that wants thousands of scans and steps.
    """

    family: ClassVar[str] = "wgan_gp"
    Settings: ClassVar[type[WganGpSettings]] = WganGpSettings
    settings: WganGpSettings

    def phases(self) -> dict[str, Phase]:
        """See :meth:`WassersteinModel.game_phases`."""
        return self.game_phases()

    def loss(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        """See :meth:`WassersteinModel.game_loss`."""
        return self.game_loss(phase, batch)
