"""Random augmentation of a whole batch on its device: one grid moves image and labels, then intensities change.

The default is the field's standard augmentation, after nnU-Net (Isensee et al., Nature Methods 2021): rotation,
scaling, elastic deformation, gamma, brightness, contrast, noise, blur and a bias field. Every sample draws its own
parameters; all draws come from one generator, so a batch is repeated exactly by its seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from medgen.transforms.augmentation_config import AugmentConfig
from medgen.transforms.devices import generator_on, sent
from medgen.transforms.fields import SPREAD, control_shape, expand, smooth_noise

__all__ = ["AugmentConfig", "augment", "blur"]


def augment(
    image: Tensor, labels: Tensor | None, config: AugmentConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    """Augment a batch.

    Args:
        image: (b, c, i, j, k), floating point. Voxels that come from outside the grid become 0.
        labels: (b, l, i, j, k) integers or None; sampled by nearest neighbour through the same grid as the image,
            0 outside.
        config: The ranges.
        generator: Source of every draw. On the CPU, also for images on a GPU: few numbers are drawn and sent, and
            the steps that depend on them are chosen, without waiting for the GPU. What is drawn for every voxel (noise)
            comes from a generator beside the image, which a draw of this one seeds.

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


def _parts(image: Tensor) -> list[slice]:
    """Samples that are worked on together: all on a GPU, one on a CPU, in whose cache one scan stays."""
    count = len(image)
    return [slice(row, row + 1) for row in range(count)] if image.device.type == "cpu" else [slice(0, count)]


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
    control = None
    if config.elastic > 0:
        points = control_shape(shape, config.elastic_spacing)
        control = torch.randn(batch, 3, *points, generator=generator, device=generator.device)
        control = control * (config.elastic / SPREAD) * moved[..., None, None, None]
    if not bool(chosen.any()) and not bool(mirrored.any()):
        return image, labels
    spacing = config.spacing or (1.0, 1.0, 1.0)
    side = [step / min(spacing) for step in spacing]
    # Half the scan along each axis, in sides of the finest axis: the unit in which angles stay angles.
    half = torch.tensor([max((n - 1) / 2, 0.5) * step for n, step in zip(shape, side, strict=True)])
    # Output place -> input place: rotate, then shrink (zoom in), then mirror.
    matrix = _rotation(angles) * torch.exp(-zoom)[:, :, None] * (1 - 2 * mirrored.float())[:, :, None]
    matrix = matrix * half[None, None, :] / half[None, :, None]
    matrix, shift = sent(matrix, device), sent(shift / half, device)
    if control is not None:
        # Scaled and put in order while it is small.
        control = sent((control / half[None, :, None, None, None]).flip(1), device)
    images, maps = [], []
    for part in _parts(image):
        places = _places(matrix[part], shift[part], shape)
        if control is not None:
            places += expand(control[part], shape)
        grid = places.permute(0, 2, 3, 4, 1)
        images.append(_sampled(image[part], grid.to(image.dtype), "bilinear"))
        if labels is not None:
            maps.append(_sampled(labels[part].float(), grid, "nearest").to(labels.dtype))
    return torch.cat(images), torch.cat(maps) if maps else labels


def _sampled(image: Tensor, grid: Tensor, mode: str) -> Tensor:
    return F.grid_sample(image, grid, mode=mode, padding_mode="zeros", align_corners=True)


