"""Mean teacher: consistency with a moving average of the network on unlabelled scans."""

from __future__ import annotations

from medgen.errors import DataError
from medgen.segmentation.ordinary.setting import Setting
from medgen.segmentation.recipe import Consistency, Recipe

SOURCE = (
    "Standard augmentation, and consistency with a moving average of the network on unlabelled scans (Tarvainen and "
    "Valpola, NeurIPS 2017; weights, ramp-up and noise of Yu et al., MICCAI 2019)."
)
NEEDS_UNLABELLED = True


def recipe(setting: Setting) -> Recipe:
    """Standard augmentation and consistency; the averaged network is the one that is tested."""
    if setting.unlabelled is None:
        raise DataError("a mean teacher needs unlabelled scans, and the training part has none")
    return Recipe(setting.augment, consistency=Consistency(setting.unlabelled.images, ids=setting.unlabelled.ids))
