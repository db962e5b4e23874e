"""The field's standard augmentation."""

from __future__ import annotations

from medgen.segmentation.ordinary.setting import Setting
from medgen.segmentation.recipe import Recipe

SOURCE = "The field's standard augmentation, after nnU-Net (Isensee et al., Nature Methods 2021)."
NEEDS_UNLABELLED = False


def recipe(setting: Setting) -> Recipe:
    """The setting's augmentation."""
    return Recipe(setting.augment)
