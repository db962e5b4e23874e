"""What a backend, the filter and the sampling will cost, before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medgen.errors import ConfigError
from medgen.models.base import ModelConfig
from medgen.models.catalogue import settings_for
from medgen.segmentation.cost import segmenter_cost
from medgen.segmentation.segmenter import SegmenterConfig
from medgen.synthesis.cohort.label_facts import LabelFacts
from medgen.training.cost import Estimate, describe_training, minutes, training_cost
from medgen.training.trainer import TrainingConfig

if TYPE_CHECKING:
    from medgen.config import Config

FLOAT_BYTES = 4
# A forward pass is about a third of a training step.
_FORWARD = 1 / 3


@dataclass(frozen=True)
class Outline:
    """What a cohort is like, as far as costs and the choice of backends depend on it.

    Attributes:
        shape: Model grid (i, j, k).
        channels: Image channels.
        labels: Label numbers without 0.
        labelled: Labelled training scans.
        unlabelled: Unlabelled training scans.
        facts: How each label lies in the labelled scans; may be empty where only costs are asked for.
    """

    shape: tuple[int, int, int]
    channels: int
    labels: tuple[int, ...]
    labelled: int
    unlabelled: int
    facts: tuple[LabelFacts, ...] = ()

    @property
    def voxels(self) -> int:
        """Voxels of one scan."""
        return math.prod(self.shape)

    @property
    def cohort_bytes(self) -> int:
        """Memory of the training scans: float32 channels, labels and foreground of one byte."""
        return (self.labelled + self.unlabelled) * self.voxels * (FLOAT_BYTES * self.channels + 2)


def network_estimate(
    name: str, settings: ModelConfig, training: TrainingConfig, device: str, labels: int = 0
) -> Estimate:
    """What training one network by :func:`medgen.training.trainer.fit` costs, measured on a few steps."""
    cost = training_cost(settings, training, device, labels)
    forward = cost.step_seconds * _FORWARD / training.batch_size
    return Estimate(cost.seconds, cost.bytes, (describe_training(name, cost),), forward)


def config_estimate(name: str, families: Mapping[str, str], config: Config, outline: Outline, device: str) -> Estimate:
    """Cost of a backend that pairs networks with trainings: ``model`` and ``training``, ``x`` and ``x_training``.

    Every :class:`~medgen.segmentation.segmenter.SegmenterConfig` among the settings counts as one more training.

    Args:
        name: Name of the backend.
        families: Family of each group of network settings; what is not there has the family ``name``.
        config: The backend's settings.
        outline: The cohort.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.

    Raises:
        ConfigError: If a setting of a network is wrong, or nothing in the settings is a training.
    """
    total, count = Estimate(0.0, 0.0), max(len(outline.labels), 1)
    for key in type(config).model_fields:
        value: Any = getattr(config, key)
        if isinstance(value, TrainingConfig):
            part = "model" if key == "training" else key.removesuffix("_training")
            family = families.get(part, name)
            given = {**getattr(config, part), "family": family, "in_channels": outline.channels}
            settings = settings_for(given, outline.shape, outline.channels, count, f"generators.{name}.{part}")
            title = name if family == name else f"{name}, {family}"
            total += network_estimate(title, settings, value, device, count)
        elif isinstance(value, SegmenterConfig):
            total += segmenter_estimate(f"{name}, {key}", value, outline, device)
    if not total.lines:
        raise ConfigError(f"generators.{name}: nothing in its settings says what it trains; it needs its own estimate")
    return total


def segmenter_estimate(
    name: str, config: SegmenterConfig, outline: Outline, device: str, trainings: int = 1
) -> Estimate:
    """What training so many segmenters costs."""
    if trainings == 0:
        return Estimate(0.0, 0.0)
    cost = segmenter_cost(config, outline.channels, len(outline.labels) + 1, outline.shape, device)
    seconds = cost.seconds * trainings
    plural = "segmenter" if trainings == 1 else "segmenters"
    line = f"{name}: {trainings} {plural}, about {minutes(seconds)}, {cost.mebibytes:.0f} MiB"
    return Estimate(seconds, cost.bytes, (line,), cost.step_seconds * _FORWARD / config.batch_size)
