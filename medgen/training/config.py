"""How a model is trained: the settings of :mod:`medgen.training.trainer`, which can be read without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from medgen.config import Config
from medgen.system.precision_names import PrecisionName
from medgen.transforms.augmentation_config import AugmentConfig


class InitConfig(Config):
    """What a training starts from in place of random weights: a model that was trained before.

    A path alone stands for ``artifact``. How tensors are matched is said in :mod:`medgen.training.transfer.start`.

    Attributes:
        artifact: Folder of a trained model with a model of the same family.
        statistics: Whether buffers that describe scans, such as a mean scan, are measured on the scans at hand
            (``own``), or taken as far as they fit (``source``): for scans of the same anatomy on the same grid.
        leave: Patterns of tensor names that are not taken, such as ``decoder.*``.
        frozen: Patterns of names of taken weights that stay as they are.
        slow: Patterns of names of taken weights, each with a factor on their learning rate.
        other_people: The source learnt from other people than are held out here, though names may be the same, or
            though it does not say from whom. A file that it learnt from is refused all the same.
    """

    artifact: Path
    statistics: Literal["own", "source"] = "own"
    leave: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    slow: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    other_people: bool = False

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, given: Any) -> Any:
        return {"artifact": given} if isinstance(given, str | Path) else given


class TrainingConfig(Config):
    """How a model is trained.

    Attributes:
        steps: Optimiser steps of all stages together.
        batch_size: Cases per batch and process.
        accumulate: Batches per step and process, whose gradients are averaged before the optimiser uses them: the
            gradient of one batch so many times as large, where the loss is a mean over scans, in the memory of one.
        lr: Highest learning rate; it rises linearly over ``warmup`` of the steps and then follows a cosine to 0.
        lr_discriminator: Factor on ``lr`` for discriminators (two time-scales, Heusel et al. 2017).
        warmup: Share of the steps of a stage.
        betas: Decay of the optimiser's (AdamW's) running means of the gradient and of its square.
        weight_decay: Weight decay of AdamW.
        clip: Largest gradient norm per phase; 0 is off.
        ema: Decay of the exponential moving average of the weights (all but a discriminator's); 0 is off. It warms up
            as min(ema, (1 + t) / (10 + t)) in each stage.
        precision: ``auto`` is bfloat16 autocast where the device computes it natively, see
            :mod:`medgen.system.precision`.
        checkpoint_activations: Whether residual blocks compute their insides again in the backward pass instead of
            keeping them (Chen et al. 2016): the same gradients in less memory and more time. ``auto`` does so where a
            batch has more than four million voxels (two scans of 128³).
        compile: Compile the networks; pays on long GPU runs only (40 s and more to start).
        log_every: Steps between two records of the loss.
        validate_every: Steps between two looks at the validation cases; 0 is never.
        patience: Looks without improvement after which a stage stops, with the best weights; 0 is off.
        checkpoint_every: Steps between two checkpoints.
        augment: Random augmentation of every batch; none if absent.
        init: A trained model to start from, see :class:`InitConfig`; none if absent.
    """

    steps: int = Field(default=1000, ge=1)
    batch_size: int = Field(default=4, ge=1)
    accumulate: int = Field(default=1, ge=1)
    lr: float = Field(default=1e-3, gt=0)
    lr_discriminator: float = Field(default=1.0, gt=0)
    warmup: float = Field(default=0.05, ge=0, le=1)
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.99)
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float = Field(default=1.0, ge=0)
    ema: float = Field(default=0.999, ge=0, lt=1)
    precision: PrecisionName = "auto"
    checkpoint_activations: Literal["auto"] | bool = "auto"
    compile: bool = False
    log_every: int = Field(default=10, ge=1)
    validate_every: int = Field(default=0, ge=0)
    patience: int = Field(default=0, ge=0)
    checkpoint_every: int = Field(default=500, ge=1)
    augment: AugmentConfig | None = None
    init: InitConfig | None = None
