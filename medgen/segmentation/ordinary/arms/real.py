"""The labelled scans as they are."""

from __future__ import annotations

from medgen.segmentation.ordinary.setting import Setting
from medgen.segmentation.recipe import Recipe

SOURCE = "The labelled scans as they are, without augmentation."
NEEDS_UNLABELLED = False


def recipe(setting: Setting) -> Recipe:
    """Nothing but the labelled scans."""
    del setting
    return Recipe()
