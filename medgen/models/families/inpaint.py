"""Conditional GAN that fills a hole in a scan, given what lies around it, labels and a style."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Generator, Tensor
from torch.nn import functional

from medgen.models import losses
from medgen.models.base import ModelConfig, ScanModel, Widths
from medgen.models.networks import blocks
from medgen.models.networks.discriminator import PatchDiscriminator
from medgen.models.networks.unet import UNet
from medgen.models.stages import Phase, Role
from medgen.preprocessing.dataset import Batch
from medgen.transforms.devices import sent
from medgen.transforms.fields import smooth_noise

# Factor on what the discriminator sees of the difference to the smooth filling. With spectral norm its logits differ by
# no more than its inputs do; unmagnified texture (0.1 of the intensity range) left them equal over 200 steps.
_MAGNIFY = 10.0


class InpaintSettings(ModelConfig):
    """Settings of :class:`Inpaint`.

    Attributes:
        n_labels: Labels besides the background, numbered 1 to ``n_labels``.
        widths: Channels per level of the generator, multiples of 16; the first level is at half the resolution.
        blocks: Residual blocks per level, on the way down and on the way up.
        margin: Voxels around labelled ones that belong to the hole: the border of a lesion is drawn too.
        healthy: Probability that a labelled scan's hole is a random one instead of its labelled region.
        hole: Radius of random holes, as a share of the shortest axis, uniform in this range.
        discriminator_widths: Channels per level of the discriminator, multiples of 16.
        adversarial: Weight of the hinge loss on fillings drawn with noise.
        feature_matching: Weight of the distance between discriminator features of scan and filling.
        style: Weight of the distance between the style asked for and the style drawn.
        warmup: Share of the training during which ``adversarial`` and ``feature_matching`` rise from 0.
    """

    family: Literal["inpaint"] = "inpaint"
    n_labels: int = Field(ge=1, le=255)
    widths: Widths = (32, 64, 96)
    blocks: int = Field(default=1, ge=1, le=8)
    margin: int = Field(default=2, ge=0, le=8)
    healthy: float = Field(default=0.25, ge=0, le=1)
    hole: tuple[float, float] = (0.12, 0.3)
    discriminator_widths: Widths = (32, 64)
    adversarial: float = Field(default=0.1, ge=0)
    feature_matching: float = Field(default=0.5, ge=0)
    style: float = Field(default=0.2, ge=0)
    warmup: float = Field(default=0.1, ge=0, le=1)

    @field_validator("hole")
    @classmethod
    def _range(cls, hole: tuple[float, float]) -> tuple[float, float]:
        if not 0 < hole[0] <= hole[1] < 0.5:
            raise ValueError("expected an ascending range above 0 and below 0.5")
        return hole

    def ramp(self, progress: float) -> float:
        """Factor in [0, 1] that rises linearly over the warm-up."""
        return min(1.0, progress / self.warmup) if self.warmup > 0 else 1.0


class Inpaint(ScanModel):
    """x̂ = G(x outside of the hole, hole, labels, style, noise); equal to x outside of the hole.

    Source: Ferreira et al., "How we won BraTS 2023 adult glioma challenge? Just faking it!", 2024.

    In the manner of GliGAN (Ferreira et al., "How we won BraTS 2023 adult glioma challenge? Just faking it!", 2024):
    trained on real lesions, and self-supervised on random holes in the same and in healthy scans, so that few lesions
    suffice. The *style* of a hole is the mean and the standard deviation, per channel, of the difference to a smooth
    filling, in the hole's unlabelled part and in each label's part. It is measured in training and chosen in use, so
    that contrast varies as among real lesions instead of being averaged; G starts from the smooth filling plus the
    mean. Losses: L1 in the hole and feature matching without noise, hinge against a 3D PatchGAN with spectral norm
    and the style's error with noise.
    """

    family: ClassVar[str] = "inpaint"
    Settings: ClassVar[type[InpaintSettings]] = InpaintSettings
    tiny: ClassVar[dict[str, Any]] = {
        "widths": (16, 32),
        "discriminator_widths": (16, 16),
        "n_labels": 2,
        "margin": 1,
    }
    settings: InpaintSettings

    def __init__(self, settings: InpaintSettings) -> None:
        super().__init__(settings)
        c, n = settings.in_channels, settings.n_labels
        # Filling, hole, labels, style (mean and standard deviation per channel), noise.
        self.generator = UNet(c + 1 + n + 2 * c + 1, settings.widths, settings.blocks, c, scale=0.1)
        # Scan, magnified difference to the filling, hole, labels.
        self.discriminator = PatchDiscriminator(2 * c + 1 + n, settings.discriminator_widths)

    def phases(self) -> dict[str, Phase]:
        """``generator``, then ``discriminator``."""
        return {
            "generator": Phase(list(self.generator.parameters())),
            "discriminator": Phase(list(self.discriminator.parameters()), Role.DISCRIMINATOR),
        }

    def loss(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        """L1 + hinge + feature matching + style for the generator; hinge for the discriminator."""
        image = batch.image
        labels = torch.zeros_like(batch.foreground, dtype=torch.long) if batch.labels is None else batch.labels
        hole = self._training_hole(batch.foreground, labels)
        noise = torch.randn_like(hole)
        filling = fill_holes(image, 1 - hole)
        style = measure_style(image, hole, labels, self.settings.n_labels, filling)

        def seen(scan: Tensor) -> Tensor:
            return torch.cat([scan, _MAGNIFY * (scan - filling), *self._conditions(hole, labels)], dim=1)

        if phase == "discriminator":
            with torch.no_grad():
                fake = self._fill(image, hole, labels, style, noise)
            (logits,), _ = self.discriminator(torch.cat([seen(image), seen(fake)]))
            real_logits, fake_logits = logits.split(len(image))
            # As weights: to pick them out, the host would have to know how many there are.
            near = self._patches(hole).float()
            names = {"d_real": real_logits.detach().float(), "d_fake": fake_logits.detach().float()}
            terms = {name: losses.weighted_mean(scores, near) for name, scores in names.items()}
            # The hinge loss of these patches, see `hinge_discriminator`.
            wrong = functional.relu(1 - real_logits.float()) + functional.relu(1 + fake_logits.float())
            return {**terms, "loss": 0.5 * losses.weighted_mean(wrong, near)}
        settings, b = self.settings, len(image)
        plain = self._fill(image, hole, labels, style, torch.zeros_like(noise))
        noisy = self._fill(image, hole, labels, style, noise)
        l1 = losses.weighted_mean((plain - image).abs(), hole)
        with torch.no_grad():
            _, real = self.discriminator(seen(image))
        (logits,), features = self.discriminator(torch.cat([seen(plain), seen(noisy)]))
        hinge = -losses.weighted_mean(logits[b:].float(), self._patches(hole).float())
        matching = losses.feature_matching(real, [maps[:b] for maps in features])
        drawn = measure_style(noisy, hole, labels, settings.n_labels, filling)
        style_error = (drawn - style).abs().mean()
        penalty = settings.adversarial * hinge + settings.feature_matching * matching
        loss = l1 + settings.style * style_error + settings.ramp(batch.progress) * penalty
        return {
            "loss": loss,
            "monitor": l1.detach(),
            "l1": l1.detach(),
            "hinge": hinge.detach(),
            "matching": matching.detach(),
            "style": style_error.detach(),
        }

    @torch.no_grad()
    def inpaint(
        self, x: Tensor, hole: Tensor, labels: Tensor, style: Tensor, generator: Generator | None = None
    ) -> Tensor:
        """Fill the holes of scans.

        Args:
            x: (b, c, i, j, k) in model intensities; values inside the hole are not looked at.
            hole: (b, 1, i, j, k), 1 where to fill, else 0.
            labels: (b, 1, i, j, k) int64, labels as they shall be, 0 to ``n_labels``.
            style: (b, n_labels + 1, 2c), see :func:`measure_style`.
            generator: Source of the texture; None for none.

        Returns:
            (b, c, i, j, k) float32, equal to ``x`` outside of the hole.
        """
        noise = torch.zeros_like(hole)
        if generator is not None:
            noise = torch.randn(hole.shape, generator=generator, device=generator.device).to(hole.device)
        return self._fill(x, hole, labels, style, noise).float()

    def _fill(self, x: Tensor, hole: Tensor, labels: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        c = x.shape[1]
        base = fill_holes(x, 1 - hole)
        regions = _regions(hole, labels, self.settings.n_labels)
        maps = torch.einsum("bnijk,bns->bsijk", regions, style.to(regions.dtype))
        change = self.generator(torch.cat([base, *self._conditions(hole, labels), maps, noise * hole], dim=1))
        return torch.where(hole > 0, base + maps[:, :c] + change.float(), x.float())

    def _conditions(self, hole: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return hole, one_hot(labels, self.settings.n_labels)[:, 1:]

    def _patches(self, hole: Tensor) -> Tensor:
        """Which of the discriminator's patches (b, 1, i', j', k') touch the hole; elsewhere real and drawn are equal.

        Over all patches the few that differ would hardly count, and the discriminator would learn nothing.
        """
        factor = self.discriminator.factor
        return functional.max_pool3d(blocks.pad_to_multiple(hole, factor), factor) > 0

    def _training_hole(self, foreground: Tensor, labels: Tensor) -> Tensor:
        """Per scan its labelled region with a margin, or, where it has none or by chance, a random hole."""
        lesion = (labels > 0).float()
        chance = torch.rand(len(lesion)) >= self.settings.healthy
        own = sent(chance, lesion.device) & (lesion.flatten(1).sum(1) > 0)
        hole = torch.where(own[:, None, None, None, None], dilate(lesion, self.settings.margin), self._random(lesion))
        # Around the patient there is nothing to learn; a scan without foreground there keeps its hole.
        inside = hole * foreground
        some = inside.flatten(1).sum(1) > 0
        return torch.where(some[:, None, None, None, None], inside, hole)

    def _random(self, like: Tensor) -> Tensor:
        """Balls with bumpy surfaces, (b, 1, i, j, k), drawn from torch's global generator."""
        shape, device = like.shape[2:], like.device
        b, smallest = len(like), min(shape)
        low, high = self.settings.hole
        radius = smallest * (low + (high - low) * torch.rand(b, 1, 1, 1))
        size = torch.tensor(shape, dtype=torch.float32)
        # Not nearer to the edge than half a radius: there must be something around the hole.
        rim = smallest * low / 2
        centre = rim + torch.rand(b, 3) * (size - 2 * rim)
        centre, radius = sent(centre, device), sent(radius, device)
        axes = torch.meshgrid(*[torch.arange(n, dtype=torch.float32, device=device) for n in shape], indexing="ij")
        squared = sum((axis[None] - centre[:, k, None, None, None]).square() for k, axis in enumerate(axes))
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ()).item()))
        bumps = 0.2 * smooth_noise(b, 1, shape, max(smallest * low, 2.0), generator, device)
        distance = torch.as_tensor(squared).sqrt()[:, None] / radius[:, None]
        return (distance + bumps < 1).float()


