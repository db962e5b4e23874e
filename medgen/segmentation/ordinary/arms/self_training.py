"""Self-training: a teacher labels the unlabelled scans, a student learns from both and becomes the teacher."""

from __future__ import annotations

from torch import Tensor

from medgen.errors import DataError
from medgen.seeds import derive
from medgen.segmentation.ordinary.arms.ensemble_labels import labelled_by
from medgen.segmentation.ordinary.setting import Setting
from medgen.segmentation.recipe import Extra, LabelledSet, Recipe
from medgen.segmentation.segmenter import train_segmenter

SOURCE = (
    "Self-training in two rounds: a teacher of the student's size labels the unlabelled scans, voxels below 0.75 are "
    "left out, the student is augmented too and becomes the next teacher (noisy student: Xie et al., CVPR 2020)."
)
NEEDS_UNLABELLED = True

# One round fewer than published: each costs a whole training.
_ROUNDS, _THRESHOLD = 2, 0.75


def recipe(setting: Setting) -> Recipe:
    """Standard augmentation of labelled scans and of scans that the last teacher labelled."""
    return _student(setting, _pool(setting, _ROUNDS))


def _pool(setting: Setting, rounds: int) -> LabelledSet:
    key = f"self-training {rounds} {setting.seed} {setting.labels} {setting.segmenter!r} {setting.augment!r}"
    if key not in setting.memo:
        plan = Recipe(setting.augment) if rounds == 1 else _student(setting, _pool(setting, rounds - 1))
        seed = derive(setting.seed, "self-training", rounds)
        teacher = train_segmenter(
            setting.real,
            setting.segmenter,
            seed,
            labels=setting.labels,
            recipe=plan,
            start=setting.start,
            device=setting.device,
        )
        setting.memo[key] = labelled_by([teacher], _images(setting), _THRESHOLD)
    pool: LabelledSet = setting.memo[key]
    return pool


def _student(setting: Setting, pool: LabelledSet) -> Recipe:
    return Recipe(setting.augment, extra=Extra(pool), facts={"pseudo_labelled": float(len(pool.images))})


def _images(setting: Setting) -> Tensor:
    if setting.unlabelled is None:
        raise DataError("self-training needs unlabelled scans, and the training part has none")
    return setting.unlabelled.images
