"""Images painted on label maps: a SPADE generator with noise and style, trained against two-scale PatchGANs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor, nn
from torch.nn import functional

from medgen.errors import TrainingError
from medgen.models import losses
from medgen.models.adversarial.mixed_codes import MixedCodes
from medgen.models.adversarial.sample_distance import sample_distance
from medgen.models.base import Drawn, ScanCode, ScanModel, Widths
from medgen.models.facts import Fact
from medgen.models.latent import reparametrise
from medgen.models.networks import blocks
from medgen.models.networks.discriminator import (
    AdaptiveAugmentation,
    Game,
    GanSettings,
    PatchDiscriminator,
    diversity,
    fine_detail,
)
from medgen.models.passes import in_slabs
from medgen.models.stages import Phase, Role

if TYPE_CHECKING:
    from medgen.preprocessing.dataset import Batch, Dataset

Consistency = Callable[[Tensor, Tensor, Tensor], Tensor]
# Log-variance of the style's posterior before the first step.
_START_LOGVAR = -4.0
# Voxels at which the distances between which label maps are interpolated are cut off.
_TRUNCATION = 8


class SpadeSettings(GanSettings):
    """Settings of :class:`Spade`; the discriminator's are those of :class:`GanSettings`.

    Attributes:
        n_labels: Labels besides the background, numbered 1 to ``n_labels``.
        widths: Channels per level, multiples of 16; the first level is at half the resolution.
        blocks: Residual blocks per level of the generator.
        style: Length of the style code.
        narrow: Channels of the coarsest map that a style code becomes.
        hidden: Channels between the label map and its modulation.
        reconstruction: Weight of the L1 distance between a scan and what is painted with its own labels and style.
        background: Weight of voxels outside the foreground in that distance, relative to those inside.
        consistency: Weight of the disagreement between the labels and what a frozen segmenter sees in the painted
            scan; without such a segmenter (:meth:`Spade.watch`) the term is absent.
        beta: Weight of the KL divergence of the style code, in nats per scan.
        warmup: Share of the training during which the adversarial weights rise from 0.
    """

    family: Literal["spade"] = "spade"
    n_labels: int = Field(ge=1, le=255)
    widths: Widths = (32, 64, 128)
    blocks: int = Field(default=1, ge=1, le=8)
    style: int = Field(default=32, ge=2, le=4096)
    narrow: int = Field(default=16, ge=1)
    hidden: int = Field(default=32, ge=1)
    reconstruction: float = Field(default=10.0, ge=0)
    background: float = Field(default=0.3, gt=0, le=1)
    consistency: float = Field(default=0.2, ge=0)
    beta: float = Field(default=1e-3, ge=0)
    warmup: float = Field(default=0.05, ge=0, le=1)
    adversarial: float = Field(default=1.0, ge=0)
    feature_matching: float = Field(default=2.0, ge=0)
    r1: float = Field(default=1.0, ge=0)
    discriminator_scales: int = Field(default=2, ge=1, le=3)
    ada_target: float = Field(default=0.6, ge=0, lt=1)

    def ramp(self, progress: float) -> float:
        """Factor in [0, 1] that rises linearly over the warm-up."""
        return min(1.0, progress / self.warmup) if self.warmup > 0 else 1.0


class Modulation(nn.Module):
    """Spatially-adaptive denormalisation (Park et al., "Semantic image synthesis with SPADE", CVPR 2019, equation 1).

    norm(x) · (1 + γ(m)) + β(m), with γ and β made of the label map m by a 3³ convolution, ReLU and a 1³ convolution.
    The norm is per voxel over channels, as everywhere here: no voxel sees another's statistics.
    """

    def __init__(self, channels: int, maps: int, hidden: int) -> None:
        super().__init__()
        self.shared = blocks.Conv3(maps, hidden)
        self.gain = blocks.Pointwise(hidden, channels)
        self.bias = blocks.Pointwise(hidden, channels)

    def forward(self, x: Tensor, maps: Tensor) -> Tensor:
        """(b, channels, i, j, k) to the same shape, for maps (b, maps, i, j, k)."""
        seen = functional.relu(self.shared(maps))
        normal = functional.layer_norm(x.movedim(1, -1), x.shape[1:2]).movedim(-1, 1)
        return normal * (1 + self.gain(seen)) + self.bias(seen)


class SpadeBlock(blocks.Recomputed):
    """x + W · SiLU(conv₃(SPADE(x, m)) + g · noise): the house's residual block with SPADE for its norm."""

    # A convolution of the maps, and one of what they modulate.
    reach = 2

    def __init__(self, channels: int, maps: int, hidden: int) -> None:
        super().__init__()
        self.norm = Modulation(channels, maps, hidden)
        self.conv = blocks.Conv3(channels, channels)
        self.mix = blocks.Pointwise(channels, channels)
        nn.init.zeros_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)
        self.gain = nn.Parameter(torch.full((channels,), 0.1))

    def forward(self, x: Tensor, maps: Tensor, noise: Tensor | None) -> Tensor:
        """(b, channels, i, j, k) to the same shape; ``noise`` is (b, 1, i, j, k) or None for none."""
        return self.kept_or_again(self._inside, x, maps, noise)

    def _inside(self, x: Tensor, maps: Tensor, noise: Tensor | None) -> Tensor:
        y = self.conv(self.norm(x, maps))
        if noise is not None:
            y = y + self.gain.view(-1, 1, 1, 1) * noise
        return x + self.mix(functional.silu(y))


