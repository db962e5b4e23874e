"""Scans painted on label maps with random contrasts: anatomy without anybody's intensities.

After Billot et al., "SynthSeg", Medical Image Analysis 2023: labels are deformed, every label gets a Gaussian of random
mean and spread, and bias field, gamma, blur and noise follow. What has no label is divided into random shapes, as in
Hoffmann et al., "SynthMorph", IEEE TMI 2022.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from medgen.transforms.augmentation import blur
from medgen.transforms.fields import exponentiate, smooth_noise, warp
from medgen.transforms.painting_config import PaintingConfig

# Distance of the control points of random shapes, as a share of the longest axis, and of the bias field.
_SHAPES, _BIAS = 0.25, 0.5
# Share of the anatomy that is brighter than the intensity 1.
_BRIGHTEST = 0.01


def paint(
    labels: Tensor, foreground: Tensor, config: PaintingConfig, generator: Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """One scan for each label map; equal generators give equal scans.

    >>> labels = torch.zeros(1, 1, 8, 8, 8, dtype=torch.uint8)
    >>> labels[:, :, 2:6, 2:6, 2:6] = 1
    >>> image, moved, seen = paint(labels, labels > 0, PaintingConfig(), torch.Generator().manual_seed(0))
    >>> image.shape, moved.dtype, bool((image[~seen] == 0).all())
    (torch.Size([1, 1, 8, 8, 8]), torch.uint8, True)

    Args:
        labels: (b, 1, i, j, k) uint8, with 0 as background.
        foreground: Where there is anatomy, labelled or not, (b, 1, i, j, k) bool.
        config: Ranges of what is drawn.
        generator: On the CPU.

    Returns:
        Images (b, 1, i, j, k) float32, 0 outside of the anatomy, within it mostly in [0, 1]; the moved labels and
        foregrounds.
    """
    count, _, *shape = labels.shape

    def upto(most: float) -> Tensor:
        return most * torch.rand(count, 1, 1, 1, 1, generator=generator)

    velocity = smooth_noise(count, 3, shape, config.deformation_spacing, generator) * upto(config.deformation)
    displacement = exponentiate(velocity, 4)
    labels, seen = (warp(own, displacement, "nearest") for own in (labels, foreground.to(torch.uint8)))
    anatomy = (seen > 0) | (labels > 0)
    longest = max(shape)
    random = smooth_noise(count, config.shapes, shape, max(_SHAPES * longest, 4), generator).argmax(1, keepdim=True)
    most = int(labels.max()) if labels.numel() else 0
    classes = torch.where(labels > 0, labels.long() - 1, most + random)
    means = torch.rand(count, most + config.shapes, generator=generator)
    spreads = config.spread * torch.rand(count, most + config.shapes, generator=generator)
    rows = torch.arange(count)[:, None, None, None]
    noise = torch.randn(count, 1, *shape, generator=generator)
    image = means[rows, classes[:, 0]][:, None] + spreads[rows, classes[:, 0]][:, None] * noise
    image = image * torch.exp(upto(config.bias) * smooth_noise(count, 1, shape, max(_BIAS * longest, 4), generator))
    image = (image * anatomy).clamp_min(0)
    image = blur(image, config.blur[0] + (config.blur[1] - config.blur[0]) * torch.rand(count, generator=generator))
    image = image / _brightest(image, anatomy)
    exponent = torch.exp(config.gamma * torch.randn(count, 1, 1, 1, 1, generator=generator))
    image = image**exponent
    image = image + upto(config.noise) * torch.randn(image.shape, generator=generator)
    return image.clamp_min(0) * anatomy, labels, anatomy


def _brightest(image: Tensor, anatomy: Tensor) -> Tensor:
    """The intensity that 1 % of a scan's anatomy is above, (b, 1, 1, 1, 1)."""
    values = [
        torch.quantile(own[where], 1 - _BRIGHTEST) if where.any() else own.new_ones(())
        for own, where in zip(image, anatomy, strict=True)
    ]
    return torch.stack(values).clamp_min(1e-3)[:, None, None, None, None]