def one_hot(labels: Tensor, n_labels: int) -> Tensor:
    """Labels (b, 1, i, j, k) as indicators (b, n_labels + 1, i, j, k) float32; the first is the background."""
    numbers = torch.arange(n_labels + 1, device=labels.device).view(1, -1, 1, 1, 1)
    return (labels == numbers).float()


def dilate(mask: Tensor, voxels: int) -> Tensor:
    """Grow a mask (b, 1, i, j, k) of 0 and 1 by so many voxels in every direction of a cube."""
    return functional.max_pool3d(mask, 2 * voxels + 1, stride=1, padding=voxels) if voxels else mask


def fill_holes(x: Tensor, known: Tensor) -> Tensor:
    """Continue known voxels smoothly into unknown ones, over a pyramid of weighted means ("push-pull").

    Gortler et al., "The lumigraph", SIGGRAPH 1996, section 3.4.

    Args:
        x: (b, c, i, j, k).
        known: (b, 1, i, j, k), 1 where ``x`` counts, else 0. Without any known voxel the result is 0.

    Returns:
        (b, c, i, j, k) float32, equal to ``x`` where known.
    """
    x, known = x.float(), known.float()
    if max(x.shape[2:]) == 1:
        return x * known
    i, j, k = (min(size, 2) for size in x.shape[2:])
    weight, total = (
        functional.avg_pool3d(maps, (i, j, k), stride=(i, j, k), ceil_mode=True) for maps in (known, x * known)
    )
    coarse = fill_holes(total / weight.clamp_min(1e-6), (weight > 0).float())
    fine = functional.interpolate(coarse, size=x.shape[2:], mode="trilinear", align_corners=False)
    return torch.where(known > 0, x, fine)