def _places(matrix: Tensor, shift: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Where an affine takes every voxel, in torch's coordinates and order: (b, 3, i, j, k) with components k, j, i.

    Sums of one term for each axis: a product with every voxel's coordinates would take several times as long.
    """
    result = torch.empty((len(matrix), 3, *shape), device=matrix.device)
    axes = [torch.linspace(-1, 1, n, device=matrix.device) if n > 1 else matrix.new_zeros(1) for n in shape]
    i, j, k = (matrix[:, :, axis, None] * values for axis, values in enumerate(axes))
    plane = j[..., :, None] + (k + shift[:, :, None])[..., None, :]
    return torch.add(i[..., :, None, None].flip(1), plane[:, :, None].flip(1), out=result)


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
        return sent(torch.exp(_log_uniform(uniform() * 2 - 1, bounds)), device)

    # Of every change, whom it is for and what it does to some of these. First all is drawn, then all is done.
    steps: list[tuple[Tensor, Callable[[Tensor, Tensor], Tensor]]] = []
    if config.bias > 0:
        chosen = pick()
        # Bias fields are smoother than deformations: control points half an image apart.
        field = smooth_noise(batch, 1, shape, max(config.elastic_spacing, max(shape) / 2), generator, device)
        steps.append((chosen, lambda part, rows: _times(part, (config.bias * _at(field, rows)).exp_())))
    if config.noise > 0:
        noisy, level = pick(), uniform() * config.noise
        if count := int(noisy.sum()):
            noise = torch.randn(count, channels, *shape, generator=generator_on(generator, device), device=device)
            place, level = noisy.cumsum(0) - 1, sent(level, device)
            steps.append((noisy, lambda part, rows: _noisy(part, _at(noise, place[rows]) * _at(level, rows))))
    if config.blur[1] > 0:
        chosen = pick()
        sigma = config.blur[0] + uniform()[:, 0].reshape(batch) * (config.blur[1] - config.blur[0])
        steps.append((chosen, lambda part, rows: blur(part, _at(sigma, rows))))
    if config.brightness != (1, 1):
        chosen, brightness = pick(), factor(config.brightness)
        steps.append((chosen, lambda part, rows: _times(part, _at(brightness, rows))))
    if config.contrast != (1, 1):
        chosen, contrast = pick(), factor(config.contrast)
        steps.append((chosen, lambda part, rows: _contrast(part, _at(contrast, rows))))
    if config.gamma != (1, 1):
        chosen, exponent = pick(), factor(config.gamma)
        steps.append((chosen, lambda part, rows: _gamma(part, _at(exponent, rows))))
    return torch.cat([_done(image, part, steps) for part in _parts(image)])


def _done(image: Tensor, part: slice, steps: Sequence[tuple[Tensor, Callable[[Tensor, Tensor], Tensor]]]) -> Tensor:
    """Some samples of a batch with every change that is for them; in place, unless a gradient is to pass through."""
    result = image[part].clone()
    for chosen, work in steps:
        own = chosen[part].nonzero()[:, 0]
        rows = own + part.start
        if len(own) == len(result):
            result = work(result, rows)
        elif len(own):
            target = sent(own, image.device)
            changed = work(result[target], rows)
            if result.requires_grad:
                result = result.index_copy(0, target, changed)
            else:
                result[target] = changed
    return result


def _at(values: Tensor, rows: Tensor) -> Tensor:
    """Some rows, told by numbers on the CPU."""
    return values[sent(rows, values.device)]


def _times(part: Tensor, factor: Tensor) -> Tensor:
    return part * factor if part.requires_grad else part.mul_(factor)


def _noisy(part: Tensor, noise: Tensor) -> Tensor:
    spread = part.std(dim=(2, 3, 4), keepdim=True)
    return part + noise * spread if part.requires_grad else part.add_(noise.mul_(spread))


def _contrast(part: Tensor, scale: Tensor) -> Tensor:
    mean = part.mean(dim=(2, 3, 4), keepdim=True)
    low, high = _range(part)
    if part.requires_grad:
        return ((part - mean) * scale + mean).clamp(low, high)
    return part.sub_(mean).mul_(scale).add_(mean).clamp_(low, high)


def _gamma(part: Tensor, exponent: Tensor) -> Tensor:
    low, high = _range(part)
    span = (high - low).clamp_min(1e-6)
    if part.requires_grad:
        scaled = ((part - low) / span).clamp(0, 1)
        # The power of 0 has no finite gradient, which even a gradient of 0 does not survive.
        some = scaled > 0
        return torch.where(some, torch.where(some, scaled, 1).pow(exponent), 0) * span + low
    return part.sub_(low).div_(span).clamp_(0, 1).pow_(exponent).mul_(span).add_(low)


def blur(image: Tensor, sigma: Tensor) -> Tensor:
    """Blur each sample with its own isotropic Gaussian; edges repeat.

    Args:
        image: (b, c, i, j, k).
        sigma: (b,) standard deviations in voxels, greater than 0; on the CPU, since the largest one sets the size of
            the kernel.

    Returns:
        (b, c, i, j, k).
    """
    radius = max(math.ceil(3 * float(sigma.max())), 1)
    offsets = torch.arange(-radius, radius + 1, device=sigma.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets[None] / sigma.float().clamp_min(1e-3)[:, None]) ** 2)
    kernel = kernel / kernel.sum(1, keepdim=True)
    result = image
    # Along each axis one product with a band matrix, which matrix units do several times as fast as a convolution of
    # one channel.
    for axis, n in enumerate(image.shape[2:]):
        matrix = sent(_band(kernel, n), image.device).to(image.dtype)
        if axis == 0:
            result = (matrix[:, None] @ result.flatten(3)).reshape(image.shape)
        elif axis == 1:
            result = matrix[:, None, None] @ result
        else:
            result = result @ matrix.transpose(1, 2)[:, None, None]
    return result


def _band(kernel: Tensor, n: int) -> Tensor:
    """Kernels (b, 2 r + 1) as matrices (b, n, n) whose rows weigh n voxels, the edges repeated."""
    size = kernel.shape[1]
    place = (torch.arange(n)[:, None] + torch.arange(size)[None] - size // 2).clamp(0, n - 1).to(kernel.device)
    matrix = kernel.new_zeros(len(kernel), n, n)
    return matrix.scatter_add_(2, place.expand(len(kernel), n, size), kernel[:, None].expand(len(kernel), n, size))


def _log_uniform(unit: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Map [-1, 1] to the logarithms of ``bounds``."""
    low, high = math.log(bounds[0]), math.log(bounds[1])
    return low + (unit + 1) / 2 * (high - low)


def _range(image: Tensor) -> tuple[Tensor, Tensor]:
    return image.amin(dim=(2, 3, 4), keepdim=True), image.amax(dim=(2, 3, 4), keepdim=True)
