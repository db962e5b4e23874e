"""The second player of the GANs: PatchGANs on several scales, adaptive augmentation, and both players' terms."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from medgen.models import losses
from medgen.models.base import ModelConfig, Widths
from medgen.models.facts import Fact
from medgen.models.networks import blocks
from medgen.seeds import derive
from medgen.transforms.augmentation import AugmentConfig, augment

# Beyond this probability augmentations leak into what the generator makes (Karras et al. 2020, section 2.2).
MOST_AUGMENTED = 0.8
# Memory of the running mean of signs: four steps, as published.
_MEMORY = 0.75
_UNCHANGED = AugmentConfig(
    spatial=0.0,
    elastic=0.0,
    intensity=0.0,
    gamma=(1.0, 1.0),
    brightness=(1.0, 1.0),
    contrast=(1.0, 1.0),
    noise=0.0,
    blur=(0.0, 0.0),
    bias=0.0,
)


class GanSettings(ModelConfig):
    """Settings of a model that is trained against a discriminator.

    Attributes:
        discriminator_widths: Channels per level of the discriminator, multiples of 16.
        discriminator_scales: Discriminators; each after the first sees the scans at half the resolution of the one
            before (Wang et al. 2018).
        gan: Loss of the two players: ``hinge`` or ``nonsaturating``.
        adversarial: Weight of that loss on samples.
        feature_matching: Weight of the distance between discriminator features of scan and reconstruction.
        r1: Weight of the gradient penalty on real scans (mean square per voxel).
        r1_every: The penalty is computed in one of so many steps, see :func:`chosen`, and weighted up by as much.
        ada_target: Mean sign of the discriminator's logits on real scans that adaptive augmentation aims at
            (Karras et al. 2020; 0.6 there); 0 is no augmentation of what the discriminator sees.
        ada_images: Real scans seen while the probability of augmentation moves by 1.
    """

    discriminator_widths: Widths = (32, 64)
    discriminator_scales: int = Field(default=1, ge=1, le=3)
    gan: Literal["hinge", "nonsaturating"] = "hinge"
    adversarial: float = Field(default=0.5, ge=0)
    feature_matching: float = Field(default=1.0, ge=0)
    r1: float = Field(default=10.0, ge=0)
    r1_every: int = Field(default=16, ge=1)
    ada_target: float = Field(default=0.0, ge=0, lt=1)
    ada_images: int = Field(default=2000, ge=1)


class PatchDiscriminator(nn.Module):
    """3D PatchGANs (Isola et al. 2017) with spectral norm (Miyato et al. 2018) and no other normalisation.

    MONAI's has batch norm and no spectral norm, and convolves at full resolution. One logit per 2^(levels) voxels
    along each axis; each sees about 20 voxels around it, twice as many with every further scale.
    """

    def __init__(self, channels: int, widths: Sequence[int], scales: int = 1) -> None:
        super().__init__()
        self.factor = 2 ** (len(widths) + scales - 1)
        layers: list[nn.Module] = [spectral_norm(blocks.Conv3(8 * channels, widths[0]))]
        for below, width in itertools.pairwise(widths):
            layers.append(spectral_norm(nn.Conv3d(below, width, 2, stride=2)))
            layers.append(spectral_norm(blocks.Conv3(width, width)))
        self.layers = nn.ModuleList(layers)
        self.logits = spectral_norm(blocks.Pointwise(widths[-1], 1))
        self.coarser = PatchDiscriminator(channels, widths, scales - 1) if scales > 1 else None

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Logits (b, 1, i', j', k') per scale, and features of every layer and scale, for (b, channels, i, j, k)."""
        x = blocks.pad_to_multiple(x, self.factor)
        y = blocks.channels_last(blocks.space_to_depth(x))
        features = []
        for layer in self.layers:
            y = functional.leaky_relu(layer(y), 0.2)
            features.append(y)
        logits = [self.logits(y)]
        if self.coarser is not None:
            more = self.coarser(functional.avg_pool3d(x, 2))
            logits, features = logits + more[0], features + more[1]
        return logits, features