def measure_style(image: Tensor, hole: Tensor, labels: Tensor, n_labels: int, filling: Tensor | None = None) -> Tensor:
    """Mean and standard deviation of image − smooth filling, in each part of the hole.

    Args:
        image: (b, c, i, j, k).
        hole: (b, 1, i, j, k) of 0 and 1.
        labels: (b, 1, i, j, k) int64, 0 to ``n_labels``.
        n_labels: Labels besides the background.
        filling: What :func:`fill_holes` makes of the scan without the hole; default: of ``image``.

    Returns:
        (b, n_labels + 1, 2c) float32: for the hole's unlabelled part, then for each label's part, the means of all
        channels and then their standard deviations; 0 for parts without voxels.
    """
    base = fill_holes(image, 1 - hole) if filling is None else filling
    difference = image.float() - base
    regions = _regions(hole, labels, n_labels)
    mass = regions.sum(dim=(2, 3, 4))[..., None].clamp_min(1)
    mean = torch.einsum("bnijk,bcijk->bnc", regions, difference) / mass
    square = torch.einsum("bnijk,bcijk->bnc", regions, difference.square()) / mass
    # The small number keeps the root's gradient finite where a part is constant or empty.
    spread = (square - mean.square()).clamp_min(0).add(1e-8).sqrt()
    spread = spread * (regions.sum(dim=(2, 3, 4)) > 0)[..., None]
    return torch.cat([mean, spread], dim=2)


def _regions(hole: Tensor, labels: Tensor, n_labels: int) -> Tensor:
    """Indicators (b, n_labels + 1, i, j, k) of the hole's unlabelled part and of each label's part of it."""
    return one_hot(labels, n_labels) * hole
