"""Alarms of adversarial training: mode collapse, divergence, and a discriminator that has won, from the numbers logged.

A GAN's losses do not say whether its samples are any good. What tells is the diversity of a batch of samples beside
that of real scans, the discriminator's accuracy, the probability of its adaptive augmentation, whether scans still
come back from their own codes, and the size of the gradients.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from pydantic import Field

from medgen.config import Config
from medgen.models.stages import Role
from medgen.progress import Log

logger = logging.getLogger(__name__)

COLLAPSE = "mode_collapse"
DIVERGENCE = "divergence"
OVERPOWERED = "discriminator_wins"
SATURATED = "augmentation_saturated"

Record = Mapping[str, float]
# What families log of how scans come back from their own codes.
_ERRORS = ("l1", "rmse")
# Phases that discriminators train in: called by their role, unless a caller knows better.
_DISCRIMINATORS: Collection[str] = (Role.DISCRIMINATOR.value,)


class AlarmConfig(Config):
    """When an alarm is raised.

    Attributes:
        patience: Records in a row that must be bad.
        warmup: Share of the training at whose end watching begins.
        diversity: Mode collapse: samples of a batch differ by less than this share of what real scans differ by.
        accuracy: Overpowered discriminator: it is right more often than this.
        augmented: Saturated: discriminator augmentation is at least this probable and still not enough.
        rise: Divergence: the reconstruction error is more than this many times its lowest value.
        gradient: Divergence: the generator's gradient norm is more than this many times its median so far.
    """

    patience: int = Field(default=5, ge=1)
    warmup: float = Field(default=0.3, ge=0, lt=1)
    diversity: float = Field(default=0.35, gt=0, lt=1)
    accuracy: float = Field(default=0.97, gt=0.5, lt=1)
    augmented: float = Field(default=0.79, gt=0, le=1)
    rise: float = Field(default=2.0, gt=1)
    gradient: float = Field(default=50.0, gt=1)


@dataclass(frozen=True)
class Alarm:
    """A named event of a training.

    Attributes:
        name: ``mode_collapse``, ``divergence``, ``discriminator_wins`` or ``augmentation_saturated``.
        step: At which it was raised.
        message: What was seen, and what to do.
    """

    name: str
    step: int
    message: str


def alarms(
    history: Sequence[Record],
    steps: int,
    config: AlarmConfig | None = None,
    discriminators: Collection[str] = _DISCRIMINATORS,
) -> tuple[Alarm, ...]:
    """The alarms that a history gives cause for, each once, in the order in which they would have been raised.

    Args:
        history: Records as the training loop logs them: ``step`` and numbers such as ``generator/diversity``,
            ``generator/l1`` or ``generator/rmse`` (of reconstructions), ``generator/gradient``,
            ``discriminator/accuracy`` and ``discriminator/augmented``.
            What is not logged raises no alarm.
        steps: Steps of the whole training.
        config: Limits; the defaults if absent.
        discriminators: Names of the phases that discriminators train in (:func:`medgen.models.stages.discriminators`);
            the numbers of all others are the generator's.
    """
    config = config or AlarmConfig()
    trained = [_of(record, discriminators, theirs=False) for record in history]
    against = [_of(record, discriminators, theirs=True) for record in history]
    checks = {
        COLLAPSE: _collapse(trained, config),
        DIVERGENCE: _divergence(trained, [_finite(record) for record in history], config),
        OVERPOWERED: _overpowered(against, config),
        SATURATED: _saturated(against, config),
    }
    raised = []
    for name, (bad, text) in checks.items():
        begin = 0 if name == DIVERGENCE else config.warmup * steps
        run = 0
        for record, wrong in zip(history, bad, strict=True):
            run = run + 1 if wrong and record["step"] > begin else 0
            if run >= config.patience or (wrong and not _finite(record)):
                raised.append(Alarm(name, int(record["step"]), text))
                break
    return tuple(sorted(raised, key=lambda alarm: alarm.step))


@dataclass
class Watch:
    """A logger that passes numbers on and raises alarms while a training runs.

    Attributes:
        steps: Steps of the whole training.
        log: Where numbers go, and ``alarm/<name>`` = 1 at the step of an alarm; None is nowhere.
        config: Limits.
        discriminators: Names of the phases that discriminators train in.
        seen: Records so far.
        raised: Names of the alarms so far.
    """

    steps: int
    log: Log | None = None
    config: AlarmConfig = field(default_factory=AlarmConfig)
    discriminators: Collection[str] = _DISCRIMINATORS
    seen: list[dict[str, float]] = field(default_factory=list)
    raised: set[str] = field(default_factory=set)

    def __call__(self, numbers: dict[str, float], step: int) -> None:
        """Take the numbers of a step."""
        self.seen.append({"step": step, **numbers})
        if self.log is not None:
            self.log(numbers, step)
        for alarm in alarms(self.seen, self.steps, self.config, self.discriminators):
            if alarm.name not in self.raised:
                self.raised.add(alarm.name)
                logger.warning("step %d: %s", alarm.step, alarm.message)
                if self.log is not None:
                    self.log({f"alarm/{alarm.name}": 1.0}, step)


def _collapse(history: Sequence[Record], config: AlarmConfig) -> tuple[list[bool], str]:
    bad = [record.get("diversity", 1.0) < config.diversity for record in history]
    return bad, (
        f"mode collapse: samples of a batch differed by less than {config.diversity:g} of what real scans differ by; "
        "lower training.lr or the adversarial weight, or raise r1"
    )


def _divergence(history: Sequence[Record], finite: Sequence[bool], config: AlarmConfig) -> tuple[list[bool], str]:
    lowest, norms, bad = math.inf, list[float](), list[bool]()
    for record, sound in zip(history, finite, strict=True):
        error, norm = next((record[name] for name in _ERRORS if name in record), None), record.get("gradient", 0.0)
        risen = error is not None and 0 < config.rise * lowest < error
        burst = len(norms) >= config.patience and norm > config.gradient * median(norms)
        bad.append(risen or burst or not sound)
        lowest = lowest if error is None else min(lowest, error)
        norms.append(norm)
    return bad, (
        f"divergence: numbers were not finite, the reconstruction error rose above {config.rise:g} times its lowest "
        f"value, or the gradient above {config.gradient:g} times its median; lower training.lr, do not use these scans"
    )


def _overpowered(history: Sequence[Record], config: AlarmConfig) -> tuple[list[bool], str]:
    # With adaptive augmentation a good discriminator is made worse first; only where that is used up has it won.
    bad = [
        record.get("accuracy", 0.0) > config.accuracy and record.get("augmented", 1.0) >= config.augmented
        for record in history
    ]
    return bad, (
        f"the discriminator has won: it was right in more than {config.accuracy:.0%} of its patches, and teaches the "
        "generator little; lower training.lr_discriminator or discriminator_widths, or raise r1"
    )


def _saturated(history: Sequence[Record], config: AlarmConfig) -> tuple[list[bool], str]:
    bad = [record.get("augmented", 0.0) >= config.augmented for record in history]
    return bad, (
        "adaptive augmentation is saturated: the discriminator knows the training scans by heart in spite of it; "
        "samples may be distorted as augmented scans are; use more scans or a smaller discriminator"
    )


def _of(record: Record, discriminators: Collection[str], *, theirs: bool) -> Record:
    """The numbers of the discriminators' phases, or of the others, without what stands before their names."""
    parts = {name: name.split("/") for name in record if "/" in name}
    return {path[-1]: record[name] for name, path in parts.items() if (path[-2] in discriminators) == theirs}


def _finite(record: Record) -> bool:
    return all(math.isfinite(value) for value in record.values())
