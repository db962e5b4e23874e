"""Multi-atlas labels on unlabelled scans, then training on both."""

from __future__ import annotations

from medgen.segmentation.ordinary.multi_atlas import multi_atlas_labels
from medgen.segmentation.ordinary.setting import Setting
from medgen.segmentation.recipe import Extra, Recipe

SOURCE = (
    "Standard augmentation; half of the scans are unlabelled ones with labels from registered atlases by joint label "
    "fusion (Wang et al., IEEE TPAMI 2013), weighted by the votes."
)
NEEDS_UNLABELLED = True


def recipe(setting: Setting) -> Recipe:
    """Standard augmentation of labelled and of pseudo-labelled scans."""
    pool = multi_atlas_labels(setting)
    return Recipe(setting.augment, extra=Extra(pool), facts={"pseudo_labelled": float(len(pool.images))})
