"""The labelled scans as they are."""

from __future__ import annotations

from medgen.ordinary.base import Setting
from medgen.segmentation_recipe import Recipe

SOURCE = "The labelled scans as they are, without augmentation."
NEEDS_UNLABELLED = False


def recipe(setting: Setting) -> Recipe:
    """Nothing but the labelled scans."""
    del setting
    return Recipe()
