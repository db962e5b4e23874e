"""Random augmentation of a whole batch on its device: one grid moves image and labels, then intensities change.

The default is the field's standard augmentation, after nnU-Net (Isensee et al., Nature Methods 2021): rotation,
scaling, elastic deformation, gamma, brightness, contrast, noise, blur and a bias field. Every sample draws its own
parameters; all draws come from one generator, so a batch is repeated exactly by its seed.
"""

from __future__ import annotations

import math
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from medgen.config import Config
from medgen.fields import smooth_noise

Probability = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


class AugmentConfig(Config):
    """Ranges of the random transforms; an amplitude of 0, or a range (1, 1), switches a transform off.

    Attributes:
        spatial: Probability that a sample is moved at all (flips are drawn apart).
        flip: Probability of mirroring along i, j, k. Zero by default: left and right are not the same organ.
        rotate_degrees: Rotation about each axis, uniform in ± this many degrees.
        scale: Zoom of the anatomy, log-uniform in this range; drawn once for all axes.
        stretch: Extra zoom per axis, log-uniform in [1 / (1 + stretch), 1 + stretch].
        translate: Shift along each axis, uniform in ± this many voxels.
        elastic: Standard deviation of the elastic displacement at its control points, in voxels.
        spacing: Voxel size along i, j, k in any unit. Where slices are thick, a rotation in voxels would shear the
            anatomy; with this, angles, shifts and bends are those of space, in sides of the finest axis.
        elastic_spacing: Distance of the control points of the displacement and of the bias field, in voxels.
        intensity: Probability of each of the intensity transforms below, drawn apart for each.
        gamma: Exponent range, applied to the sample's intensities scaled to [0, 1]; log-uniform.
        brightness: Factor range, log-uniform.
        contrast: Range of the factor on the deviation from the mean, log-uniform.
        noise: Largest standard deviation of Gaussian noise, in units of the sample's own standard deviation.
        blur: Range of the Gaussian's standard deviation in voxels, uniform; (0, 0) is off.
        bias: Standard deviation of the log bias field at its control points.
    """

    spatial: Probability = 0.9
    flip: tuple[Probability, Probability, Probability] = (0.0, 0.0, 0.0)
    rotate_degrees: NonNegative = 15.0
    scale: tuple[Positive, Positive] = (0.85, 1.2)
    stretch: NonNegative = 0.1
    translate: NonNegative = 2.0
    elastic: NonNegative = 1.5
    spacing: tuple[Positive, Positive, Positive] = (1.0, 1.0, 1.0)
    elastic_spacing: Annotated[float, Field(ge=2)] = 12.0
    intensity: Probability = 0.3
    gamma: tuple[Positive, Positive] = (0.7, 1.5)
    brightness: tuple[Positive, Positive] = (0.75, 1.3)
    contrast: tuple[Positive, Positive] = (0.65, 1.5)
    noise: NonNegative = 0.2
    blur: tuple[NonNegative, NonNegative] = (0.4, 1.0)
    bias: NonNegative = 0.2

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name in ("scale", "gamma", "brightness", "contrast", "blur"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: expected (low, high) with low <= high, found ({low}, {high})")
        return self


def augment(
    image: Tensor, labels: Tensor | None, config: AugmentConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    """Augment a batch.

    Args:
        image: (b, c, i, j, k), floating point. Voxels that come from outside the grid become 0.
        labels: (b, l, i, j, k) integers or None; sampled by nearest neighbour through the same grid as the image,
            0 outside.
        config: The ranges.
        generator: Source of every draw. It may live on another device than the image: draws are moved, so that a
            CPU generator gives the same batch on every device.

    Returns:
        New tensors with the shapes, types and device of the inputs; the inputs are not changed.

    Raises:
        ValueError: If the shapes are not 5D or do not agree.
    """
    if image.ndim != 5:
        raise ValueError(f"expected an image of shape (b, c, i, j, k), found {tuple(image.shape)}")
    if labels is not None and (
        labels.ndim != 5 or labels.shape[0] != image.shape[0] or labels.shape[2:] != image.shape[2:]
    ):
        raise ValueError(f"labels of shape {tuple(labels.shape)} do not fit an image of shape {tuple(image.shape)}")
    image, labels = _spatial(image, labels, config, generator)
    return _intensity(image, config, generator), labels


def _spatial(
    image: Tensor, labels: Tensor | None, config: AugmentConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    batch, shape = image.shape[0], tuple(image.shape[2:])
    device = image.device

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator, device=generator.device) * 2 - 1

    chosen = (uniform(batch) + 1) / 2 < config.spatial
    moved = chosen.float()[:, None]
    angles = uniform(batch, 3) * math.radians(config.rotate_degrees) * moved
    zoom = (_log_uniform(uniform(batch, 1), config.scale) + uniform(batch, 3) * math.log1p(config.stretch)) * moved
    shift = uniform(batch, 3) * config.translate * moved
    mirrored = (uniform(batch, 3) + 1) / 2 < torch.tensor(config.flip, device=generator.device)
    bend = None
    if config.elastic > 0:
        bend = smooth_noise(batch, 3, shape, config.elastic_spacing, generator) * config.elastic
        bend = (bend * moved[..., None, None, None]).to(device)
    if not bool(chosen.any()) and not bool(mirrored.any()):
        return image, labels
    side = [step / min(config.spacing) for step in config.spacing]
    # Half the scan along each axis, in sides of the finest axis: the unit in which angles stay angles.
    half = torch.tensor([max((n - 1) / 2, 0.5) * step for n, step in zip(shape, side, strict=True)], device=device)
    # Output place -> input place: rotate, then shrink (zoom in), then mirror.
    matrix = _rotation(angles) * torch.exp(-zoom)[:, :, None] * (1 - 2 * mirrored.float())[:, :, None]
    matrix = matrix.to(device) * half[None, None, :] / half[None, :, None]
    # torch wants coordinates in the order k, j, i.
    theta = torch.cat([matrix.flip(1, 2), (shift.to(device) / half).flip(1)[:, :, None]], dim=2)
    grid = F.affine_grid(theta, [batch, 1, *shape], align_corners=True)
    if bend is not None:
        grid = grid + (bend / half[None, :, None, None, None]).flip(1).permute(0, 2, 3, 4, 1)
    image = F.grid_sample(image, grid.to(image.dtype), mode="bilinear", padding_mode="zeros", align_corners=True)
    if labels is not None:
        nearest = F.grid_sample(labels.float(), grid, mode="nearest", padding_mode="zeros", align_corners=True)
        labels = nearest.to(labels.dtype)
    return image, labels


def _rotation(angles: Tensor) -> Tensor:
    """Rotation matrices (b, 3, 3) about i, then j, then k by angles (b, 3) in radians."""
    cosine, sine = angles.cos(), angles.sin()
    result = torch.eye(3, device=angles.device).expand(len(angles), 3, 3)
    for axis in range(3):
        first, second = (axis + 1) % 3, (axis + 2) % 3
        turn = torch.eye(3, device=angles.device).repeat(len(angles), 1, 1)
        turn[:, first, first] = turn[:, second, second] = cosine[:, axis]
        turn[:, first, second], turn[:, second, first] = -sine[:, axis], sine[:, axis]
        result = turn @ result
    return result


def _intensity(image: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    batch, channels, *shape = image.shape
    device = image.device

    def uniform() -> Tensor:
        return torch.rand(batch, channels, 1, 1, 1, generator=generator, device=generator.device)

    def pick() -> Tensor:
        # All channels of a sample together: a transform that hits one modality only is not what scanners do.
        return torch.rand(batch, generator=generator, device=generator.device) < config.intensity

    def factor(bounds: tuple[float, float]) -> Tensor:
        return torch.exp(_log_uniform(uniform() * 2 - 1, bounds)).to(device)

    result = image.clone()
    if config.bias > 0:
        index = pick().nonzero()[:, 0]
        # Bias fields are smoother than deformations: control points half an image apart.
        field = smooth_noise(batch, 1, shape, max(config.elastic_spacing, max(shape) / 2), generator)
        if len(index):
            target = index.to(device)
            result[target] = result[target] * torch.exp(config.bias * field[index].to(device))
    if config.noise > 0:
        index, level = pick().nonzero()[:, 0], uniform() * config.noise
        if len(index):
            target = index.to(device)
            noise = torch.randn(len(index), channels, *shape, generator=generator, device=generator.device)
            spread = result[target].std(dim=(2, 3, 4), keepdim=True)
            result[target] = result[target] + (level[index] * noise).to(device) * spread
    if config.blur[1] > 0:
        index = pick().nonzero()[:, 0]
        sigma = config.blur[0] + uniform()[:, 0].reshape(batch) * (config.blur[1] - config.blur[0])
        if len(index):
            target = index.to(device)
            result[target] = blur(result[target], sigma[index].to(device))
    if config.brightness != (1, 1):
        chosen, scale = pick().to(device)[:, None, None, None, None], factor(config.brightness)
        result = torch.where(chosen, result * scale, result)
    if config.contrast != (1, 1):
        chosen, scale = pick().to(device)[:, None, None, None, None], factor(config.contrast)
        mean = result.mean(dim=(2, 3, 4), keepdim=True)
        bounded = ((result - mean) * scale + mean).clamp(*_range(result))
        result = torch.where(chosen, bounded, result)
    if config.gamma != (1, 1):
        chosen, exponent = pick().to(device)[:, None, None, None, None], factor(config.gamma)
        low, high = _range(result)
        span = (high - low).clamp_min(1e-6)
        curved = ((result - low) / span).clamp(0, 1) ** exponent * span + low
        result = torch.where(chosen, curved, result)
    return result


def blur(image: Tensor, sigma: Tensor) -> Tensor:
    """Blur each sample with its own isotropic Gaussian; edges repeat.

    Args:
        image: (b, c, i, j, k).
        sigma: (b,) standard deviations in voxels, greater than 0.

    Returns:
        (b, c, i, j, k).
    """
    batch, channels, *shape = image.shape
    radius = max(math.ceil(3 * float(sigma.max())), 1)
    offsets = torch.arange(-radius, radius + 1, device=image.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets[None] / sigma.float().clamp_min(1e-3)[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).to(image.dtype).repeat_interleave(channels, 0)
    result = image.reshape(1, batch * channels, *shape)
    for axis in range(3):
        size, pad = [1, 1, 1], [0] * 6
        size[axis] = len(offsets)
        pad[4 - 2 * axis] = pad[5 - 2 * axis] = radius
        padded = F.pad(result, pad, mode="replicate")
        result = F.conv3d(padded, kernel.reshape(batch * channels, 1, *size), groups=batch * channels)
    return result.reshape(image.shape)


def _log_uniform(unit: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Map [-1, 1] to the logarithms of ``bounds``."""
    low, high = math.log(bounds[0]), math.log(bounds[1])
    return low + (unit + 1) / 2 * (high - low)


def _range(image: Tensor) -> tuple[Tensor, Tensor]:
    return image.amin(dim=(2, 3, 4), keepdim=True), image.amax(dim=(2, 3, 4), keepdim=True)
