"""Labelled scans warped onto other training scans by registration, labels carried along."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medgen.errors import DataError
from medgen.segmentation.ordinary.registrations import atlas_pairs, displacements, labelled_pairs, thinned, velocities
from medgen.segmentation.ordinary.setting import Setting
from medgen.segmentation.recipe import Extra, LabelledBatch, Recipe
from medgen.training.trainer import device_of
from medgen.transforms.fields import warp_cubic, warp_labels

SOURCE = (
    "Standard augmentation; half of the scans are labelled ones warped by registration onto other labelled scans and, "
    "where there are any, onto unlabelled ones (spatial transforms of Zhao et al., CVPR 2019)."
)
NEEDS_UNLABELLED = False

# Registrations in all, and how many labelled scans go onto one unlabelled scan (shared with multi-atlas labels).
_LIMIT, _ATLASES = 400, 10


@dataclass(frozen=True, eq=False)
class Warps:
    """Labelled scans carried by one of their registrations each time.

    Zhao et al., "Data augmentation using learned transformations for one-shot medical image segmentation", CVPR 2019:
    the transform is a whole registration; the intensities stay the scan's own.

    Attributes:
        images: Labelled scans, (n, c, i, j, k) float32.
        labels: (n, 1, i, j, k) label numbers.
        moving: Row of the scan that each velocity moves.
        control: Velocities as control points, (m, 3, p, q, r), see :mod:`medgen.segmentation.ordinary.registrations`.
        device: Where warping happens.
    """

    images: Tensor
    labels: Tensor
    moving: tuple[int, ...]
    control: Tensor
    device: torch.device

    def draw(self, count: int, generator: torch.Generator) -> LabelledBatch:
        """Warped scans, each by a registration drawn with replacement; intensities stay in the scans' range."""
        picks = torch.randint(len(self.moving), (count,), generator=generator)
        rows = torch.tensor(self.moving)[picks]
        field = displacements(self.control[picks].to(self.device), self.images.shape[2:])
        image, labels = self.images[rows].to(self.device), self.labels[rows].to(self.device)
        moved = warp_cubic(image, field).clamp(float(self.images.min()), float(self.images.max()))
        return LabelledBatch(moved, warp_labels(labels, field))


def recipe(setting: Setting) -> Recipe:
    """Standard augmentation of labelled scans and of their warps.

    Raises:
        DataError: If all scans are of one subject.
    """
    own = thinned(labelled_pairs(setting), _LIMIT // 2, setting.seed, "labelled")
    cross = thinned(atlas_pairs(setting, _ATLASES), _LIMIT - len(own), setting.seed, "unlabelled")
    pairs = own + cross
    if not pairs or setting.real.labels is None:
        raise DataError("warping needs scans of at least two subjects, found one; add subjects, or leave it out")
    moving = tuple(moving for moving, _ in pairs)
    device = device_of(setting.device)
    source = Warps(setting.real.images, setting.real.labels, moving, velocities(setting, pairs), device)
    return Recipe(setting.augment, extra=Extra(source), facts={"registrations": float(len(pairs))})
