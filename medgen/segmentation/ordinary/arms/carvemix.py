"""CarveMix: a region around a label, carved by its signed distance, pasted into another scan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from medgen.seeds import numpy_rng
from medgen.segmentation.ordinary.arms.cutmix import paste
from medgen.segmentation.ordinary.draws import number, partners
from medgen.segmentation.ordinary.setting import Setting
from medgen.segmentation.recipe import LabelledBatch, Recipe

SOURCE = (
    "Standard augmentation, then CarveMix, a region carved around a label by its signed distance and pasted with its "
    "labels into another scan with probability 0.5 (Zhang et al., MICCAI 2021 and NeuroImage 2023)."
)
NEEDS_UNLABELLED = False


@dataclass(frozen=True)
class CarveMix:
    """A region around a label of another element of the batch, image and labels, replaces the same place.

    Zhang et al., "CarveMix: a simple data augmentation method for brain lesion segmentation", MICCAI 2021:
    with D the signed distance of the label's boundary (negative inside), the region is D ≤ λ, and λ comes with
    equal chance from U(−|min D| / 2, 0) and U(0, |min D|). The label is drawn from those that the other element has;
    all labels inside of the region are pasted.

    Attributes:
        probability: That an element gets a region.
        spacing: Edges of a voxel along i, j, k, in any unit; distances are measured with them.
    """

    probability: float = 0.5
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __call__(self, batch: LabelledBatch, generator: torch.Generator) -> LabelledBatch:
        """The batch with regions pasted. Distance transforms are computed on the CPU."""
        count, device = len(batch.image), batch.image.device
        chosen = torch.rand(count, generator=generator) < self.probability
        other = partners(count, generator)
        rng = numpy_rng(number(generator), "carvemix")
        targets = batch.target.cpu().numpy()
        inside = np.zeros((count, 1, *batch.image.shape[2:]), dtype=bool)
        for row in range(count):
            # Two draws for every element, so that no element's draws hang on another's labels.
            pick, level = float(rng.uniform()), float(rng.uniform(-1, 1))
            labels = np.unique(targets[other[row], 0])
            labels = labels[labels > 0]
            if chosen[row] and labels.size:
                label = labels[int(pick * labels.size)]
                inside[row, 0] = carve(targets[other[row], 0] == label, level, self.spacing)
        return paste(batch, other.to(device), torch.from_numpy(inside).to(device))


def carve(region: NDArray[np.bool_], level: float, spacing: tuple[float, float, float]) -> NDArray[np.bool_]:
    """The region grown or shrunk along its signed distance D.

    Args:
        region: (i, j, k), not empty.
        level: In [−1, 1]; the threshold is level · |min D|, halved if negative.
        spacing: Edges of a voxel.

    Returns:
        (i, j, k): D ≤ threshold.
    """
    # Distances of voxel centres to the nearest centre beyond the boundary; the boundary itself is half a voxel nearer.
    half = min(spacing) / 2
    depth = ndimage.distance_transform_edt(region, sampling=spacing) - half
    outside = ndimage.distance_transform_edt(~region, sampling=spacing) - half
    distance = np.where(region, -depth, outside)
    carved: NDArray[np.bool_] = distance <= level * depth[region].max() * (0.5 if level < 0 else 1.0)
    return carved


def recipe(setting: Setting) -> Recipe:
    """Standard augmentation, then CarveMix, with the voxel's shape as far as the prepared scans tell it."""
    return Recipe(setting.augment, (CarveMix(spacing=setting.voxel),))
