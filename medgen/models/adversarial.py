"""The adversarial half of the GAN families: a 3D PatchGAN and the terms of the two players."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from medgen import losses
from medgen.dataset import Batch
from medgen.models import blocks
from medgen.models.latent import Decoded, LatentModel, LatentSettings, mixed_codes, reparametrise


class AdversarialSettings(LatentSettings):
    """Settings of an autoencoder trained against a discriminator.

    Attributes:
        discriminator_widths: Channels per level of the discriminator, multiples of 16.
        adversarial: Weight of the hinge loss on samples.
        feature_matching: Weight of the distance between discriminator features of scan and reconstruction.
        r1: Weight of the gradient penalty on real scans (mean square per voxel).
        r1_every: The penalty is computed in one of so many steps, drawn at random, and weighted up by as much.
    """

    discriminator_widths: tuple[int, ...] = (32, 64)
    adversarial: float = Field(default=0.5, ge=0)
    feature_matching: float = Field(default=1.0, ge=0)
    r1: float = Field(default=10.0, ge=0)
    r1_every: int = Field(default=16, ge=1)


class PatchDiscriminator(nn.Module):
    """3D PatchGAN (Isola et al. 2017) with spectral norm (Miyato et al. 2018) and no other normalisation.

    MONAI's has batch norm and no spectral norm, and convolves at full resolution. One logit per
    2^(levels) voxels along each axis; each sees about 20 voxels around it.
    """

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.factor = 2 ** len(widths)
        layers: list[nn.Module] = [spectral_norm(nn.Conv3d(8 * channels, widths[0], 3, padding=1))]
        for below, width in itertools.pairwise(widths):
            layers.append(spectral_norm(nn.Conv3d(below, width, 2, stride=2)))
            layers.append(spectral_norm(nn.Conv3d(width, width, 3, padding=1)))
        self.layers = nn.ModuleList(layers)
        self.logits = spectral_norm(blocks.Pointwise(widths[-1], 1))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits (b, 1, i', j', k') and the features of every layer for (b, channels, i, j, k)."""
        y = blocks.channels_last(blocks.space_to_depth(blocks.pad_to_multiple(x, self.factor)))
        features = []
        for layer in self.layers:
            y = functional.leaky_relu(layer(y), 0.2)
            features.append(y)
        return self.logits(y), features


class AdversarialModel(LatentModel):
    """An autoencoder whose samples, drawn with decoder noise, also have to pass a discriminator (Larsen et al. 2016).

    Reconstructions and likelihoods use the decoder without noise and are those of :class:`LatentModel`; the noise
    lets samples carry texture that no code could. Abstract: families say which maps the discriminator sees.
    """

    settings: AdversarialSettings

    def __init__(self, settings: AdversarialSettings, extra: int = 0) -> None:
        super().__init__(settings, extra)
        self.discriminator = PatchDiscriminator(settings.in_channels + extra, settings.discriminator_widths)

    def phases(self) -> dict[str, list[nn.Parameter]]:
        """``generator`` (encoder and decoder), then ``discriminator``."""
        generator = [*self.encoder.parameters(), *self.decoder.parameters()]
        return {"generator": generator, "discriminator": list(self.discriminator.parameters())}

    def loss(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        """β-ELBO + hinge + feature matching for the generator; hinge + lazy R1 for the discriminator."""
        return self._discriminator_loss(batch) if phase == "discriminator" else self._generator_loss(batch)

    def real_maps(self, batch: Batch) -> Tensor:
        """What the discriminator sees of real scans, (b, channels, i, j, k)."""
        return batch.image

    def fake_maps(self, decoded: Decoded) -> Tensor:
        """What the discriminator sees of decoded ones, in the same form as :meth:`real_maps`."""
        return decoded.mean

    def likelihood_terms(self, batch: Batch, mean: Tensor, logvar: Tensor, decoded: Decoded) -> dict[str, Tensor]:
        """The part of the generator's loss that needs no discriminator; families with more maps add to it."""
        return self.negative_elbo(batch, mean, logvar, decoded)

    def sampling_noise(self, n: int, generator: torch.Generator | None) -> list[Tensor]:
        """Samples carry decoder noise, as in training."""
        return self.draw_noise(n, generator)

    def seen_maps(self, x: Tensor) -> Tensor:
        """What the discriminator sees of scans (b, c, i, j, k) that come alone, in the form of :meth:`real_maps`."""
        return x

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
        # One decoder pass for both: reconstructions get no noise, samples do.
        noise = [torch.cat([torch.zeros_like(maps), maps]) for maps in self.draw_noise(b)]
        both = self.decode(torch.cat([z, mixed_codes(z)]), noise)
        reconstruction, sample = (Decoded(*(maps[part] for maps in both)) for part in (slice(b), slice(b, None)))
        terms = self.likelihood_terms(batch, mean, logvar, reconstruction)
        terms["monitor"] = terms["loss"].detach()
        with torch.no_grad():
            _, real = self.discriminator(self.real_maps(batch))
        logits, features = self.discriminator(torch.cat([self.fake_maps(reconstruction), self.fake_maps(sample)]))
        hinge = losses.hinge_generator(logits[b:])
        matching = losses.feature_matching(real, [maps[:b] for maps in features])
        penalty = settings.adversarial * hinge + settings.feature_matching * matching
        terms["loss"] = terms["loss"] + settings.ramp(batch.progress) * penalty
        return {**terms, "hinge": hinge.detach(), "matching": matching.detach()}

    def _discriminator_loss(self, batch: Batch) -> dict[str, Tensor]:
        settings = self.settings
        real = self.real_maps(batch)
        with torch.no_grad():
            codes = mixed_codes(reparametrise(*self.encode(batch.image)))
            fake = self.fake_maps(self.decode(codes, self.draw_noise(len(codes))))
        logits, _ = self.discriminator(torch.cat([real, fake]))
        real_logits, fake_logits = logits.split(len(real))
        loss = losses.hinge_discriminator(real_logits, fake_logits)
        terms = {"d_real": real_logits.mean().detach(), "d_fake": fake_logits.mean().detach()}
        # Lazy regularisation (Karras et al. 2020) without a counter: the step's own random stream decides.
        if settings.r1 > 0 and torch.rand(()).item() * settings.r1_every < 1:
            # Half precision squares tiny gradients to zero.
            with blocks.full_precision(real.device):
                scans = real.detach().float().requires_grad_()
                # Per voxel, so that the weight does not depend on the shape.
                penalty = losses.r1_penalty(self.discriminator(scans)[0], scans) / scans[0].numel()
            loss = loss + settings.r1 * settings.r1_every * penalty
            terms["r1"] = penalty.detach()
        return {**terms, "loss": loss}
