"""What a backend, the filter and the sampling will cost, before anything is trained."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from medgen.costs import describe_training, minutes, segmenter_cost, stand_in, training_cost
from medgen.errors import ConfigError
from medgen.models import settings_for
from medgen.models.base import ModelConfig
from medgen.segmentation import SegmenterConfig
from medgen.synthesis.labelkinds import LabelFacts
from medgen.training import TrainingConfig

if TYPE_CHECKING:
    from medgen.config import Config
    from medgen.synthesis.filters import FilterConfig

_FLOAT = 4
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
        return (self.labelled + self.unlabelled) * self.voxels * (_FLOAT * self.channels + 2)


@dataclass(frozen=True)
class Estimate:
    """What something will cost.

    Attributes:
        seconds: In all, for one run of it.
        bytes: Most memory at a time, on the device, beside the cohort.
        lines: For people, with numbers.
        sample_seconds: For one sample, of a backend.
    """

    seconds: float
    bytes: float
    lines: tuple[str, ...] = ()
    sample_seconds: float = 0.0

    def __add__(self, other: Estimate) -> Estimate:
        """One after the other."""
        return Estimate(
            self.seconds + other.seconds,
            max(self.bytes, other.bytes),
            (*self.lines, *other.lines),
            self.sample_seconds + other.sample_seconds,
        )


def network_estimate(
    name: str, settings: ModelConfig, training: TrainingConfig, device: str, labels: int = 0
) -> Estimate:
    """Of one network that :func:`medgen.training.fit` trains."""
    cost = training_cost(settings, training, device, labels)
    forward = cost.step_seconds * _FORWARD / training.batch_size
    return Estimate(cost.seconds, cost.bytes, (describe_training(name, cost),), forward)


def config_estimate(name: str, families: Mapping[str, str], config: Config, outline: Outline, device: str) -> Estimate:
    """Of a backend whose settings pair networks with trainings: ``model`` with ``training``, ``x`` with ``x_training``.

    Every :class:`~medgen.segmentation.SegmenterConfig` among the settings counts as one more training.

    Args:
        name: Of the backend.
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
            settings = settings_for(given, outline.shape, outline.channels, count)
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
    """Of so many segmenters."""
    if trainings == 0:
        return Estimate(0.0, 0.0)
    cost = segmenter_cost(config, outline.channels, len(outline.labels) + 1, outline.shape, device)
    seconds = cost.seconds * trainings
    plural = "segmenter" if trainings == 1 else "segmenters"
    line = f"{name}: {trainings} {plural}, about {minutes(seconds)}, {cost.mebibytes:.0f} MiB"
    return Estimate(seconds, cost.bytes, (line,), cost.step_seconds * _FORWARD / config.batch_size)


def filter_estimate(config: FilterConfig, outline: Outline, device: str) -> Estimate:
    """Of fitting the filter; its ``sample_seconds`` are those of judging one scan."""
    auditors = segmenter_estimate("filter", config.auditor, outline, device, trainings=2)
    compare = gallery_seconds(outline)
    # Every real scan is compared with every other one once.
    scans = outline.labelled + outline.unlabelled
    return Estimate(
        auditors.seconds + scans * compare, auditors.bytes, auditors.lines, 2 * auditors.sample_seconds + compare
    )


def gallery_seconds(outline: Outline) -> float:
    """Comparing one scan with all training scans, measured on a few small ones."""
    from medgen.synthesis.copies import Gallery

    shape, count = stand_in(outline.shape), 4
    images = torch.rand(count, outline.channels, *shape, generator=torch.Generator().manual_seed(0))
    gallery = Gallery(images, [str(n) for n in range(count)], [str(n) for n in range(count)])
    start = time.perf_counter()
    gallery.correlations(images[0])
    seconds = time.perf_counter() - start
    ratio = outline.voxels / math.prod(shape) * (outline.labelled + outline.unlabelled) / count
    return seconds * max(ratio, 1.0)


def sampling_estimate(
    scans: int, attempts: float, backends: Mapping[str, Estimate], judge: Estimate, outline: Outline
) -> Estimate:
    """Of sampling and judging, if a third of the samples is refused; up to ``attempts`` per scan if more are."""
    pool = scans * len(backends) * outline.voxels * (_FLOAT * outline.channels + 1)
    once = sum(scans * (own.sample_seconds + judge.sample_seconds) for own in backends.values())
    typical, worst = once * min(1.5, attempts), once * attempts
    line = f"sampling: {scans} scans of each backend, about {minutes(typical)}, at most {minutes(worst)}"
    return Estimate(typical, float(pool), (line,))


def total_seconds(estimates: Sequence[Estimate]) -> float:
    """Of several estimates."""
    return sum(item.seconds for item in estimates)
