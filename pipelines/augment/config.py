"""What an augment run is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, create_model, field_validator, model_validator

from medgen.config import Config
from medgen.errors import ConfigError
from medgen.synthesis.backend import BackendConfig
from medgen.synthesis.backends import available, backend_class, every_name
from medgen.synthesis.cohort.consensus import ConsensusConfig
from medgen.synthesis.fidelity.comparison import FidelityConfig
from medgen.synthesis.filtering.filter import FilterConfig
from medgen.synthesis.pair import halves_of
from medgen.synthesis.privacy.memorisation import AuditConfig
from medgen.synthesis.value.arms import Arm
from medgen.synthesis.value.config import ValueConfig

from ..spread.config import SpreadRunConfig

# The modality of a cohort that does not name its channels, where the configuration does not say it either.
NOT_STATED = "not stated"


class Generators(Config):
    """Which backends are trained, and how: one key per backend with its settings; null or absent leaves it out.

    A key is the name of a backend, or ``labels+painter`` for a pair.

    Attributes:
        auto: Let :mod:`medgen.synthesis.planning.router` choose; settings given here are used for those it chooses.
    """

    auto: bool = False

    @model_validator(mode="before")
    @classmethod
    def _known_pairs(cls, given: Any) -> Any:
        for name in given if isinstance(given, Mapping) else ():
            if "+" in str(name) and name not in cls.model_fields:
                try:
                    backend_class(str(name))
                except ConfigError as error:
                    raise ValueError(str(error).removeprefix("generators: ")) from None
        return given

    @model_validator(mode="after")
    def _once(self) -> Self:
        seen: dict[tuple[str, str], str] = {}
        for name in self.names:
            halves = halves_of(name)
            if halves is not None and seen.setdefault(halves, name) != name:
                raise ValueError(f"{seen[halves]} and {name} are the same pair; keep one of them")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Backends in use, in the order they are trained; none before the router has chosen."""
        if self.auto:
            return ()
        return tuple(name for name in type(self).model_fields if name != "auto" and getattr(self, name) is not None)

    def chosen(self, names: Sequence[str]) -> Generators:
        """These backends, with the settings given or the default ones."""
        given = {name: getattr(self, name) for name in names}
        return type(self).model_validate({name: {} if own is None else own for name, own in given.items()})

    def of(self, name: str) -> BackendConfig:
        """Settings of a backend in use."""
        settings: BackendConfig = getattr(self, name)
        return settings


# One field per name that exists, so that a misspelt key is refused with a hint like any other.
if TYPE_CHECKING:
    GeneratorsConfig = Generators
else:
    GeneratorsConfig = create_model(
        "GeneratorsConfig",
        __base__=Generators,
        **{name: (backend_class(name).Config | None, None) for name in every_name()},
    )


class LabelledRunConfig(SpreadRunConfig):
    """What runs on labelled cohorts share: who is in which part, and the common grid.

    Attributes:
        preprocess: Keys of the preprocessing recipe; what is left out is chosen from the training scans.
        max_side: Most voxels along an axis where the recipe chooses.
        labels: Label numbers to use, the others count as background; empty for all that the cohort declares.
        test: Share of the labelled subjects that is held out for the value study.
        folds: Hold out one of this many equal parts of the labelled subjects instead of the share ``test``: one run
            per fold gives generators that have not seen the fold's subjects.
        fold: Which of them, from 0; runs with the same seed have the same folds.
        validation: Share of the labelled subjects that is held out to choose the backend that the verdict is about;
            rounded, so that cohorts of up to five have none. Without it the verdict is about the first synthetic arm.
        labelled_subjects: Training subjects whose masks are used; null for all. Further training subjects count as
            unlabelled and their masks are never read.
        unlabelled_cases: Most unlabelled scans that generators see; null for all, 0 for none.
        value: The value study.
    """

    preprocess: dict[str, Any] = Field(default_factory=dict)
    max_side: int = Field(default=64, ge=16)
    labels: tuple[int, ...] = ()
    test: float = Field(default=0.5, gt=0, lt=1)
    folds: int | None = Field(default=None, ge=2)
    fold: int = Field(default=0, ge=0)
    validation: float = Field(default=0.1, ge=0, lt=1)
    labelled_subjects: int | None = Field(default=None, ge=2)
    unlabelled_cases: int | None = Field(default=None, ge=0)
    value: ValueConfig = ValueConfig()

    @model_validator(mode="after")
    def _parts(self) -> LabelledRunConfig:
        if self.test + self.validation >= 1:
            raise ValueError(f"test + validation: expected less than 1, found {self.test + self.validation:g}")
        if self.executor != "local" and not self.value.enabled:
            raise ValueError("executor: where the value study trains; expected value.enabled=true with it")
        if self.fold >= (self.folds or 1):
            raise ValueError(f"fold: expected a number below folds ({self.folds}), found {self.fold}")
        most = self.labelled_subjects
        for key, numbers in (("subjects", self.value.subjects), ("real_only", self.value.real_only)):
            if self.value.enabled and most is not None and any(number > most for number in numbers):
                raise ValueError(f"value.{key}: expected at most labelled_subjects ({most})")
        return self

    def check_sources(self, known: Sequence[str], what: str) -> None:
        """Refuse arms that name a pool that is not there.

        Raises:
            ValueError: Naming the arm.
        """
        for arm in map(Arm.parse, self.value.arms):
            if arm.source is not None and arm.source not in ("", *known):
                raise ValueError(f"value.arms: {arm.name!r} needs the {what} {arm.source!r}, which is not configured")


