"""Autoencoders that are trained against a discriminator as well."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from medgen.models.adversarial.mixed_codes import MixedCodes
from medgen.models.adversarial.sample_distance import sample_distance
from medgen.models.facts import Fact
from medgen.models.latent import Decoded, LatentModel, LatentSettings, reparametrise
from medgen.models.networks import blocks
from medgen.models.networks.discriminator import (
    AdaptiveAugmentation,
    Game,
    GanSettings,
    PatchDiscriminator,
    diversity,
    fine_detail,
)
from medgen.models.stages import Phase, Role
from medgen.preprocessing.dataset import Batch, Dataset


class AdversarialSettings(GanSettings, LatentSettings):
    """Settings of an autoencoder trained against a discriminator."""


class AdversarialModel(LatentModel):
    """An autoencoder whose samples, drawn with decoder noise, also have to pass a discriminator (Larsen et al. 2016).

    Reconstructions and likelihoods use the decoder without noise and are those of :class:`LatentModel`; the noise
    lets samples carry texture that no code could. Abstract: families say which maps the discriminator sees.
    """

    settings: AdversarialSettings

    def __init__(self, settings: AdversarialSettings, extra: int = 0) -> None:
        super().__init__(settings, extra)
        maps = settings.in_channels + extra
        self.discriminator = PatchDiscriminator(maps, settings.discriminator_widths, settings.discriminator_scales)
        self.adaptive = (
            AdaptiveAugmentation(settings.in_channels, settings.ada_target, settings.ada_images)
            if settings.ada_target
            else None
        )
        self.mixed = MixedCodes(settings.latent)
        # The unit in which the discriminator sees images.
        self.detail: Tensor
        self.register_buffer("detail", torch.ones((settings.in_channels, 1, 1, 1)))

    @torch.no_grad()
    def initialize(self, dataset: Dataset) -> None:
        """Start as the autoencoder does, and measure the fine detail of the training scans."""
        super().initialize(dataset)
        self.detail.copy_(fine_detail(dataset.images))

    def phases(self) -> dict[str, Phase]:
        """``generator`` (encoder and decoder), then ``discriminator``."""
        generator = [*self.encoder.parameters(), *self.decoder.parameters()]
        return {
            "generator": Phase(generator),
            "discriminator": Phase(list(self.discriminator.parameters()), Role.DISCRIMINATOR),
        }

    @property
    def game(self) -> Game:
        """What the two players minimise."""
        return Game(self.discriminator, self.settings, self.adaptive)

    def shared_buffers(self) -> Sequence[Tensor]:
        """The mean that adversarial codes are mixed about, and the state of the adaptive augmentation."""
        return (*self.mixed.state(), *(() if self.adaptive is None else self.adaptive.buffers()))

    def facts(self) -> Sequence[Fact]:
        """How far adaptive augmentation went, where there is any."""
        return super().facts() if self.adaptive is None else (*super().facts(), self.adaptive.fact())

    def loss(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        """β-ELBO + adversarial loss + feature matching for the generator; its own + lazy R1 for the discriminator."""
        return self._discriminator_loss(batch) if phase == "discriminator" else self._generator_loss(batch)

    def real_maps(self, batch: Batch) -> Tensor:
        """What the discriminator sees of real scans, (b, channels, i, j, k): images in units of their fine detail."""
        return batch.image / self.detail

    def fake_maps(self, decoded: Decoded) -> Tensor:
        """What the discriminator sees of decoded ones, in the same form as :meth:`real_maps`."""
        return decoded.mean / self.detail

    def likelihood_terms(self, batch: Batch, mean: Tensor, logvar: Tensor, decoded: Decoded) -> dict[str, Tensor]:
        """The part of the generator's loss that needs no discriminator; families with more maps add to it."""
        return self.negative_elbo(batch, mean, logvar, decoded)

    def distance(self, batch: Batch, sample: Decoded) -> Tensor:
        """How far samples are from scans, which validation looks at beside the bound; families with labels add them."""
        return sample_distance(sample.mean, batch.image)

    def sampling_noise(self, n: int, generator: torch.Generator | None) -> list[Tensor]:
        """Samples carry decoder noise, as in training."""
        return self.draw_noise(n, generator)

    def seen_maps(self, x: Tensor) -> Tensor:
        """What the discriminator sees of scans (b, c, i, j, k) that come alone, in the form of :meth:`real_maps`."""
        return x / self.detail

    @torch.no_grad()
    def discriminator_distance(self, x: Tensor, other: Tensor) -> Tensor:
        """Squared difference of discriminator features, averaged over features and layers, (b, 1, i, j, k).

        Maps of coarser layers are brought to the voxels by trilinear interpolation.
        """
        _, first = self.discriminator(self.seen_maps(x))
        _, second = self.discriminator(self.seen_maps(other))
        shape = x.shape[2:]
        padded = blocks.padded_shape(shape, self.discriminator.factor)
        maps = []
        for a, b in zip(first, second, strict=True):
            coarse = (a.float() - b.float()).square().mean(dim=1, keepdim=True)
            fine = functional.interpolate(coarse, size=padded, mode="trilinear", align_corners=False)
            maps.append(blocks.crop_to(fine, shape))
        return torch.stack(maps).mean(0)

    def _generator_loss(self, batch: Batch) -> dict[str, Tensor]:
        settings = self.settings
        b = len(batch.image)
        mean, logvar = self.encode(batch.image)
        z = reparametrise(mean, logvar)
        if self.training and torch.is_grad_enabled():
            self.mixed.learn(z.detach())
        # One decoder pass for both: reconstructions get no noise, samples do.
        noise = [torch.cat([torch.zeros_like(maps), maps]) for maps in self.draw_noise(b)]
        both = self.decode(torch.cat([z, self.mixed(z)]), noise)
        reconstruction, sample = (Decoded(*(maps[part] for maps in both)) for part in (slice(b), slice(b, None)))
        terms = self.likelihood_terms(batch, mean, logvar, reconstruction)
        # Both change by about a tenth where an error of the reconstruction, or of the samples, does.
        terms["monitor"] = terms["loss"].detach() + self.distance(batch, sample)
        maps = (self.real_maps(batch), self.fake_maps(reconstruction), self.fake_maps(sample))
        game = self.game.generator_terms(*maps)
        terms["loss"] = terms["loss"] + settings.ramp(batch.progress) * game.pop("loss")
        return {**terms, **game, "diversity": diversity(sample.mean, batch.image)}

    def _discriminator_loss(self, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            codes = self.mixed(reparametrise(*self.encode(batch.image)))
            fake = self.fake_maps(self.decode(codes, self.draw_noise(len(codes))))
        return self.game.discriminator_terms(self.real_maps(batch), fake, batch.progress)
