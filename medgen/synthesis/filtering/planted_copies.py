"""Planted copies: training scans, changed a little, that an audit must recognise; the positive control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from medgen.seeds import derive, numpy_rng, torch_rng
from medgen.synthesis.filtering.copies import Gallery
from medgen.transforms.fields import smooth_noise, warp

KINDS: Mapping[str, str] = {
    "exact": "the scan itself",
    "flipped": "mirrored along one axis",
    "noise": "white noise with a standard deviation of 5 % of the intensity range",
    "shift": "moved by 2 voxels along each of one to three axes",
    "intensity": "gain, offset and gamma changed",
    "warped": "moved by a smooth field of half a voxel (standard deviation of each component)",
}
# Distance of the warp's control points in voxels.
_SPACING = 12.0


def plant(image: Tensor, kind: str, seed: int) -> Tensor:
    """A changed copy of one scan.

    Args:
        image: (c, i, j, k).
        kind: A key of :data:`KINDS`.
        seed: Seed of the random change.

    Returns:
        (c, i, j, k) float32.

    Raises:
        KeyError: If the kind is unknown.
    """
    image = image.float()
    rng = numpy_rng(seed, "planted", kind)
    if kind == "exact":
        return image.clone()
    if kind == "flipped":
        return image.flip(1 + int(rng.integers(3)))
    if kind == "noise":
        noise = torch.randn(image.shape, generator=torch_rng(seed, "planted", kind))
        return image + 0.05 * (image.max() - image.min()) * noise
    if kind == "shift":
        steps = rng.integers(-1, 2, size=3)
        steps[int(rng.integers(3))] = rng.choice([-1, 1])
        field = 2.0 * torch.from_numpy(steps).float().reshape(1, 3, 1, 1, 1)
        return warp(image[None], field.expand(1, 3, *image.shape[1:]), padding="border")[0]
    if kind == "intensity":
        low, high = image.min(), (image.max() - image.min()).clamp_min(1e-6)
        gain, gamma, offset = rng.uniform(0.7, 1.3), rng.uniform(0.8, 1.25), rng.uniform(-0.1, 0.1)
        return float(gain) * ((image - low) / high) ** float(gamma) * high + low + float(offset)
    if kind == "warped":
        field = 0.5 * smooth_noise(1, 3, image.shape[1:], _SPACING, torch_rng(seed, "planted", kind))
        return warp(image[None], field, padding="border")[0]
    raise KeyError(kind)


def chosen(count: int, most: int, seed: int) -> list[int]:
    """At most ``most`` of ``count`` rows, drawn without replacement."""
    return [int(row) for row in numpy_rng(seed, "planted", "chosen").permutation(count)[:most]]


def likenesses(gallery: Gallery, images: Tensor, rows: Sequence[int], seed: int) -> list[float]:
    """Likeness of a planted copy of every kind of each chosen scan with the scan it was made from.

    Args:
        gallery: What copies are looked for in, made from ``images``.
        images: (n, c, i, j, k).
        rows: Scans to copy.
        seed: Seed of the random changes.
    """
    values = []
    for row in rows:
        for kind in KINDS:
            copied = plant(images[row], kind, derive(seed, gallery.ids[row]))
            values.append(float(gallery.correlations(copied)[row]))
    return values
