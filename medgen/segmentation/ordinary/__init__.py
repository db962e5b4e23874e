"""The ordinary ways to make more of a few labelled scans, as strong as published; synthesis has to beat the best."""

from __future__ import annotations

from medgen.segmentation.ordinary.registry import available, describe, needs_unlabelled, recipe
from medgen.segmentation.ordinary.setting import Setting
from medgen.segmentation.recipe import Recipe

__all__ = ["Recipe", "Setting", "available", "describe", "needs_unlabelled", "recipe"]
