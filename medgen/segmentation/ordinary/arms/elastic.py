"""Standard augmentation with stronger elastic deformation."""

from __future__ import annotations

from medgen.segmentation.ordinary.setting import Setting
from medgen.segmentation.recipe import Recipe

SOURCE = "Standard augmentation with twice the elastic deformation (Ronneberger et al., MICCAI 2015: U-Net)."
NEEDS_UNLABELLED = False

# Voxels at the control points; a quarter of their default distance of 12, so that folds stay rare (a B-spline cannot
# fold below 0.4 of it: Choi and Lee, Graphical Models 2000).
_LEAST = 3.0


def recipe(setting: Setting) -> Recipe:
    """The setting's augmentation with its elastic amplitude doubled, to 3 voxels at least."""
    elastic = max(2 * setting.augment.elastic, _LEAST)
    return Recipe(setting.augment.model_copy(update={"elastic": elastic}))
