"""Registrations of labelled scans onto other training scans, computed once and shared between arms."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from medgen.seeds import numpy_rng
from medgen.segmentation.ordinary.setting import Setting
from medgen.training.trainer import device_of
from medgen.transforms.fields import expand, exponentiate
from medgen.transforms.velocity_registration import RegistrationConfig, register

Pair = tuple[int, int]


def all_images(setting: Setting) -> Tensor:
    """Labelled scans, then unlabelled ones, (n, c, i, j, k); rows of pairs count in this order."""
    images = setting.real.images
    return images if setting.unlabelled is None else torch.cat([images, setting.unlabelled.images])


def atlas_pairs(setting: Setting, atlases: int) -> list[Pair]:
    """For every unlabelled scan the ``atlases`` labelled scans most like it, as (labelled row, unlabelled row).

    Selected by correlation on the common grid: few similar atlases label better than all (Aljabar et al., "Multi-atlas
    based segmentation of brain images: atlas selection and its effect on accuracy", NeuroImage 2009).
    """
    if setting.unlabelled is None:
        return []
    likeness = _unit(setting.unlabelled.images) @ _unit(setting.real.images).T
    count = len(setting.real)
    order = likeness.argsort(dim=1, descending=True, stable=True)[:, :atlases].tolist()
    return [(atlas, count + row) for row, nearest in enumerate(order) for atlas in nearest]


def labelled_pairs(setting: Setting) -> list[Pair]:
    """Every (moving, fixed) pair of labelled scans of different subjects."""
    subjects = setting.real.subjects
    rows = range(len(subjects))
    return [(a, b) for a in rows for b in rows if subjects[a] != subjects[b]]


def thinned(pairs: Sequence[Pair], limit: int, seed: int, *keys: str) -> list[Pair]:
    """At most ``limit`` of the pairs, drawn without replacement, in a random order."""
    order = numpy_rng(seed, "ordinary", "pairs", *keys).permutation(len(pairs))[:limit]
    return [pairs[int(index)] for index in order]


def velocities(setting: Setting, pairs: Sequence[Pair], config: RegistrationConfig | None = None) -> Tensor:
    """Control points (pairs, 3, p, q, r) of the velocities of each (moving, fixed) pair, on the CPU.

    Those in ``setting.memo`` are not computed again; see :func:`medgen.transforms.velocity_registration.register` for
    the method.
    """
    config = config or RegistrationConfig()
    names = (*setting.real.ids, *(() if setting.unlabelled is None else setting.unlabelled.ids))
    known: dict[tuple[str, str], Tensor] = setting.memo.setdefault(f"registrations {config.model_dump_json()}", {})
    keys = [(names[a], names[b]) for a, b in pairs]
    missing = [row for row, key in enumerate(keys) if key not in known]
    if missing:
        images, device = all_images(setting), device_of(setting.device)
        moving, fixed = ([pairs[row][side] for row in missing] for side in (0, 1))
        new = register(images[moving].to(device), images[fixed].to(device), config, voxel=setting.voxel).cpu()
        known.update({keys[row]: control.clone() for row, control in zip(missing, new, strict=True)})
    return torch.stack([known[key] for key in keys])


def displacements(control: Tensor, shape: Sequence[int], squarings: int = 5) -> Tensor:
    """Displacements (b, 3, i, j, k) in voxels of velocities (b, 3, p, q, r).

    The flow is computed at half resolution, where it was fitted, and interpolated: an eighth of the work.
    """
    half = [max(-(-n // 2), 1) for n in shape]
    ratio = torch.tensor([n / m for n, m in zip(half, shape, strict=True)], device=control.device)[:, None, None, None]
    coarse = exponentiate(expand(control, half) * ratio, squarings) / ratio
    return functional.interpolate(coarse, size=tuple(shape), mode="trilinear", align_corners=False)


def _unit(images: Tensor) -> Tensor:
    flat = images.flatten(1)
    flat = flat - flat.mean(1, keepdim=True)
    return flat / flat.norm(dim=1, keepdim=True).clamp_min(1e-6)
