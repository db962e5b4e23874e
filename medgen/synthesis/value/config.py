"""Settings of the value study."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator

from medgen.config import Config
from medgen.segmentation.segmenter import SegmenterConfig
from medgen.synthesis.value.arms import STANDARD, SYNTHETIC, Arm, checked
from medgen.training.config import InitConfig
from medgen.transforms.augmentation import AugmentConfig


class ValueConfig(Config):
    """Settings of the study.

    Attributes:
        enabled: False leaves the study out of a run.
        subjects: Numbers of real labelled subjects; empty means all labelled subjects of the run. For each number the
            generators are trained anew on these subjects, so each costs a whole training.
        real_only: Further numbers of subjects at which only ordinary arms are run: they cost no generator and
            lengthen the curve on which the worth in real scans is read.
        seeds: Repetitions with other initial weights and order.
        arms: Names of ordinary arms (:func:`medgen.segmentation.ordinary.available`), and arms with generated scans:
            ``<ordinary>+synthetic`` (accepted scans of every backend mixed in), ``<ordinary>+<backend>`` (of one),
            ``synthetic`` (no real scan at all).
        segmenter: Network and training; equal for all arms.
        init: A trained model of the family ``segmenter`` that every segmenter starts from, in all arms alike; none if
            absent. Larger teachers, of ``ensemble_labels``, start from random weights where theirs are of other sizes.
        augment: The standard augmentation.
        p_synthetic: Probability that an element of a batch is a synthetic scan.
        bootstrap: Resamples of the intervals.
        tolerance_mm: Distance between two surfaces, in mm, that the normalised surface Dice forgives.
        threads: Threads that torch uses in each cell. Results can differ in the last bits between numbers of threads,
            never between numbers of workers.
    """

    enabled: bool = True
    subjects: tuple[Annotated[int, Field(ge=2)], ...] = ()
    real_only: tuple[Annotated[int, Field(ge=2)], ...] = ()
    seeds: Annotated[int, Field(ge=1)] = 5
    arms: tuple[str, ...] = ("real", STANDARD, f"{STANDARD}+{SYNTHETIC}")
    segmenter: SegmenterConfig = SegmenterConfig()
    init: InitConfig | None = None
    augment: AugmentConfig = AugmentConfig()
    p_synthetic: Annotated[float, Field(ge=0, le=1)] = 0.5
    bootstrap: Annotated[int, Field(ge=100)] = 5000
    tolerance_mm: Annotated[float, Field(gt=0)] = 1.0
    threads: Annotated[int, Field(ge=1)] = 1

    @field_validator("subjects", "real_only", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int) else value

    @field_validator("subjects", "real_only")
    @classmethod
    def _once(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) < len(value):
            raise ValueError("expected every number of subjects once")
        return value

    @field_validator("arms")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return checked(value)

    @property
    def sources(self) -> tuple[str, ...]:
        """Pools that arms name, ``""`` for all together, each once."""
        found = (Arm.parse(name).source for name in self.arms)
        return tuple(dict.fromkeys(source for source in found if source is not None))
