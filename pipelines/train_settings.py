"""What a training run is told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from medgen.config import Config
from medgen.models.families import check_family
from medgen.preprocessing.recipe import Preprocess
from medgen.runs.folder import RunConfig
from medgen.training.config import TrainingConfig

from .preflight import preflight


class CacheConfig(Config):
    """Where prepared scans are kept on disk.

    Attributes:
        folder: Prepared scans by the content of what they are made from; runs may share it.
        gib: GiB that may lie there; what was used longest ago goes first, but nothing of the last day.
    """

    folder: Path
    gib: float = Field(default=50.0, gt=0)


class TrainRunConfig(RunConfig):
    """One training run.

    Attributes:
        preprocess: How scans are brought to the model's grid.
        model: Settings of a model family, chosen by ``family``; shape, channels and labels follow from the data.
        sampling: Options by which the family samples, for the samples of the report and, kept with the weights, for all
            that are drawn later; the training does not depend on them.
        training: The training loop.
        validation: Share of the subjects that is kept out of training and looked at by ``training.validate_every``.
        cache: Keep prepared scans on disk as float16 and read batches from there, for cohorts that are larger than
            memory; by default they are held in memory.
        check_resources: Refuse a training that will not fit into memory.
    """

    out: Path = Path("runs/train")
    preprocess: Preprocess
    model: dict[str, Any]
    sampling: dict[str, Any] = Field(default_factory=dict)
    training: TrainingConfig = TrainingConfig()
    validation: float = Field(default=0.0, ge=0, lt=1)
    cache: CacheConfig | None = None
    check_resources: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> TrainRunConfig:
        check_family(self.model)
        # A known family only from here on: torch is imported to look at its settings.
        from medgen.models.catalogue import check_settings

        check_settings(self.model, self.preprocess.shape, self.sampling)
        if bool(self.training.validate_every) != bool(self.validation):
            raise ValueError(
                f"validation is {self.validation} and training.validate_every is {self.training.validate_every}; "
                "set both or neither"
            )
        return self


def refuse(config: TrainRunConfig, *, resume: bool = False, overwrite: bool = False) -> None:
    """Refuse what is known to be wrong before a scan is read; under ``torchrun`` the run itself does, once for all.

    Raises:
        MedgenError: As :func:`medgen.pipelines.preflight.preflight`.
    """
    if "RANK" not in os.environ:
        preflight(config, resume=resume, overwrite=overwrite)
