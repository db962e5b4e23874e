"""The models of every fold: trained, or taken over from the same run when it is only calibrated anew."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from medgen.data.cases import Manifest
from medgen.data.layouts.by_file_name import safe_id
from medgen.models.artifact import TrainedModel
from medgen.models.base import ModelConfig, ScanModel
from medgen.models.catalogue import build, settings_for
from medgen.preprocessing.dataset import Dataset
from medgen.preprocessing.parts import PreparedParts
from medgen.preprocessing.recipe import Preprocess
from medgen.progress import Log
from medgen.report.anomaly.cohort import training_section
from medgen.report.html import Report
from medgen.report.methods.preparation import MODELS, networks, training
from medgen.report.methods.text import MethodsText
from medgen.report.start import source_tags, start_section
from medgen.runs.cases.executors import USUAL
from medgen.runs.cases.map_cases import Item, map_cases
from medgen.runs.context import Output, Results, RunContext
from medgen.runs.folder import RunFolder
from medgen.runs.keys import TRAINING
from medgen.system.files import read_json, sha256_json, write_json
from medgen.system.precision import calibrated_precision
from medgen.system.processes import torch_threads
from medgen.training.cost import Estimate, describe_training, training_cost
from medgen.training.trainer import device_of, fit
from medgen.training.transfer.source import LINEAGE, Lineage
from medgen.training.transfer.start import Start, lineage_of

from ...stages import Stage
from ..cohort import AnomalyCohort
from ..config import AnomalyRunConfig

Done = tuple["FoldTask", ScanModel, "Trained"]
Histories = dict[str, list[dict[str, float]]]
LOSSES = "training.json"


@dataclass(frozen=True, eq=False)
class FoldModels:
    """The trained models of all folds.

    Attributes:
        models: The models of every fold, the kinds in the order of the configuration.
        histories: Losses of every training, by its name.
        held_out: Ids of the development scans that each fold's models have not seen.
        digest: SHA-256 of all that the models depend on.
        starts: Of every kind of model that started from a trained one, the record of its start in the first fold.
        lineage: From whom the models have learnt, those that they started from included; None where one does not say.
        bf16: Whether all were trained in bfloat16.
    """

    models: Sequence[Sequence[ScanModel]]
    histories: Histories
    held_out: Sequence[Sequence[str]]
    digest: str
    starts: Mapping[str, Mapping[str, Any]]
    lineage: Lineage | None
    bf16: bool


class Train(Stage[AnomalyRunConfig]):
    """Trains the models of every fold on the development scans outside of it.

    A finished run has no checkpoints any more, but its weights: with ``--resume`` they are used again where nothing
    that they depend on has changed, so that a calibration without some scans takes no training.
    """

    name = "train"
    needs = (Manifest, AnomalyCohort, PreparedParts)
    makes = (FoldModels,)

    def estimate(
        self, config: AnomalyRunConfig, known: Results, before: Mapping[str, Estimate]
    ) -> Mapping[str, Estimate]:
        """Time and memory of every kind of model, measured on a few steps."""
        manifest, recipe = known[Manifest], known[AnomalyCohort].recipe
        channels, folds = len(next(iter(manifest)).read_image().data), config.anomaly.folds
        found = {}
        for name, own in config.models.items():
            settings = settings_for(own.model, recipe.shape, channels, labels=max(manifest.labels, default=1))
            cost = training_cost(settings, own.training, config.device, getattr(settings, "n_labels", 0))
            line = describe_training(settings.family, cost, folds)
            found[f"train {name}"] = Estimate(folds * cost.seconds, cost.bytes, (line,))
        if lines := config.spread_lines("trainings", folds * len(config.models)):
            found["train elsewhere"] = Estimate(0.0, 0.0, tuple(lines))
        return found

    def run(self, config: AnomalyRunConfig, results: Results, run: RunContext) -> Iterable[Any]:
        """See the class."""
        cohort, development = results[AnomalyCohort], results[PreparedParts].data["development"]
        prepared = {*development.ids}
        held_out = [[case.id for case in fold if case.id in prepared] for fold in cohort.folds]
        digest = _digest(config, cohort.recipe, results[Manifest].digest(), held_out)
        finished = _finished(config, digest, held_out, run.folder) if run.resume else None
        if finished is not None:
            return [finished]
        trained = train_folds(config, results[Manifest], development, held_out, digest, run)
        write_json(run.folder.out / LOSSES, trained.histories)
        run.track.set_tags(source_tags(*trained.starts.values()))
        return [trained]

    own_keys = TRAINING

    def outputs(self) -> tuple[Output, ...]:
        """The losses."""
        return (Output(LOSSES, "the losses of every training, by optimiser step"),)

    def metrics(self, results: Results) -> Mapping[str, Any]:
        """The models of a fold."""
        trained = results[FoldModels]
        models = [{"family": model.family, "parameters": model.parameter_count} for model in trained.models[0]]
        return {"models": models, "init": trained.starts}

    def report(self, report: Report, results: Results, run: RunContext) -> None:
        """The models and their losses."""
        trained = results[FoldModels]
        training_section(report, trained.models[0], trained.histories)
        for name, record in trained.starts.items():
            start_section(report, record, name)

    def methods(self, text: MethodsText, config: AnomalyRunConfig, results: Results) -> None:
        """The models of a fold and their trainings."""
        trained = results[FoldModels]
        networks(text, MODELS, trained.models[0])
        for name, own in config.models.items():
            training(text, MODELS, f"`{name}`", own.training, len(trained.models))


def _digest(
    config: AnomalyRunConfig, recipe: Preprocess, manifest_digest: str, held_out: Sequence[Sequence[str]]
) -> str:
    """SHA-256 of all that the trained models depend on; what is fitted on top of them is left out."""
    models = {name: own.model_dump(mode="json", exclude={"training": {"init"}}) for name, own in config.models.items()}
    # A source counts by its content, wherever it lies.
    inits = {name: own.training.init for name, own in config.models.items() if own.training.init is not None}
    sources = {
        name: Start.fingerprint_of(init, TrainedModel.load(init.artifact).sha256) for name, init in inits.items()
    }
    what = {"models": models, "recipe": recipe.model_dump(mode="json"), "seed": config.seed}
    what |= {"sources": sources} if sources else {}
    return sha256_json({**what, "manifest": manifest_digest, "held_out": [list(fold) for fold in held_out]})


def _finished(
    config: AnomalyRunConfig, digest: str, held_out: Sequence[Sequence[str]], folder: RunFolder
) -> FoldModels | None:
    """The models of the finished run in this folder, if they depend on the same; else None."""
    under_way = any(folder.checkpoints.glob("fold-*"))
    if under_way or not (folder.out / LOSSES).is_file():
        return None
    return kept_folds(config, digest, held_out, folder.model, read_json(folder.out / LOSSES))


def kept_folds(
    config: AnomalyRunConfig, digest: str, held_out: Sequence[Sequence[str]], model: Path, histories: Histories
) -> FoldModels | None:
    """The models of an artifact of this run, if they depend on the same; else None."""
    if not model.is_dir():
        return None
    artifact = TrainedModel.load(model, device_of(config.device))
    if artifact.meta.get("training_sha256") != digest or not artifact.models:
        return None
    each = len(config.models)
    models = [list(artifact.models[start : start + each]) for start in range(0, len(artifact.models), each)]
    meta = artifact.meta
    starts, lineage = meta.get("init") or {}, Lineage.of(meta.get(LINEAGE))
    bf16 = calibrated_precision(meta.get("precision", "32"), device_of(config.device)).bf16
    return FoldModels(models, histories, held_out, digest, starts, lineage, bf16)


def train_folds(
    config: AnomalyRunConfig,
    manifest: Manifest,
    development: Dataset,
    held_out: Sequence[Sequence[str]],
    digest: str,
    run: RunContext,
    purpose: str = "",
) -> FoldModels:
    """Train every kind of model on the scans outside of each fold.

    Args:
        config: What to run.
        manifest: The cohort.
        development: The prepared development scans.
        held_out: Ids that each fold's models may not see.
        digest: SHA-256 of all that the models depend on.
        run: The run.
        purpose: Names seeds, checkpoints and curves, where a run trains more than one such set.
    """
    labels = 1 if development.labels is None else int(development.labels.max())
    tasks: list[FoldTask] = []
    for place, (kind, own) in enumerate(config.models.items()):
        settings = settings_for(own.model, development.shape, development.channels, labels)
        # The first model keeps the seeds and the folder it has when it is alone.
        key: list[str | int] = [*([purpose] if purpose else []), *([place] if place else [])]
        for number, held in enumerate(held_out):
            name = f"fold {number + 1}" if len(config.models) == 1 else f"{kind}, fold {number + 1}"
            shown = f"{settings.family} fold {number + 1} of {len(held_out)}"
            tasks.append(
                FoldTask(
                    name=f"{name}, {purpose}" if purpose else name,
                    title=f"{shown}, {purpose}" if purpose else shown,
                    kind=kind,
                    fold=number,
                    settings=settings,
                    held=tuple(held),
                    weights=run.derive("weights", number, *key),
                    seed=run.derive("training", number, *key),
                    out=run.checkpoints(safe_id("-".join(["fold", str(number), *map(str, key)]))),
                )
            )
    function = TrainFold(config, development, torch.get_num_threads())
    here = config.executor == USUAL
    done = _one_by_one(function, tasks, run) if here else _spread(function, tasks, digest, run, purpose)
    models: list[list[ScanModel]] = [[] for _ in held_out]
    histories: Histories = {}
    starts: dict[str, dict[str, Any]] = {}
    bf16 = True
    for task, model, trained in done:
        models[task.fold].append(model)
        histories[task.name] = trained.history
        bf16 &= trained.bf16
        if trained.start is not None:
            starts.setdefault(task.kind, trained.start)
    lineage: Lineage | None = Lineage.of_cases(manifest, development.ids)
    for place, own in enumerate(config.models.values()):
        # What one fold has started from all have.
        init = own.training.init
        lineage = lineage_of(lineage, None if init is None else Start.of(models[0][place], init))
    return FoldModels(models, histories, held_out, digest, starts, lineage, bf16)


@dataclass(frozen=True)
class FoldTask:
    """One training: of a kind of model, without the scans of a fold.

    Attributes:
        name: In MLflow and in the losses.
        title: Beside the progress bar.
        kind: Of the model, as the configuration names it.
        fold: From 0.
        settings: Of the model.
        held: Cases that it may not see.
        weights, seed: Seeds of the first weights and of the training.
        out: Folder of its checkpoint.
    """

    name: str
    title: str
    kind: str
    fold: int
    settings: ModelConfig
    held: tuple[str, ...]
    weights: int
    seed: int
    out: Path


@dataclass(frozen=True)
class Trained:
    """What is told of a training beside its model, plain data.

    Attributes:
        history: Its losses.
        bf16: Whether it was done in bfloat16.
        start: The record of its start from a trained model; None where it began anew.
    """

    history: list[dict[str, float]]
    bf16: bool
    start: dict[str, Any] | None


@dataclass(frozen=True)
class TrainFold:
    """Trains a model of a fold, in whichever process.

    Attributes:
        config: What to run.
        development: The prepared development scans.
        threads: Of torch: with another number, sums are added up in another order.
    """

    config: AnomalyRunConfig
    development: Dataset
    threads: int

    def train(self, task: FoldTask, log: Log, resume: bool, progress: bool) -> tuple[ScanModel, Trained]:
        """Train it, from its checkpoint on where it may."""
        held = set(task.held)
        result = fit(
            build(task.settings, seed=task.weights),
            self.development.subset([case for case in self.development.ids if case not in held]),
            self.config.models[task.kind].training,
            seed=task.seed,
            device=self.config.device,
            out=task.out,
            resume=resume,
            log=log,
            title=task.title,
            progress=progress,
        )
        start = None if result.start is None else result.start.record(result.model)
        return result.model, Trained(result.history, result.bf16, start)

    def __call__(self, task: FoldTask, place: Path) -> dict[str, Any]:
        """Train it as a shard: the model below ``place``, all else as plain data.

        A worker that takes over from one that has died goes on from its checkpoint.
        """
        logged: list[tuple[dict[str, float], int]] = []
        with torch_threads(self.threads):
            model, trained = self.train(task, lambda numbers, step: logged.append((dict(numbers), step)), True, False)
        grid = Preprocess(shape=self.development.shape, spacing=self.development.prepared[0].grid.spacing)
        TrainedModel([model.to("cpu")], grid).save(place / task.out.name)
        return {**asdict(trained), "logged": logged}


def _one_by_one(function: TrainFold, tasks: Sequence[FoldTask], run: RunContext) -> Iterator[Done]:
    """Train here, one after the other."""
    for task in tasks:
        with run.child(f"train {task.name}") as child:
            yield task, *function.train(task, child.stage.log_metrics, run.resume, run.progress)


def _spread(
    function: TrainFold, tasks: Sequence[FoldTask], digest: str, run: RunContext, purpose: str
) -> Iterator[Done]:
    """Train on other machines, each task a shard; what is told of it comes into the run in the order of the tasks."""
    config, by_name = function.config, {task.name: task for task in tasks}
    shards, models = (run.checkpoints(safe_id(f"{what} {purpose}".strip())) for what in ("trainings", "trained"))
    with run.bars() as tick:
        found = map_cases(
            function,
            (Item(task.name, task, {"all": sha256_json([digest, task.name])}) for task in tasks),
            count=len(tasks),
            folder=shards,
            settings={"work": "trainings of folds", "digest": digest},
            spread=replace(config.spread, shards=len(tasks)),
            out=models,
            run=run.stage,
            progress=lambda done, total: tick("training", done, total),
        )
        for name, data in found:
            task = by_name[name]
            with run.child(f"train {name}") as child:
                for numbers, step in data.pop("logged"):
                    child.stage.log_metrics(numbers, step)
            artifact = TrainedModel.load(models / task.out.name, device_of(config.device))
            yield task, artifact.models[0], Trained(**data)
    for folder in (shards, models):
        shutil.rmtree(folder, ignore_errors=True)
