"""Labels of an ensemble for the unlabelled scans: what medgen's consensus labels are worth without any new scan."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medgen.errors import DataError
from medgen.seeds import derive
from medgen.segmentation.ordinary.setting import Setting
from medgen.segmentation.recipe import Extra, LabelledSet, Recipe
from medgen.segmentation.segmenter import Segmenter, train_segmenter

SOURCE = (
    "Five teachers, larger than the student and with standard augmentation, label the unlabelled scans together and "
    "voxels below 0.75 are left out: medgen's consensus labels without synthesis (deep ensembles: Lakshminarayanan "
    "et al., NeurIPS 2017)."
)
NEEDS_UNLABELLED = True

# As many members of the same size as in medgen.synthesis.cohort.consensus: what generators gain over this arm is not
# the labels'.
_TEACHERS, _RESIDUAL_UNITS, _THRESHOLD = 5, 2, 0.75


def recipe(setting: Setting) -> Recipe:
    """Standard augmentation of labelled scans and of those that the teachers labelled."""
    if setting.unlabelled is None:
        raise DataError("ensemble labels need unlabelled scans, and the training part has none")
    key = f"ensemble-labels {setting.seed} {setting.labels} {setting.segmenter!r} {setting.augment!r}"
    if key not in setting.memo:
        units = max(_RESIDUAL_UNITS, setting.segmenter.residual_units)
        larger = setting.segmenter.model_copy(update={"residual_units": units})
        teachers = [
            train_segmenter(
                setting.real,
                larger,
                derive(setting.seed, "ensemble-labels", number),
                labels=setting.labels,
                augmentation=setting.augment,
                start=setting.start if larger == setting.segmenter else None,
                device=setting.device,
            )
            for number in range(_TEACHERS)
        ]
        setting.memo[key] = labelled_by(teachers, setting.unlabelled.images, _THRESHOLD)
    pool: LabelledSet = setting.memo[key]
    return Recipe(setting.augment, extra=Extra(pool), facts={"pseudo_labelled": float(len(pool.images))})


def labelled_by(teachers: Sequence[Segmenter], images: Tensor, threshold: float) -> LabelledSet:
    """The labels of the teachers' mean probability.

    Args:
        teachers: Segmenters of the same classes.
        images: (n, c, i, j, k).
        threshold: The confidence is 0 where the largest mean probability is below, and 1 elsewhere.
    """
    labels = torch.zeros((len(images), 1, *images.shape[2:]), dtype=torch.uint8)
    confidence = torch.zeros_like(labels)
    numbers = torch.tensor(teachers[0].classes)
    for row in range(len(images)):
        each = [teacher.probabilities(images[row : row + 1])[0] for teacher in teachers]
        best, winner = torch.stack(each).mean(0).max(0)
        labels[row, 0] = numbers[winner].to(torch.uint8)
        confidence[row, 0] = (best >= threshold).to(torch.uint8) * 255
    return LabelledSet(images, labels, confidence)
