"""The ordinary ways to make more of a few labelled scans, as strong as published; synthesis has to beat the best."""

from __future__ import annotations

from medgen.ordinary.base import Setting
from medgen.ordinary.registry import available, describe, needs_unlabelled, recipe
from medgen.segmentation_recipe import Recipe

__all__ = ["Recipe", "Setting", "available", "describe", "needs_unlabelled", "recipe"]
