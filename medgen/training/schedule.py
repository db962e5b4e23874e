"""How fast a training learns: the learning rate of every step, and what a stage makes of the settings."""

from __future__ import annotations

import math
from collections.abc import Sequence

from medgen.models.stages import Phase, Role, Stage, stage_steps
from medgen.training.config import TrainingConfig


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Linear warm-up, then a cosine to zero (Loshchilov and Hutter 2017), for a step counted from 0."""
    warmup = max(1, round(config.warmup * config.steps))
    if step < warmup:
        return config.lr * (step + 1) / warmup
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, config.steps - warmup)))


def phase_rate(config: TrainingConfig, phase: Phase, step: int) -> float:
    """The learning rate of one phase: its stage's, or on the same course its own, times its factors.

    Args:
        config: The settings of the stage, see :func:`stage_configs`.
        phase: One of the stage's.
        step: Of the stage, from 0.
    """
    own = config if phase.lr is None else config.model_copy(update={"lr": phase.lr})
    factor = config.lr_discriminator if phase.role is Role.DISCRIMINATOR else 1.0
    return learning_rate(own, step) * (phase.factor * factor)


def stage_configs(stages: Sequence[Stage], config: TrainingConfig) -> list[TrainingConfig]:
    """The settings of each stage as if it were a training of its own: its steps, and what it has in place of others'.

    Raises:
        ValueError: If there are more stages than steps, none at all, or two of one name.
    """
    names = [stage.name for stage in stages]
    if not names or len({*names}) < len(names):
        raise ValueError(f"expected stages of different names, at least one, found {', '.join(names) or 'none'}")
    found = []
    for stage, steps in zip(stages, stage_steps(stages, config.steps), strict=True):
        own = {"lr": stage.lr, "warmup": stage.warmup}
        if config.validate_every:
            own["patience"] = stage.patience
        given = {name: value for name, value in own.items() if value is not None}
        found.append(config.model_copy(update={"steps": steps, **given}))
    return found
