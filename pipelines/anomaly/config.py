"""What an anomaly run is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator

from medgen.anomaly.config import AnomalyConfig
from medgen.anomaly.evaluation.artefacts import ArtefactsConfig
from medgen.anomaly.evaluation.detectability import DetectabilityConfig
from medgen.config import Config
from medgen.data.cases import is_safe_id
from medgen.implants.implanted_scans import EvaluationConfig
from medgen.models.families import check_family
from medgen.system.files import exists
from medgen.training.config import TrainingConfig

from ..preflight import preflight
from ..spread.config import SpreadRunConfig

# The grid follows from the scans; a wrong model setting is refused before any is read.
_ANY_SHAPE = (32, 32, 32)


class FurtherModel(Config):
    """One more model that is trained in every fold.

    Attributes:
        model: Settings of a model family, as in the run.
        training: Its training.
    """

    model: dict[str, Any]
    training: TrainingConfig = TrainingConfig()


class AnomalyRunConfig(SpreadRunConfig):
    """One anomaly run.

    Attributes:
        test: Share of the subjects that is held out for the evaluation.
        preprocess: Keys of the preprocessing recipe; what is left out is chosen from the development scans.
        max_side: Most voxels along an axis where the recipe chooses.
        model: Settings of a model family, chosen by ``family``; shape and channels follow from the data.
        training: The training of each fold's model.
        further: More models for each fold, by any name, for the channels that need another family.
        anomaly: Folds, scores, fusion, calibration.
        evaluation: The implanted test set.
        detectability: The grid of the minimum detectable lesion.
        artefacts: The faulty copies of the test scans.
        exclude: Development cases that are not healthy after all: they calibrate nothing and no score learns from them.
            The networks are trained as before, so that a finished run can be calibrated anew with ``--resume``.
        without: Combinations of channels that scans to be scored may lack, such as ``[[FLAIR], [FLAIR, T2]]``, by the
            names of the cohort. For each, further models are trained and calibrated on the same scans without these
            channels: what a model of all channels says of a scan that lacks one is worth nothing.
        check_resources: Refuse trainings that will not fit into memory.
    """

    RECALIBRATED: ClassVar[tuple[str, ...]] = (
        "exclude",
        "without",
        "anomaly.calibration",
        "anomaly.findings",
        "anomaly.normative",
    )

    out: Path = Path("runs/anomaly")
    test: float = Field(default=0.25, gt=0, lt=1)
    preprocess: dict[str, Any] = Field(default_factory=dict)
    max_side: int = Field(default=64, ge=16)
    model: dict[str, Any]
    training: TrainingConfig = TrainingConfig()
    further: dict[str, FurtherModel] = Field(default_factory=dict)
    anomaly: AnomalyConfig = AnomalyConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    detectability: DetectabilityConfig = DetectabilityConfig()
    artefacts: ArtefactsConfig = ArtefactsConfig()
    exclude: tuple[str, ...] = ()
    without: tuple[tuple[str, ...], ...] = ()
    check_resources: bool = True

    @field_validator("exclude", mode="before")
    @classmethod
    def _ids(cls, value: Any) -> Any:
        """Ids of digits, which YAML takes for numbers.

        Raises:
            ValueError: If it is no list of ids.
        """
        if not isinstance(value, list | tuple) or not all(isinstance(entry, str | int) for entry in value):
            one = value if isinstance(value, str | int) else "case-12"
            raise ValueError(f"expected a list of case ids, such as 'exclude=[\"{one}\"]', found {value!r}")
        return [str(entry) for entry in value]

    @field_validator("without", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        """Channels without names are numbers, which YAML does not take for text."""
        if not isinstance(value, list | tuple):
            return value
        return [[str(name) for name in own] if isinstance(own, list | tuple) else own for own in value]

    @field_validator("further")
    @classmethod
    def _names(cls, value: dict[str, FurtherModel]) -> dict[str, FurtherModel]:
        for name in value:
            if not is_safe_id(name):
                raise ValueError(f"expected names of letters, digits, '.', '_' and '-', found {name[:40]!r}")
        return value

    @model_validator(mode="after")
    def _usable(self) -> AnomalyRunConfig:
        for own in self.models.values():
            check_family(own.model)
        if not exists(self.data):
            return self  # a run refuses it at once, and need not import torch for that
        # Known families only from here on: torch is imported to look at their settings.
        from medgen.models.catalogue import check_settings

        for own in self.models.values():
            check_settings(own.model, _ANY_SHAPE)
        return self

    def inputs(self) -> dict[str, Path]:
        """The folders of lesion masks."""
        found = {"evaluation.masks": self.evaluation.masks, "anomaly.validation.masks": self.anomaly.validation.masks}
        return {key: path for key, path in found.items() if path is not None}

    @property
    def models(self) -> dict[str, FurtherModel]:
        """All models of a fold by name; the main one first, under the name of its family."""
        main = FurtherModel(model=self.model, training=self.training)
        return {str(self.model.get("family")): main} | {f"{name} (further)": own for name, own in self.further.items()}


def refuse(config: AnomalyRunConfig, *, resume: bool = False, overwrite: bool = False) -> None:
    """Refuse what is known to be wrong before a scan is read: paths, scores that no model serves, lesion masks.

    Raises:
        ConfigError: If ``out`` or the executor cannot be used, or a score is unknown or needs what no model family
            offers.
        DataError: If an input is missing, or a folder of masks holds none.
    """
    preflight(config, resume=resume, overwrite=overwrite)
    from medgen.anomaly.ensemble import check_scores
    from medgen.models.catalogue import family_class

    config.spread.made()
    check_scores([family_class(own.model["family"]) for own in config.models.values()], config.anomaly)
    config.evaluation.check_masks()
    config.anomaly.validation.check_masks()