class AugmentRunConfig(LabelledRunConfig):
    """One run of the augmentation pipeline.

    Attributes:
        modality: For the card of the synthetic cohort; empty takes the names of the cohort's channels.
        consensus: How unlabelled scans get labels, so that generators can learn from them.
        generators: Backends with their settings, or ``auto``: chosen by the cohort and the machine.
        check_resources: Refuse a run that will not fit into memory or on the disk by its estimate.
        scans: Accepted scans wanted of each backend.
        attempts: Most samples per wanted scan.
        filter: What a scan must pass.
        audit: The memorisation audit, without which nothing is exported.
        fidelity: How synthetic scans are compared with real ones.
        repetition: Another number repeats inferred labels, trainings and samples with other random streams, on the same
            parts and grid: how much does the result depend on them?
    """

    out: Path = Path("runs/augment")
    modality: str = ""
    consensus: ConsensusConfig = ConsensusConfig()
    generators: GeneratorsConfig = Field(default_factory=lambda: GeneratorsConfig.model_validate({"auto": True}))
    check_resources: bool = True
    scans: int = Field(default=100, ge=1)
    attempts: float = Field(default=4.0, ge=1)
    filter: FilterConfig = FilterConfig()
    audit: AuditConfig = AuditConfig()
    fidelity: FidelityConfig = FidelityConfig()
    repetition: int = Field(default=0, ge=0)

    @field_validator("generators", mode="before")
    @classmethod
    def _auto(cls, value: Any) -> Any:
        return {"auto": True} if value == "auto" else value

    @model_validator(mode="after")
    def _consistent(self) -> AugmentRunConfig:
        if not self.generators.auto:
            self.check_arms()
        return self

    def modality_of(self, channels: Sequence[str]) -> str:
        """What scans are, for the card: as configured, else as the cohort names its channels, else that nobody says."""
        return self.modality or ", ".join(channels) or NOT_STATED

    @property
    def trainings_of_generators(self) -> int:
        """How many times generators are trained: once for every number of subjects of the value study."""
        return len(self.value.subjects or (0,)) if self.value.enabled else 1

    def stream(self, *purpose: str) -> tuple[str | int, ...]:
        """Names the random stream of a purpose in this repetition; in the first it is the purpose alone.

        >>> AugmentRunConfig(data="cohort").stream("samples")
        ('samples',)
        >>> AugmentRunConfig(data="cohort", repetition=2).stream("samples")
        ('samples', 'repetition', 2)
        """
        return (*purpose, "repetition", self.repetition) if self.repetition else purpose

    def inputs(self) -> dict[str, Path]:
        """The file of features."""
        features = self.fidelity.features if self.fidelity.enabled else None
        return {} if features is None else {"fidelity.features": features}

    def check_arms(self) -> None:
        """Every arm of the study has its generator.

        Raises:
            ValueError: Naming the arm.
        """
        if not self.generators.names:
            known = ", ".join([*available(), "or a pair such as deform+flow"])
            raise ValueError(f"generators: expected auto, or settings for at least one of {known}")
        self.check_sources(self.generators.names, "generator")
