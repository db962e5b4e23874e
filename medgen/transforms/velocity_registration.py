"""Pairwise registration by stationary velocity fields, a batch of pairs at a time on the device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from medgen.config import Config
from medgen.progress import Progress
from medgen.transforms.fields import control_shape, expand, exponentiate, warp


class RegistrationConfig(Config):
    """How two scans are aligned.

    Attributes:
        spacing: Distance of the velocity's control points in voxels of the full grid, along its finest axis.
        iterations: Optimiser steps.
        lr: Adam's learning rate on the control points, in voxels.
        smoothness: Weight of the velocity's bending energy.
        window: Edge of the cube of local normalised cross-correlation, in voxels at half resolution; odd.
        squarings: Scaling-and-squaring steps while registering.
    """

    spacing: Annotated[float, Field(ge=2)] = 8.0
    iterations: Annotated[int, Field(ge=1)] = 60
    lr: Annotated[float, Field(gt=0)] = 0.4
    smoothness: Annotated[float, Field(ge=0)] = 0.02
    window: Annotated[int, Field(ge=3)] = 7
    squarings: Annotated[int, Field(ge=2, le=8)] = 4


def register(
    moving: Tensor,
    fixed: Tensor,
    config: RegistrationConfig,
    *,
    voxel: Sequence[float] = (1.0, 1.0, 1.0),
    batch: int | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Control points of the velocities that align each moving scan with its fixed scan.

    Minimises 1 − LNCC(moving ∘ exp(v), fixed) + smoothness · bending(v) at half resolution, where LNCC is the local
    normalised cross-correlation (Avants et al., Medical Image Analysis 2008), squared, which does not depend on a
    local gain and offset of the intensities.

    Args:
        moving: (n, c, i, j, k).
        fixed: (n, c, i, j, k), on the same grid.
        config: Parameters.
        voxel: Voxel size along i, j, k in any unit: control points are equally far apart in space.
        batch: Pairs optimised together; default 8 on a CPU, whose caches hold no more, and 64 on a GPU.
        progress: Called with (pairs done, pairs).

    Returns:
        (n, 3, p, q, r) control points in voxels of the full grid, for :func:`medgen.transforms.fields.expand`.
    """
    results = []
    batch = batch or (8 if moving.device.type == "cpu" else 64)
    for start in range(0, len(moving), batch):
        part = slice(start, start + batch)
        results.append(_register(_halve(moving[part]), _halve(fixed[part]), moving.shape[2:], config, voxel))
        if progress is not None:
            progress(min(start + batch, len(moving)), len(moving))
    return torch.cat(results)


def _register(
    moving: Tensor, fixed: Tensor, full: torch.Size, config: RegistrationConfig, voxel: Sequence[float]
) -> Tensor:
    shape = fixed.shape[2:]
    # Voxels at half resolution per voxel of the full grid.
    ratio = torch.tensor([n / m for n, m in zip(shape, full, strict=True)], device=fixed.device)[:, None, None, None]
    points = control_shape(full, config.spacing, voxel)
    control = torch.zeros(len(fixed), 3, *points, device=fixed.device, requires_grad=True)
    optimiser = torch.optim.Adam([control], lr=config.lr)
    for step in range(config.iterations):
        for group in optimiser.param_groups:
            group["lr"] = config.lr * 0.5 * (1 + math.cos(math.pi * step / config.iterations))
        velocity = expand(control, shape) * ratio
        moved = warp(moving, exponentiate(velocity, config.squarings), padding="border")
        # A sum over pairs: each pair's step must not depend on how many others share the batch.
        loss = (1 - local_correlation(moved, fixed, config.window)).sum() + config.smoothness * bending(control).sum()
        (control.grad,) = torch.autograd.grad(loss, [control])
        optimiser.step()
    return control.detach()


def local_correlation(first: Tensor, second: Tensor, window: int) -> Tensor:
    """Mean squared local correlation of two batches (b, c, i, j, k) in cubes of edge ``window``: (b,), in [0, 1]."""

    def mean(value: Tensor) -> Tensor:
        # One axis after the other: 3 · window instead of window³ additions per voxel.
        for axis in range(3):
            # A scan of few slices holds only a smaller window: the largest odd one.
            edge = min(window, (value.shape[2 + axis] - 1) // 2 * 2 + 1)
            size, pad = [1, 1, 1], [0, 0, 0]
            size[axis], pad[axis] = edge, edge // 2
            value = functional.avg_pool3d(value, size, stride=1, padding=pad, count_include_pad=False)
        return value

    mean_first, mean_second = mean(first), mean(second)
    covariance = mean(first * second) - mean_first * mean_second
    variance_first = (mean(first**2) - mean_first**2).clamp_min(0)
    variance_second = (mean(second**2) - mean_second**2).clamp_min(0)
    # The floor makes flat regions count as uncorrelated instead of amplifying their noise.
    return (covariance**2 / (variance_first * variance_second + 1e-5)).flatten(1).mean(1)


def bending(control: Tensor) -> Tensor:
    """Mean squared second difference of control points (b, 3, p, q, r): (b,)."""
    total = torch.zeros(len(control), device=control.device)
    for axis in range(2, 5):
        first = torch.diff(control, dim=axis)
        for other in range(axis, 5):
            second = torch.diff(first, dim=other)
            weight = 1.0 if other == axis else 2.0
            if second.numel():
                total = total + weight * second.square().flatten(1).mean(1)
    return total


def _halve(image: Tensor) -> Tensor:
    """Half the resolution by averaging; an axis of odd length keeps its whole extent."""
    i, j, k = (max(math.ceil(n / 2), 1) for n in image.shape[2:])
    return functional.adaptive_avg_pool3d(image, (i, j, k))
