"""What a training does in which order: stages, their phases, and the part that each phase plays."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from torch import nn


class Role(StrEnum):
    """What the parameters of a phase are for.

    Attributes:
        MODEL: They are what is trained: averaged over the steps, kept and used.
        DISCRIMINATOR: They train the others by telling their images from real ones (Goodfellow et al. 2014): not
            averaged, since they have to keep up with the present weights, and with ``training.lr_discriminator``.
    """

    MODEL = "model"
    DISCRIMINATOR = "discriminator"


@dataclass(frozen=True, eq=False)
class Phase:
    """One loss with the parameters that follow it; each phase has an optimiser of its own.

    >>> Phase(list(nn.Linear(2, 1).parameters()), every=5).role
    <Role.MODEL: 'model'>

    Attributes:
        parameters: What it updates.
        role: What they are for.
        every: It is updated in one of so many steps of its stage, beginning with the first.
        factor: Factor on the stage's learning rate.
        lr: Highest learning rate in place of the stage's; ``factor`` counts for it as well.
        betas: AdamW's decays in place of ``training.betas``.

    Raises:
        ValueError: If there are no parameters, or a number is out of its range.
    """

    parameters: Sequence[nn.Parameter]
    role: Role = Role.MODEL
    every: int = 1
    factor: float = 1.0
    lr: float | None = None
    betas: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not self.parameters:
            raise ValueError("expected a phase to have parameters, found none")
        if self.every < 1 or self.factor <= 0 or (self.lr is not None and self.lr <= 0):
            raise ValueError(f"expected every, factor and lr above 0, found {self.every}, {self.factor} and {self.lr}")


@dataclass(frozen=True, eq=False)
class Stage:
    """A part of a training with optimisers, schedule and early stop of its own; parameters in no phase are at rest.

    Attributes:
        name: Of letters, digits and underscores; it stands before the numbers that are logged.
        phases: What happens in each of its steps, in order, by name; no parameter is in two of them.
        share: Steps relative to the other stages'.
        lr, warmup, patience: In place of those of the training's settings, where given; ``patience`` counts only where
            there is validation.
        monitor: Which term of the first phase's loss validation looks at (lower is better); by default ``"monitor"``,
            or ``"loss"`` where there is none.

    Raises:
        ValueError: If nothing would happen in some steps, a parameter is in two phases, or the name or share are none.
    """

    name: str
    phases: Mapping[str, Phase]
    share: float = 1.0
    lr: float | None = None
    warmup: float | None = None
    patience: int | None = None
    monitor: str | None = None

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"expected a stage's name of letters, digits and underscores, found {self.name!r}")
        if not self.share > 0 or math.isinf(self.share):
            raise ValueError(f"stage {self.name}: expected a share above 0, found {self.share}")
        if all(phase.every > 1 for phase in self.phases.values()):
            raise ValueError(f"stage {self.name}: expected a phase with every=1, so that each step does something")
        found = Counter(id(parameter) for phase in self.phases.values() for parameter in phase.parameters)
        if any(count > 1 for count in found.values()):
            raise ValueError(f"stage {self.name}: a parameter is in two phases; give it to one of them")


def stage_steps(stages: Sequence[Stage], steps: int) -> list[int]:
    """Steps of every stage: whole numbers by their shares, at least one each, that sum up to ``steps``.

    >>> phases = {"all": Phase(list(nn.Linear(2, 1).parameters()))}
    >>> stage_steps([Stage("codes", phases, share=0.7), Stage("prior", phases, share=0.3)], 25)
    [18, 7]

    Raises:
        ValueError: If there are more stages than steps.
    """
    if len(stages) > steps:
        raise ValueError(f"{len(stages)} stages need at least {len(stages)} steps, found {steps}")
    total, ends = sum(stage.share for stage in stages), [0]
    for number, _ in enumerate(stages, start=1):
        end = round(steps * sum(stage.share for stage in stages[:number]) / total)
        left = len(stages) - number
        ends.append(min(max(end, ends[-1] + 1), steps - left))
    return [after - before for before, after in itertools.pairwise(ends)]


def discriminators(stages: Sequence[Stage]) -> frozenset[str]:
    """Names of the phases that discriminators train in.

    >>> discriminators([Stage("game", {"critic": Phase(list(nn.Linear(2, 1).parameters()), Role.DISCRIMINATOR)})])
    frozenset({'critic'})
    """
    return frozenset(
        name for stage in stages for name, phase in stage.phases.items() if phase.role is Role.DISCRIMINATOR
    )
