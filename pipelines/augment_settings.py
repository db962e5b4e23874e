"""What an augment run is told."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, create_model, model_validator

from medgen.config import Config
from medgen.synthesis.backends import available, backend_class
from medgen.synthesis.base import BackendConfig
from medgen.synthesis.fidelity import FidelityConfig
from medgen.synthesis.filters import FilterConfig
from medgen.synthesis.value import ValueConfig

from .runfolder import RunConfig


class Generators(Config):
    """Which backends are trained, and how: one key per backend with its settings; null or absent leaves it out."""

    @property
    def names(self) -> tuple[str, ...]:
        """Backends in use, in the order they are trained."""
        return tuple(name for name in type(self).model_fields if getattr(self, name) is not None)

    def of(self, name: str) -> BackendConfig:
        """Settings of a backend in use."""
        settings: BackendConfig = getattr(self, name)
        return settings


# One field per backend that exists, so that a misspelt key is refused with a hint like any other.
if TYPE_CHECKING:
    GeneratorsConfig = Generators
else:
    GeneratorsConfig = create_model(
        "GeneratorsConfig",
        __base__=Generators,
        **{name: (backend_class(name).Config | None, None) for name in available()},
    )


class AugmentRunConfig(RunConfig):
    """One run of the augmentation pipeline.

    Attributes:
        preprocess: Keys of the preprocessing recipe; what is left out is chosen from the training scans.
        max_side: Most voxels along an axis where the recipe chooses.
        modality: For the card of the synthetic cohort.
        test: Share of the labelled subjects that is held out for the value study.
        labelled_subjects: Training subjects whose masks are used; null for all. Further training subjects count as
            unlabelled and their masks are never read.
        unlabelled_cases: Most unlabelled scans that generators see; null for all, 0 for none.
        generators: Backends.
        scans: Accepted scans wanted of each backend.
        attempts: Most samples per wanted scan.
        filter: What a scan must pass.
        value: The value study.
        fidelity: How synthetic scans are compared with real ones.
    """

    out: Path = Path("runs/augment")
    preprocess: dict[str, Any] = Field(default_factory=dict)
    max_side: int = Field(default=64, ge=16)
    modality: str = "MR"
    test: float = Field(default=0.5, gt=0, lt=1)
    labelled_subjects: int | None = Field(default=None, ge=2)
    unlabelled_cases: int | None = Field(default=None, ge=0)
    generators: GeneratorsConfig = Field(default_factory=lambda: GeneratorsConfig.model_validate({"deform": {}}))
    scans: int = Field(default=100, ge=1)
    attempts: float = Field(default=4.0, ge=1)
    filter: FilterConfig = FilterConfig()
    value: ValueConfig = ValueConfig()
    fidelity: FidelityConfig = FidelityConfig()

    @model_validator(mode="after")
    def _consistent(self) -> AugmentRunConfig:
        if not self.generators.names:
            raise ValueError(f"generators: expected settings for at least one of {', '.join(available())}")
        for arm in self.value.arms:
            source = arm.removeprefix("standard+")
            if source != arm and source not in ("synthetic", *self.generators.names):
                raise ValueError(f"value.arms: {arm!r} needs the generator {source!r}, which is not configured")
        most = self.labelled_subjects
        if most is not None and any(number > most for number in self.value.subjects):
            raise ValueError(f"value.subjects: expected at most labelled_subjects ({most})")
        return self