def adapted_probability(probability: Tensor, overfitting: Tensor, target: float, images: int, length: int) -> Tensor:
    """The next probability of augmentation (Karras et al. 2020, section 3): one step towards what meets the target.

    p + sign(r − target) · images / length, kept in [0, 0.8].

    Args:
        probability: p, a scalar.
        overfitting: r = E sign D(x) on real scans, in [-1, 1].
        target: The r that is aimed at; above it augmentation becomes more likely, below it less.
        images: Real scans seen since the last step.
        length: Real scans in which p can move by 1.
    """
    return (probability + torch.sign(overfitting - target) * images / length).clamp(0, MOST_AUGMENTED)


class AdaptiveAugmentation(nn.Module):
    """Augmentation of what a discriminator sees, as likely as its overfitting demands (Karras et al. 2020).

    Real and generated maps pass through it. All maps of a scan move through one grid, mirrored, turned, scaled and
    shifted, and image intensities then change; gradients go through. Its state are buffers, so that a resumed
    training goes on with it.

    Args:
        channels: How many of the maps, from the first, are image channels.
        target: See :class:`GanSettings`.
        images: See :class:`GanSettings`.
    """

    def __init__(self, channels: int, target: float, images: int) -> None:
        super().__init__()
        self.channels, self.target, self.images = channels, target, images
        self.probability: Tensor
        self.overfitting: Tensor
        self.register_buffer("probability", torch.zeros(()))
        self.register_buffer("overfitting", torch.zeros(()))

    def forward(self, maps: Tensor) -> Tensor:
        """Augment (b, channels + more, i, j, k) with the present probability; draws from torch's global generator."""
        p = float(self.probability)
        # Drawn in any case: the stream must not depend on the probability.
        seed = int(torch.randint(2**62, ()))
        if p == 0.0:
            return maps
        generator = torch.Generator().manual_seed(seed)
        moves = {"spatial": p, "flip": (p / 2, p / 2, p / 2)}
        moved, _ = augment(maps, None, _UNCHANGED.model_copy(update=moves), generator)
        image, rest = moved[:, : self.channels], moved[:, self.channels :]
        tones = {"intensity": p, "brightness": (0.8, 1.25), "contrast": (0.8, 1.25), "noise": 0.1}
        image, _ = augment(image, None, _UNCHANGED.model_copy(update=tones), generator)
        return torch.cat([image, rest], dim=1)

    def fact(self) -> Fact:
        """How likely augmentation is at the end."""
        said = "At the end the discriminator saw augmented scans with a probability of {value:.2f}."
        return Fact("augmented", float(self.probability), "", said)

    @torch.no_grad()
    def adapt(self, logits: Sequence[Tensor]) -> None:
        """Learn from the logits of a batch of real scans."""
        sign = torch.stack([torch.sign(scale.float()).mean() for scale in logits]).mean()
        self.overfitting.lerp_(sign, 1 - _MEMORY)
        number = len(logits[0])
        self.probability.copy_(
            adapted_probability(self.probability, self.overfitting, self.target, number, self.images)
        )