class SpadeDecoder(nn.Module):
    """A style code and a label map to an image, coarse to fine; the label map modulates every level.

    Label maps keep their full resolution: the finest level gets its 2 × 2 × 2 neighbours as channels, the
    coarser ones means.
    """

    def __init__(self, settings: SpadeSettings, size: Sequence[int]) -> None:
        super().__init__()
        widths, hidden, classes = settings.widths, settings.hidden, settings.n_labels + 1
        down = list(reversed(widths))
        self.size = (settings.narrow, *size)
        self.vector = nn.Linear(settings.style, settings.narrow * size[0] * size[1] * size[2])
        self.widen = blocks.Pointwise(settings.narrow, down[0])
        self.levels = nn.ModuleList(
            nn.ModuleList(SpadeBlock(width, 8 * classes, hidden) for _ in range(settings.blocks)) for width in down
        )
        # The style again at every level, as a gain and a bias per channel.
        self.styles = nn.ModuleList(nn.Linear(settings.style, 2 * width) for width in down)
        ups = [blocks.Finer(a, b) for a, b in itertools.pairwise(down)]
        self.norm = Modulation(widths[0], 8 * classes, hidden)
        self.head = blocks.Conv3(widths[0], 8 * settings.in_channels)
        for up in ups:
            blocks.smooth_start(up)
        self.ups = nn.ModuleList(ups)
        blocks.smooth_start(self.head, scale=0.1)

    def noise_shapes(self) -> list[tuple[int, int, int, int]]:
        """Shapes (1, i, j, k) of the noise maps, coarse to fine, one per level."""
        i, j, k = self.size[1:]
        return [(1, i << level, j << level, k << level) for level in range(len(self.levels))]

    def forward(self, classes: Tensor, z: Tensor, noise: Sequence[Tensor] | None) -> Tensor:
        """(b, c, i, j, k) for one-hot maps (b, n_labels + 1, i, j, k) and codes (b, style)."""
        pyramid = [blocks.channels_last(blocks.space_to_depth(classes))]
        for _ in range(len(self.levels) - 1):
            classes = functional.avg_pool3d(classes, 2)
            pyramid.append(blocks.channels_last(blocks.space_to_depth(classes)))
        pyramid.reverse()
        y = self.widen(blocks.channels_last(self.vector(z).unflatten(1, self.size)))
        for level, (stage, style) in enumerate(zip(self.levels, self.styles, strict=True)):
            if level:
                y = self.ups[level - 1](y)
            gain, bias = style(z)[:, :, None, None, None].chunk(2, dim=1)
            y = y * (1 + gain) + bias
            for block in stage.children():
                y = block(y, pyramid[level], None if noise is None else noise[level])
        return blocks.depth_to_space(in_slabs(self._last, (y, pyramid[-1]), 2))

    def _last(self, y: Tensor, maps: Tensor) -> Tensor:
        return self.head(functional.silu(self.norm(y, maps)))


