"""CutMix: a box of one scan, labels included, in another."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medgen.segmentation.ordinary.draws import beta, partners
from medgen.segmentation.ordinary.setting import Setting
from medgen.segmentation.recipe import LabelledBatch, Recipe

SOURCE = (
    "Standard augmentation, then CutMix in 3D, a box of one scan pasted with its labels into another with "
    "probability 0.5 (Yun et al., ICCV 2019)."
)
NEEDS_UNLABELLED = False


@dataclass(frozen=True)
class CutMix:
    """A box of another element of the batch, image and labels, replaces the same box of an element.

    Yun et al., "CutMix: regularization strategy to train strong classifiers", ICCV 2019, with cubes
    for squares: λ ~ Beta(α, α), each edge of the box is (1 − λ)^(1/3) of the scan's, its centre uniform, what sticks
    out is cut off. Labels are per voxel here, so they are pasted, not averaged.

    Attributes:
        alpha: Both parameters of the Beta distribution that the box size is drawn from; 1 is uniform, as published.
        probability: That an element gets a box.
    """

    alpha: float = 1.0
    probability: float = 0.5

    def __call__(self, batch: LabelledBatch, generator: torch.Generator) -> LabelledBatch:
        """The batch with boxes pasted."""
        count, device = len(batch.image), batch.image.device
        share = 1 - beta(self.alpha, self.alpha, count, generator)
        chosen = torch.rand(count, generator=generator) < self.probability
        centre = torch.rand(count, 3, generator=generator)
        other = partners(count, generator).to(device)
        inside = boxes(batch.image.shape[2:], centre, share.pow(1 / 3)) & chosen[:, None, None, None, None]
        return paste(batch, other, inside.to(device))


def boxes(shape: torch.Size, centre: Tensor, edge: Tensor) -> Tensor:
    """Boxes as masks (b, 1, i, j, k) bool.

    Args:
        shape: (i, j, k).
        centre: (b, 3) as shares of the scan's edges.
        edge: (b,) length of the edges as a share of the scan's.
    """
    inside = torch.ones(len(edge), 1, *shape, dtype=torch.bool)
    for axis, length in enumerate(shape):
        voxels = torch.arange(length)[None] + 0.5
        near = (voxels - centre[:, axis, None] * length).abs() < edge[:, None] * length / 2
        view = [len(edge), 1, 1, 1, 1]
        view[axis + 2] = length
        inside &= near.reshape(view)
    return inside


def paste(batch: LabelledBatch, other: Tensor, inside: Tensor) -> LabelledBatch:
    """The batch with the voxels ``inside`` (b, 1, i, j, k) bool taken from its elements ``other`` (b,), all alike."""
    weight = batch.weight
    return LabelledBatch(
        torch.where(inside, batch.image[other], batch.image),
        torch.where(inside, batch.target[other], batch.target),
        None if weight is None else torch.where(inside, weight[other], weight),
    )


def recipe(setting: Setting) -> Recipe:
    """Standard augmentation, then CutMix."""
    return Recipe(setting.augment, (CutMix(),))