@dataclass(frozen=True)
class Game:
    """The terms of both players, for maps (b, channels, i, j, k).

    Attributes:
        discriminator: The second player.
        settings: Losses and weights.
        adaptive: What real and generated maps pass through before the discriminator sees them; None is nothing.
    """

    discriminator: PatchDiscriminator
    settings: GanSettings
    adaptive: AdaptiveAugmentation | None = None

    def generator_terms(self, real: Tensor, reconstruction: Tensor, sample: Tensor) -> dict[str, Tensor]:
        """The generator's weighted ``loss``, and of its parts ``adversarial`` and ``matching``.

        Args:
            real: Scans.
            reconstruction: Their reconstructions, which should have the same features.
            sample: Maps that should pass for real.
        """
        with torch.no_grad():
            _, wanted = self.discriminator(real)
        seen = sample if self.adaptive is None else self.adaptive(sample)
        logits, features = self.discriminator(torch.cat([reconstruction, seen]))
        b = len(reconstruction)
        loss = losses.hinge_generator if self.settings.gan == "hinge" else losses.nonsaturating_generator
        adversarial = torch.stack([loss(scale[b:]) for scale in logits]).mean()
        matching = losses.feature_matching(wanted, [maps[:b] for maps in features])
        total = self.settings.adversarial * adversarial + self.settings.feature_matching * matching
        return {"loss": total, "adversarial": adversarial.detach(), "matching": matching.detach()}

    def discriminator_terms(self, real: Tensor, fake: Tensor, progress: float) -> dict[str, Tensor]:
        """The discriminator's ``loss``, and how well it does; adapts the augmentation while training.

        Logged are the mean logits ``d_real`` and ``d_fake``, ``accuracy`` (share of logits on the right side of 0),
        ``augmented`` (the probability of augmentation) and now and then ``r1``.

        Args:
            real: Scans.
            fake: Maps that should not pass for real.
            progress: How much of the training is done; it decides whether this is a step with the penalty.
        """
        settings, b = self.settings, len(real)
        maps = torch.cat([real, fake])
        if self.adaptive is not None:
            maps = self.adaptive(maps)
        logits, _ = self.discriminator(maps)
        loss: Callable[[Tensor, Tensor], Tensor]
        hinge = settings.gan == "hinge"
        loss = losses.hinge_discriminator if hinge else losses.nonsaturating_discriminator
        total = torch.stack([loss(*scale.split(b)) for scale in logits]).mean()
        terms = self._judgement([scale.detach().float() for scale in logits], b)
        # Lazy regularisation (Karras et al. 2020).
        if settings.r1 > 0 and chosen(progress, settings.r1_every):
            # Half precision squares tiny gradients to zero.
            with blocks.full_precision(real.device):
                # As augmented: the sampler has no second derivative. Nor has compiled code, hence ``forward``.
                scans = maps[:b].detach().float().requires_grad_()
                penalties = [losses.r1_penalty(scale, scans) for scale in self.discriminator.forward(scans)[0]]
                # Per voxel, so that the weight does not depend on the shape.
                penalty = torch.stack(penalties).mean() / scans[0].numel()
            total = total + settings.r1 * settings.r1_every * penalty
            terms["r1"] = penalty.detach()
        return {**terms, "loss": total}

    def _judgement(self, logits: Sequence[Tensor], b: int) -> dict[str, Tensor]:
        real, fake = [scale[:b] for scale in logits], [scale[b:] for scale in logits]
        if self.adaptive is not None and self.discriminator.training:
            self.adaptive.adapt(real)
        right = [(scale > 0).float().mean() for scale in real] + [(scale < 0).float().mean() for scale in fake]
        terms = {
            "d_real": torch.stack([scale.mean() for scale in real]).mean(),
            "d_fake": torch.stack([scale.mean() for scale in fake]).mean(),
            "accuracy": torch.stack(right).mean(),
        }
        return terms if self.adaptive is None else {**terms, "augmented": self.adaptive.probability.clone()}


def chosen(progress: float, every: int) -> bool:
    """Whether a step has a term that only one in ``every`` has: at random, and the same for all processes.

    Drawn from the step's place in the training, not from a stream of which each process has its own: a process with
    more to do than the others would be waited for.

    >>> chosen(0.25, 1), sum(chosen(step / 1600, 16) for step in range(1600)) in range(70, 130)
    (True, True)
    """
    return derive(0, "chosen", repr(float(progress))) % every == 0


def fine_detail(images: Tensor) -> Tensor:
    """Standard deviation of what a mean over 3³ voxels takes away, per channel of (n, c, i, j, k), (c, 1, 1, 1).

    The unit in which discriminators see images: their logits change no faster than what they see, and in model
    intensities they take blurred scans for sharp ones. At least 0.001.
    """
    squares = [
        (image - functional.avg_pool3d(image, 3, 1, 1)).square().mean(dim=(1, 2, 3), keepdim=True) for image in images
    ]
    return torch.stack(squares).mean(0).sqrt().clamp_min(1e-3)


def diversity(sample: Tensor, real: Tensor) -> Tensor:
    """Mean distance between neighbours of a batch of samples, relative to that of real scans: 1 is as diverse, 0 alike.

    Args:
        sample: (b, ...), b at least 2 for a meaningful answer.
        real: (b, ...).

    Returns:
        A scalar, 1 for batches of one.
    """
    if len(sample) < 2:
        return torch.ones((), device=sample.device)
    distance = [(x - x.roll(1, 0)).detach().float().abs().mean() for x in (sample, real)]
    return distance[0] / distance[1].clamp_min(1e-6)
