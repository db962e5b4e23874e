"""MixUp: weighted means of two scans and of their labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from medgen.segmentation.ordinary.draws import beta, partners
from medgen.segmentation.ordinary.setting import Setting
from medgen.segmentation.recipe import LabelledBatch, Recipe

SOURCE = (
    "Standard augmentation, then MixUp, weighted means of two scans and their labels (Zhang et al., ICLR 2018; "
    "alpha 0.2, within their range of 0.1 to 0.4)."
)
NEEDS_UNLABELLED = False


@dataclass(frozen=True)
class MixUp:
    """Each element becomes λ · itself + (1 − λ) · another element of the batch, and so do its labels.

    Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018, with λ ~ Beta(α, α) per element.

    Attributes:
        classes: Number of classes, background included.
        alpha: Both parameters of the Beta distribution that the mixing weight is drawn from.
    """

    classes: int
    alpha: float = 0.2

    def __call__(self, batch: LabelledBatch, generator: torch.Generator) -> LabelledBatch:
        """The mixed batch; its target are shares (b, classes, i, j, k), its weights are mixed alike."""
        count, device = len(batch.image), batch.image.device
        share = beta(self.alpha, self.alpha, count, generator).to(device)[:, None, None, None, None]
        other = partners(count, generator).to(device)
        target = functional.one_hot(batch.target[:, 0].long(), self.classes).movedim(-1, 1).float()
        weight = batch.weight
        return LabelledBatch(
            torch.lerp(batch.image[other], batch.image, share),
            torch.lerp(target[other], target, share),
            None if weight is None else torch.lerp(weight[other], weight, share),
        )


def recipe(setting: Setting) -> Recipe:
    """Standard augmentation, then MixUp."""
    return Recipe(setting.augment, (MixUp(len(setting.labels) + 1),))
