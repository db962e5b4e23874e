"""How backends train: an augmentation, and recipes of which a configuration changes a part and leaves the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BeforeValidator

from medgen.transforms.augmentation import AugmentConfig

# Gentle: what the models see is what they will make.
MILD = AugmentConfig(rotate_degrees=8, scale=(0.92, 1.09), stretch=0.05, elastic=1.0, intensity=0.0)


def completed_by(recipe: Mapping[str, Any]) -> BeforeValidator:
    """Fills up a group of settings with those of a recipe, for the type of a field.

    Naming the steps must not take the rest of the recipe away.

    Args:
        recipe: The settings by name.

    >>> from typing import Annotated
    >>> from medgen.config import Config
    >>> from medgen.training.trainer import TrainingConfig
    >>> class Mine(Config):
    ...     training: Annotated[TrainingConfig, completed_by({"steps": 1600, "lr": 2e-3})]
    >>> Mine.model_validate({"training": {"steps": 20}}).training.lr
    0.002
    """

    def complete(given: Any) -> Any:
        return {**recipe, **given} if isinstance(given, Mapping) else given

    return BeforeValidator(complete)
