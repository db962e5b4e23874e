"""What a pretraining is told."""

from __future__ import annotations

from pathlib import Path

from pydantic import model_validator

from medgen.transforms.painting_config import PaintingConfig

from .train_settings import TrainRunConfig, refuse

__all__ = ["PretrainRunConfig", "refuse"]


class PretrainRunConfig(TrainRunConfig):
    """One pretraining: a training run on painted scans.

    Attributes:
        painting: How label maps are painted.
    """

    out: Path = Path("runs/pretrain")
    painting: PaintingConfig = PaintingConfig()

    @model_validator(mode="after")
    def _no_validation(self) -> PretrainRunConfig:
        if self.validation:
            raise ValueError("validation: painted scans are all for training; set validation and validate_every to 0")
        if self.cache is not None:
            raise ValueError("cache: painted scans are held in memory; leave it out")
        return self
