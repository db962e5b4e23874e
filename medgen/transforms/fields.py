"""Smooth vector fields on a voxel grid: B-spline control points, stationary velocities, warps and Jacobians.

Displacements and velocities are in voxels, with components in array order (i, j, k): the value at voxel x of a
displacement u says that x is drawn from position x + u(x) of the source (a pull-back warp).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from medgen.transforms.devices import sent

# Standard deviation of a field with unit Gaussian control points at a control point: the 1D weights there are
# (1, 4, 1) / 6, and three axes multiply.
SPREAD = math.sqrt(0.5) ** 3


def control_shape(
    shape: Sequence[int], spacing: float, voxel: Sequence[float] = (1.0, 1.0, 1.0)
) -> tuple[int, int, int]:
    """Number of control points along i, j, k for a distance of about ``spacing`` voxels, borders included.

    Args:
        shape: Voxels along i, j, k.
        spacing: Distance in voxels of the finest axis.
        voxel: Voxel size along i, j, k in any unit. Along a coarser axis the points are as far apart in space, which
            is fewer voxels, but never less than one.

    >>> control_shape((64, 64, 16), 8), control_shape((64, 64, 16), 8, (1, 1, 4))
    ((11, 11, 5), (11, 11, 11))
    """
    i, j, k = (
        max(math.ceil(n / max(spacing * min(voxel) / size, 1.0)), 1) + 3 for n, size in zip(shape, voxel, strict=True)
    )
    return i, j, k


def expand(control: Tensor, shape: Sequence[int]) -> Tensor:
    """Interpolate control points by uniform cubic B-splines.

    The control points cover the same field of view at every resolution: the field at half the resolution is the
    same field, in the same unit.

    Args:
        control: (b, c, p, q, r) from :func:`control_shape`.
        shape: (i, j, k) of the result.

    Returns:
        (b, c, i, j, k).
    """
    result = control
    for n in shape:
        # Each contraction takes the first remaining control axis away and appends the voxel axis: i, j, k in order.
        result = torch.tensordot(result, _weights(int(n), result.shape[2], result), dims=([2], [1]))
    return result


def smooth_noise(
    batch: int,
    channels: int,
    shape: Sequence[int],
    spacing: float,
    generator: torch.Generator,
    device: torch.device | None = None,
) -> Tensor:
    """A smooth Gaussian random field of about unit standard deviation.

    Args:
        batch: Number of fields.
        channels: Values per voxel.
        shape: (i, j, k).
        spacing: Distance of the control points in voxels; about a third of the field's correlation length.
        generator: Source of the draws, which are few: the control points.
        device: Where the field is made; by default on the generator's device.

    Returns:
        (batch, channels, i, j, k) float32.
    """
    points = control_shape(shape, spacing)
    control = torch.randn(batch, channels, *points, generator=generator, device=generator.device)
    return expand(sent(control, device or generator.device), shape) / SPREAD


def identity(shape: Sequence[int], device: torch.device | None = None) -> Tensor:
    """Voxel coordinates (1, 3, i, j, k) float32."""
    axes = [torch.arange(n, dtype=torch.float32, device=device) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]


def warp(
    image: Tensor,
    displacement: Tensor,
    mode: Literal["bilinear", "nearest"] = "bilinear",
    padding: Literal["zeros", "border"] = "zeros",
) -> Tensor:
    """Pull an image (b, c, i, j, k) back through a displacement (b, 3, i, j, k): result(x) = image(x + u(x)).

    Labels (integer tensors, ``mode="nearest"``) keep their type.
    """
    shape = image.shape[2:]
    half = torch.tensor([max((n - 1) / 2, 0.5) for n in shape], device=displacement.device)
    position = (identity(shape, displacement.device) + displacement) / half[None, :, None, None, None] - 1
    # torch wants coordinates in the order k, j, i.
    grid = position.flip(1).permute(0, 2, 3, 4, 1)
    source = image if image.is_floating_point() else image.float()
    result = F.grid_sample(source, grid.to(source.dtype), mode=mode, padding_mode=padding, align_corners=True)
    return result.to(image.dtype)


def warp_cubic(image: Tensor, displacement: Tensor) -> Tensor:
    """As :func:`warp` with ``bilinear`` and zeros outside, but by cubic B-splines, which keep texture sharp.

    Linear interpolation between voxels is a blur that a segmenter, or a metric, learns to see. Runs on the CPU
    (torch has no cubic interpolation of volumes) and overshoots at edges: clamp the result where that matters.

    Args:
        image: (b, c, i, j, k), floating point.
        displacement: (b, 3, i, j, k) in voxels.

    Returns:
        (b, c, i, j, k), on the image's device.
    """
    position = (identity(image.shape[2:]) + displacement.detach().cpu()).double().numpy()
    result = np.empty(image.shape, dtype=np.float32)
    for row, channels in enumerate(image.detach().cpu().float().numpy()):
        for channel, values in enumerate(channels):
            result[row, channel] = ndimage.map_coordinates(values, position[row], order=3, mode="constant")
    return torch.from_numpy(result).to(image.device, image.dtype)


def warp_shares(labels: Tensor, displacement: Tensor, values: Sequence[int]) -> Tensor:
    """Share of each label number at every voxel of labels (b, 1, i, j, k) pulled back: (b, len(values), i, j, k).

    Outside of the grid there is background, if 0 is among the values.
    """
    shares = torch.cat([warp((labels == value).float(), displacement, padding="zeros") for value in values], dim=1)
    background = torch.tensor([value == 0 for value in values], device=shares.device)
    if bool(background.any()):
        shares[:, background] += 1 - shares.sum(dim=1, keepdim=True)
    return shares


def warp_labels(labels: Tensor, displacement: Tensor) -> Tensor:
    """Labels (b, 1, i, j, k) through a displacement: each label's share is interpolated and the largest wins.

    Shares are interpolated by cubic B-splines, as :func:`warp_cubic` does with the image. Linear ones are a blur in
    which a sheet of one voxel loses to what is on both sides of it (the simulated cohort's CSF lost a fifth of its
    volume); the nearest neighbour keeps volumes but makes surfaces rougher than people draw them. Runs on the CPU.
    """
    # Outside of the grid there is background, also where the labels fill it.
    values = torch.unique(torch.cat([labels.flatten().cpu(), labels.new_zeros(1).cpu()]))
    shares = warp_shares(labels, displacement, values.tolist()).cpu()
    result = values[shares.argmax(dim=1, keepdim=True)]
    position = (identity(labels.shape[2:]) + displacement.detach().cpu()).double().numpy()
    for row, own in enumerate(labels.detach().cpu()):
        # Where all eight neighbours have one label there is nothing to decide.
        open_ = shares[row].max(dim=0).values < 1
        points = position[row][:, open_.numpy()]
        cubic = np.zeros((len(values), points.shape[1]))
        for number, value in enumerate(values.tolist()):
            if value and bool((own == value).any()):
                one = (own[0] == value).double().numpy()
                cubic[number] = ndimage.map_coordinates(one, points, order=3, mode="constant")
        cubic[values.numpy() == 0] = 1 - cubic.sum(axis=0)
        result[row, 0][open_] = values[torch.from_numpy(cubic.argmax(axis=0))]
    return result.to(labels.device, labels.dtype)


def exponentiate(velocity: Tensor, steps: int = 6) -> Tensor:
    """Displacement of the flow of a stationary velocity field at time one, by scaling and squaring.

    Arsigny et al., "A log-Euclidean framework for statistics on diffeomorphisms", MICCAI 2006.

    Args:
        velocity: (b, 3, i, j, k) in voxels.
        steps: Number of squarings; 2^-steps of the velocity must be well below one voxel.

    Returns:
        (b, 3, i, j, k) in voxels.
    """
    displacement = velocity / 2**steps
    for _ in range(steps):
        displacement = displacement + warp(displacement, displacement, padding="border")
    return displacement


def jacobian_minimum(displacement: Tensor) -> Tensor:
    """Smallest Jacobian determinant of x + u(x) per sample, (b,); positive means that nothing folds.

    The determinant is taken with each of the eight combinations of one-sided differences, so that a fold between
    two voxels, which central differences step over, is seen.
    """
    jacobians = [torch.diff(displacement, dim=axis + 2) for axis in range(3)]
    smallest = torch.full((len(displacement),), math.inf, device=displacement.device)
    units = torch.eye(3, device=displacement.device)
    for sides in itertools.product((0, 1), repeat=3):
        columns = []
        for axis, difference in enumerate(jacobians):
            cut = difference
            for other in range(3):
                length = displacement.shape[other + 2] - 1
                if other != axis:
                    cut = cut.narrow(other + 2, sides[other], length)
            columns.append(cut + units[axis].view(1, 3, 1, 1, 1))
        # The one-sided difference along each axis belongs to the cell; the side of the other axes picks its corner.
        first, second, third = columns
        # As a triple product: factorising millions of 3 × 3 matrices takes many times as long.
        determinant = (torch.linalg.cross(first, second, dim=1) * third).sum(1)
        smallest = torch.minimum(smallest, determinant.flatten(1).amin(1))
    return smallest


def _weights(n: int, m: int, like: Tensor) -> Tensor:
    """Weights (n, m) of m uniform cubic B-spline control points at the centres of n voxels; rows sum to one."""
    position = (torch.arange(n, device=like.device, dtype=torch.float32) + 0.5) / n * (m - 3) + 1
    distance = (position[:, None] - torch.arange(m, device=like.device, dtype=torch.float32)[None]).abs()
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = (2 - distance).clamp_min(0) ** 3 / 6
    return torch.where(distance < 1, near, far).to(like.dtype)