class Spade(ScanModel):
    """x = G(labels, style, noise) + the mean scan, against two-scale PatchGANs on [image, one-hot labels].

    Source: Park et al., "Semantic image synthesis with spatially-adaptive normalization", CVPR 2019.

    Beside the adversarial loss, scans have to come back from their own labels and style without noise, in L1 and in
    the discriminator's features (a VAE-GAN given the labels, Larsen et al. 2016): with few scans that carries most of
    the quality. Adversarial samples are painted with the labels of one scan in a style mixed from all of them.
    """

    family: ClassVar[str] = "spade"
    Settings: ClassVar[type[SpadeSettings]] = SpadeSettings
    tiny: ClassVar[dict[str, Any]] = {
        "widths": (16, 32),
        "style": 6,
        "narrow": 4,
        "hidden": 8,
        "discriminator_widths": (16, 16),
        "n_labels": 2,
    }
    settings: SpadeSettings

    def __init__(self, settings: SpadeSettings) -> None:
        super().__init__(settings)
        self.factor = 2 ** len(settings.widths)
        coarse = [size // self.factor for size in blocks.padded_shape(settings.shape, self.factor)]
        channels, classes = settings.in_channels, settings.n_labels + 1
        self.encoder = blocks.Encoder(channels, settings.widths, 1, settings.narrow, coarse, out=2 * settings.style)
        self.decoder = SpadeDecoder(settings, coarse)
        widths, scales = settings.discriminator_widths, settings.discriminator_scales
        self.discriminator = PatchDiscriminator(channels + classes, widths, scales)
        ada = (settings.ada_target, settings.ada_images)
        self.adaptive = AdaptiveAugmentation(channels, *ada) if settings.ada_target else None
        with torch.no_grad():
            self.encoder.vector.bias[settings.style :] += _START_LOGVAR
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros((channels, *settings.shape)))
        # The unit in which the discriminator sees images.
        self.detail: Tensor
        self.register_buffer("detail", torch.ones((channels, 1, 1, 1)))
        self.mixed = MixedCodes(settings.style)
        self._consistency: Consistency | None = None

    def watch(self, consistency: Consistency | None) -> None:
        """Train with a frozen segmenter's disagreement, or without.

        Args:
            consistency: Maps painted images (b, c, i, j, k), labels (b, 1, i, j, k) and their confidence (b, 1, i, j,
                k) to a scalar whose gradient reaches the images. It is no part of the model and not kept with it.
        """
        self._consistency = consistency

    def phases(self) -> dict[str, Phase]:
        """``generator`` (style encoder and decoder), then ``discriminator``."""
        generator = [*self.encoder.parameters(), *self.decoder.parameters()]
        return {
            "generator": Phase(generator),
            "discriminator": Phase(list(self.discriminator.parameters()), Role.DISCRIMINATOR),
        }

    def shared_buffers(self) -> Sequence[Tensor]:
        """The mean that adversarial styles are mixed about, and the state of the adaptive augmentation."""
        return (*self.mixed.state(), *(() if self.adaptive is None else self.adaptive.buffers()))

    def facts(self) -> Sequence[Fact]:
        """How far adaptive augmentation went, where there is any."""
        return super().facts() if self.adaptive is None else (*super().facts(), self.adaptive.fact())

    def encode_style(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the style code of images (b, c, i, j, k), (b, style) each."""
        code = self.encoder(blocks.pad_to_multiple(x - self.mean, self.factor)).float()
        mean, logvar = code.chunk(2, dim=1)
        return mean, logvar.clamp(-12, 6)

    def paint(self, labels: Tensor, style: Tensor, noise: list[Tensor] | None = None) -> Tensor:
        """Images (b, c, i, j, k) float32 for labels (b, 1, i, j, k) and style codes; deterministic without noise."""
        classes = blocks.pad_to_multiple(losses.one_hot(labels, self.settings.n_labels + 1), self.factor)
        return blocks.crop_to(self.decoder(classes, style, noise), self.settings.shape).float() + self.mean

    def draw_noise(self, n: int, generator: Generator | None = None) -> list[Tensor]:
        """Standard normal noise maps for ``n`` volumes, one (n, 1, i, j, k) per level."""
        device = self.mean.device if generator is None else generator.device
        shapes = self.decoder.noise_shapes()
        return [torch.randn((n, *shape), generator=generator, device=device).to(self.mean.device) for shape in shapes]

    @torch.no_grad()
    def locate(self, batch: Batch) -> ScanCode:
        """Posterior means of the styles of scans; their label maps as signed distances."""
        distance = losses.signed_distance(self._labels(batch), self.settings.n_labels, _TRUNCATION)
        return ScanCode(self.encode_style(batch.image)[0], maps=(distance,))

    @torch.no_grad()
    def draw_at(self, place: ScanCode) -> Drawn:
        """Label maps between the given ones, painted without noise."""
        labels = losses.labels_from_distance(place.maps[0])[:, None]
        return Drawn(self.paint(labels, place.code), labels)

    def loss(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        """Reconstruction, adversarial, feature and consistency terms, or those of the discriminator.

        ``monitor``, which validation looks at, is about what is painted on label maps in drawn styles: how far its
        anatomy, its detail and the intensities in its labels are from those of scans, and, where a segmenter watches,
        how badly that sees the labels. The reconstruction error ``l1``, which a blurred scan makes least, is not in it.
        """
        labels = self._labels(batch)
        return self._discriminator_loss(batch, labels) if phase == "discriminator" else self._loss(batch, labels)

    @torch.no_grad()
    def initialize(self, dataset: Dataset) -> None:
        """Start from the mean scan, so that the networks learn only the differences."""
        self.mean.copy_(dataset.images.mean(0))
        self.detail.copy_(fine_detail(dataset.images))

    @torch.no_grad()
    def style_codes(self, dataset: Dataset) -> tuple[Tensor, Tensor]:
        """Posterior means and log-variances of a data set's styles, (n, style) each."""
        device = self.mean.device
        found = [self.encode_style(dataset.batch([n]).image.to(device)) for n in range(len(dataset))]
        return torch.cat([mean for mean, _ in found]), torch.cat([logvar for _, logvar in found])

    @property
    def _game(self) -> Game:
        return Game(self.discriminator, self.settings, self.adaptive)

    def _loss(self, batch: Batch, labels: Tensor) -> dict[str, Tensor]:
        settings, b = self.settings, len(labels)
        ramp = settings.ramp(batch.progress)
        trust = torch.ones_like(batch.foreground) if batch.confidence is None else batch.confidence
        mean, logvar = self.encode_style(batch.image)
        z = reparametrise(mean, logvar)
        if self.training and torch.is_grad_enabled():
            self.mixed.learn(z.detach())
        # One pass for both: reconstructions get no noise, samples do.
        noise = [torch.cat([torch.zeros_like(maps), maps]) for maps in self.draw_noise(b)]
        both = self.paint(torch.cat([labels, labels]), torch.cat([z, self.mixed(z)]), noise)
        reconstruction, sample = both[:b], both[b:]
        weight = trust * (batch.foreground + settings.background * (1 - batch.foreground))
        l1 = losses.weighted_mean((reconstruction - batch.image).abs(), weight)
        kl = losses.kl_standard_normal(mean, logvar)
        game = self._game.generator_terms(
            self._maps(batch.image, labels), self._maps(reconstruction, labels), self._maps(sample, labels)
        )
        loss = settings.reconstruction * l1 + settings.beta * kl.sum(1).mean() + ramp * game.pop("loss")
        monitor = sample_distance(sample, batch.image, (labels, labels), settings.n_labels)
        terms = {"l1": l1.detach(), "kl": kl.sum(1).mean().detach(), **game}
        if self._consistency is not None and settings.consistency:
            disagreement = self._consistency(sample, labels, trust)
            loss = loss + ramp * settings.consistency * disagreement
            terms["consistency"] = disagreement.detach()
            monitor = monitor + settings.consistency * terms["consistency"]
        return {"loss": loss, "monitor": monitor, **terms, "diversity": diversity(sample, batch.image)}

    def _discriminator_loss(self, batch: Batch, labels: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            codes = self.mixed(reparametrise(*self.encode_style(batch.image)))
            fake = self.paint(labels, codes, self.draw_noise(len(codes)))
        real = self._maps(batch.image, labels)
        return self._game.discriminator_terms(real, self._maps(fake, labels), batch.progress)

    def _maps(self, image: Tensor, labels: Tensor) -> Tensor:
        """What the discriminator sees: image, in units of its detail, and one-hot labels."""
        image = image / self.detail
        return torch.cat([image, losses.one_hot(labels, self.settings.n_labels + 1).to(image.dtype)], dim=1)

    def _labels(self, batch: Batch) -> Tensor:
        if batch.labels is None:
            raise TrainingError("the spade family learns from label maps, and these scans have no masks")
        return batch.labels
