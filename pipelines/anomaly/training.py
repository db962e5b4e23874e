"""The fold models of an anomaly run: trained, or taken over from the same run when it is only calibrated anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from medgen.models.artifact import TrainedModel
from medgen.models.base import ScanModel
from medgen.models.catalogue import build, settings_for
from medgen.preprocessing.dataset import Dataset
from medgen.preprocessing.recipe import Preprocess
from medgen.runs import tracking
from medgen.runs.folder import RunFolder
from medgen.seeds import derive
from medgen.system.files import read_json, sha256_json, write_json
from medgen.training.trainer import device_of, fit

if TYPE_CHECKING:
    from .config import AnomalyRunConfig

Histories = dict[str, list[dict[str, float]]]
LOSSES = "training.json"


def training_digest(
    config: AnomalyRunConfig, recipe: Preprocess, manifest_digest: str, held_out: Sequence[Sequence[str]]
) -> str:
    """SHA-256 of all that the trained models depend on; what is fitted on top of them is left out."""
    models = {name: own.model_dump(mode="json") for name, own in config.models.items()}
    what = {"models": models, "recipe": recipe.model_dump(mode="json"), "seed": config.seed}
    return sha256_json({**what, "manifest": manifest_digest, "held_out": [list(fold) for fold in held_out]})


def trained(
    config: AnomalyRunConfig,
    development: Dataset,
    held_out: Sequence[Sequence[str]],
    digest: str,
    folder: RunFolder,
    track: tracking.Run,
    *,
    resume: bool,
    progress: bool,
) -> tuple[list[list[ScanModel]], Histories]:
    """The models of every fold, each kind in the order of the configuration, and the losses of their trainings.

    A finished run has no checkpoints any more, but its weights: with ``resume`` they are used again where nothing that
    they depend on has changed, so that a calibration without some scans takes no training.
    """
    if (
        resume
        and not any(folder.checkpoints.glob("fold-*"))
        and folder.model.is_dir()
        and (folder.out / LOSSES).is_file()
    ):
        artifact = TrainedModel.load(folder.model, device_of(config.device))
        if artifact.meta.get("training_sha256") == digest:
            each = len(config.models)
            models = [list(artifact.models[start : start + each]) for start in range(0, len(artifact.models), each)]
            return models, read_json(folder.out / LOSSES)
    models, histories = _train(config, development, held_out, folder, track, resume=resume, progress=progress)
    write_json(folder.out / LOSSES, histories)
    return models, histories


def _train(
    config: AnomalyRunConfig,
    development: Dataset,
    held_out: Sequence[Sequence[str]],
    folder: RunFolder,
    track: tracking.Run,
    *,
    resume: bool,
    progress: bool,
) -> tuple[list[list[ScanModel]], Histories]:
    labels = 1 if development.labels is None else int(development.labels.max())
    models: list[list[ScanModel]] = [[] for _ in held_out]
    histories: Histories = {}
    for place, (kind, own) in enumerate(config.models.items()):
        settings = settings_for(own.model, development.shape, development.channels, labels)
        # The first model keeps the seeds and the folder it has when it is alone.
        key = [place] if place else []
        for number, held in enumerate(held_out):
            name = f"fold {number + 1}" if len(config.models) == 1 else f"{kind}, fold {number + 1}"
            training = development.subset([case for case in development.ids if case not in set(held)])
            with track.stage(f"train {name}") as stage:
                result = fit(
                    build(settings, seed=derive(config.seed, "weights", number, *key)),
                    training,
                    own.training,
                    seed=derive(config.seed, "training", number, *key),
                    device=config.device,
                    out=folder.checkpoints / "-".join(["fold", str(number), *map(str, key)]),
                    resume=resume,
                    log=stage.log_metrics,
                    title=f"{settings.family} fold {number + 1} of {len(held_out)}",
                    progress=progress,
                )
            models[number].append(result.model)
            histories[name] = result.history
    return models, histories
