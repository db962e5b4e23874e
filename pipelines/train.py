"""Train one generative model on a cohort and save it as an artifact."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medgen.data.cases import Manifest
from medgen.data.integrity import check_scans
from medgen.data.layouts.detect import load_cohort
from medgen.errors import ConfigError
from medgen.models.artifact import TrainedModel
from medgen.models.base import GenerativeModel, ModelConfig
from medgen.models.catalogue import build, parse_sampling, settings_for
from medgen.preprocessing.cache.cached_dataset import FEWEST
from medgen.report.figures.curves import training_curves
from medgen.report.figures.mosaic import mosaic
from medgen.report.html import Report
from medgen.report.methods.preparation import MODELS, networks, preparation, training
from medgen.report.methods.text import MethodsText, count
from medgen.report.start import source_tags, start_section
from medgen.runs.context import Output, Results, RunContext, start_run
from medgen.runs.folder import RunSummary
from medgen.runs.keys import TRAINING, Key
from medgen.seeds import torch_rng
from medgen.training.batches import Scans
from medgen.training.cost import (
    Estimate,
    check_memory,
    describe_memory,
    describe_sampling,
    describe_training,
    sampling_seconds,
    training_cost,
)
from medgen.training.trainer import FitResult, Log, fit, rank_of
from medgen.training.transfer.source import Lineage, recorded
from medgen.training.transfer.start import lineage_of, sentences
from medgen.volume import Volume

from . import patient_names
from .labelled import check_labelled
from .preflight import preflight
from .sources import check_sources
from .stages import Pipeline, Registered, Stage, cohort_to_plan, plan_lines
from .train_scans import Divide, Parts, Prepare, PreparedScans, TrainingScans, divided, prepare, recipe_of, split
from .train_settings import TrainRunConfig

LIMITS = "- Samples and reconstructions are as good as the cohort is large and uniform; nothing here is diagnostic."


@dataclass(frozen=True, eq=False)
class Trained:
    """A model and where it comes from.

    Attributes:
        fitted: The training.
        cases: The cases that it learnt from.
        sha256: Digest of the saved model.
    """

    fitted: FitResult
    cases: tuple[str, ...]
    sha256: str


class Train(Stage[TrainRunConfig]):
    """Trains the model and saves it with its recipe and template."""

    name = "training"
    needs = (Manifest, PreparedScans, TrainingScans)
    makes = (Trained,)
    keys = (
        Key("training.loss", "the last loss that was logged", "lower"),
        Key("training.validation", "the last loss on validation scans", "lower"),
        Key("training.steps", "optimiser steps"),
        Key("training.seconds", "time in the training loop, in seconds"),
        Key("training.scans", "scans that it learnt from"),
    )
    own_keys = TRAINING

    def estimate(
        self, config: TrainRunConfig, known: Results, before: Mapping[str, Estimate]
    ) -> Mapping[str, Estimate]:
        """Time and memory, measured on a few steps, and the time of a sample where the model makes any."""
        manifest = known[Manifest]
        first, labels = next(iter(manifest)), max(manifest.labels, default=0)
        mask = None if labels else first.read_mask()
        labels = labels if mask is None else int(mask.data.max())
        settings = _settings(config, len(first.read_image().data), labels)
        labels = getattr(settings, "n_labels", 0)
        cost = training_cost(settings, config.training, config.device, labels)
        each = sampling_seconds(settings, config.device, labels, parse_sampling(settings.family, config.sampling))
        lines = [
            describe_training(settings.family, cost),
            *([describe_sampling(settings.family, each)] if each else []),
        ]
        return {self.name: Estimate(cost.seconds, cost.bytes, tuple(lines), each)}

    def run(self, config: TrainRunConfig, results: Results, run: RunContext) -> Iterable[Any]:
        """See the class."""
        prepared, scans, manifest = results[PreparedScans], results[TrainingScans], results[Manifest]
        checkpoints, log = run.folder.checkpoints, run.stage.log_metrics
        fitted = _fit(scans, config, checkpoints, resume=run.resume, log=log, progress=run.progress)
        cases = scans.cases
        model = TrainedModel(
            models=[fitted.model],
            preprocess=prepared.recipe,
            template=prepared.template,
            meta={
                "kind": "generative",
                "seed": config.seed,
                "cases": list(cases),
                **recorded(lineage_of(Lineage.of_cases(manifest, cases), fitted.start)),
                "init": _start(fitted),
                "manifest_sha256": manifest.digest(),
                "steps": fitted.steps,
                "facts": [fact.record() for fact in fitted.model.facts()],
                **scans.facts,
            },
        )
        model.save(run.folder.model)
        run.track.set_tags({"medgen.model.sha256": model.sha256, **source_tags(_start(fitted))})
        return [Trained(fitted, cases, model.sha256)]

    def outputs(self) -> tuple[Output, ...]:
        """The model."""
        return (Output("model/", "the trained model with its recipe, as data", tracked=True),)

    def summary(self, results: Results) -> Mapping[str, Any]:
        """How the training ended."""
        fitted = results[Trained].fitted
        last: dict[str, float] = {}
        for record in fitted.history:
            last |= record
        return {
            "training.loss": next((value for name, value in last.items() if name.rpartition("/")[2] == "loss"), None),
            "training.validation": last.get("validation"),
            "training.steps": fitted.steps,
            "training.seconds": fitted.seconds,
            "training.scans": len(results[Trained].cases),
        }

    def models(self, config: TrainRunConfig, results: Results) -> Iterable[Registered]:
        """The model."""
        cohort, family = results[Manifest].name, results[Trained].fitted.model.family
        about = f"Model of the family {family}, trained on {cohort}"
        return [Registered(f"medgen-{family}-{cohort}", "model", results[Trained].sha256, "train", about)]

    def metrics(self, results: Results) -> Mapping[str, Any]:
        """What the model says about itself, and the last losses."""
        fitted = results[Trained].fitted
        last = {f"last.{name}": value for name, value in fitted.history[-1].items()}
        facts = {fact.name: fact.value for fact in fitted.model.facts()}
        made = {"steps": fitted.steps, "seconds": fitted.seconds, "model_sha256": results[Trained].sha256}
        sampling = fitted.model.sampling.model_dump(mode="json")
        return {**made, "sampling": sampling, "facts": facts, "init": _start(fitted), **last}

    def report(self, report: Report, results: Results, run: RunContext) -> None:
        """What the model says about itself, losses and samples."""
        fitted = results[Trained].fitted
        model = fitted.model
        report.section("Training")
        report.facts({"steps": fitted.steps, "parameters": model.parameter_count})
        start_section(report, _start(fitted))
        if facts := model.facts():
            report.text("\n".join(f"- {fact.text}" for fact in facts))
        curves = training_curves({model.family: fitted.history})
        report.figure(curves, "Losses over the optimiser steps.", "Training curves")
        if isinstance(model, GenerativeModel):
            report.section("Samples", "Drawn by the model. They show what it has learned, and are nobody's anatomy.")
            if options := model.sampling.model_dump():
                report.text(f"Options of sampling: {', '.join(f'{name} {value}' for name, value in options.items())}.")
            images = model.sample(2, torch_rng(run.seed, "report")).cpu().numpy()
            for number, image in enumerate(images, start=1):
                figure = mosaic(Volume(image, results[PreparedScans].recipe.canonical()), title=f"Sample {number}")
                planes = f"Orthogonal planes of sample {number}"
                report.figure(figure, f"Sample {number}, radiological convention.", planes)

    def methods(self, text: MethodsText, config: TrainRunConfig, results: Results) -> None:
        """The recipe, the model and its training."""
        trained = results[Trained]
        preparation(text, results[PreparedScans].recipe)
        networks(text, MODELS, [trained.fitted.model])
        training(text, MODELS, "It", config.training, 1)
        text.add(MODELS, f"It learnt from {count(len(trained.cases), 'scan')}.")

    def lines(self, results: Results, run: RunContext) -> list[str]:
        """How long it took."""
        fitted, cases = results[Trained].fitted, results[Trained].cases
        took = f"in {fitted.seconds:.0f} s"
        begun = _start(fitted)
        return [
            f"trained {fitted.model.family} for {fitted.steps} steps on {len(cases)} cases {took}",
            *([] if begun is None else [*sentences(begun), *begun["mismatches"]]),
        ]


PIPELINE = Pipeline[TrainRunConfig]([Prepare(), Divide(), Train()], given=(Manifest,))


def run(config: TrainRunConfig, *, resume: bool = False, overwrite: bool = False, progress: bool = False) -> RunSummary:
    """Read and prepare the cohort, train, save ``model/``, draw samples, report.

    Raises:
        MedgenError: If configuration, data or training are at fault; see the message.
    """
    return carry_out(config, PIPELINE, "train", divided, resume=resume, overwrite=overwrite, progress=progress)


def carry_out(
    config: TrainRunConfig,
    pipeline: Pipeline[Any],
    name: str,
    scans: Callable[[Scans, Parts], TrainingScans],
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> RunSummary:
    """One training run. Under ``torchrun`` every process prepares the cohort and trains its share; the first writes.

    Args:
        config: What to run.
        pipeline: Its stages.
        name: What it is called in MLflow.
        scans: What the stage between preparation and training makes, for processes other than the first.
        resume: Go on with an interrupted run.
        overwrite: Remove an earlier run first.
        progress: Show progress bars.

    Raises:
        MedgenError: If configuration, data or training are at fault; see the message.
    """
    if rank_of() == 0:
        preflight(config, resume=resume, overwrite=overwrite)
    manifest = load_cohort(config.data, config.cohort)
    check_labelled([config], manifest)
    if config.check_resources:
        settings = _settings(config, 1, max(manifest.labels, default=1))
        held = _held(config, len(manifest))
        check_memory(settings, config.training, config.device, held, getattr(settings, "n_labels", 0))
    if rank_of() > 0:
        parts = split(manifest, config)
        dataset = prepare(manifest, parts, config).dataset
        _fit(scans(dataset, parts), config, config.out / "checkpoints", resume=resume)
        return RunSummary(config.out, 0, ())
    patient_names.warn(manifest.named_by_folders)
    manifest = check_scans(manifest, config.workers)
    check_sources(config, manifest, _held_out(config, manifest), config.workers)
    patient_names.announce(manifest)
    with start_run(name, config, manifest, resume=resume, overwrite=overwrite, progress=progress) as context:
        results = Results([manifest])
        pipeline.run(config, results, context)
        report = Report(f"Training of {config.model['family']}", manifest.name, context.track.id)
        lines = pipeline.finish(config, report, LIMITS, results, context, manifest.named_by_folders)
    lines += [f"model:  {context.folder.model}", f"report: {context.folder.report}"]
    return RunSummary(config.out, 1 if results[PreparedScans].failures else 0, tuple(lines))


def plan(config: TrainRunConfig, *, resume: bool = False, overwrite: bool = False) -> list[str]:
    """What a run would do, and what it would cost: the lines of ``--dry-run``.

    Raises:
        MedgenError: If the run would refuse configuration, data or output folder.
    """
    manifest = cohort_to_plan(config, resume=resume, overwrite=overwrite)
    check_labelled([config], manifest)
    check_sources(config, manifest, _held_out(config, manifest), config.workers)
    recipe_of(config, split(manifest, config)["train"])
    channels, shape = len(next(iter(manifest)).read_image().data), config.preprocess.shape
    lines = [
        f"cohort: {len(manifest)} cases of {len(manifest.subjects)} subjects, {config.validation:.0%} for validation",
        f"grid: {' x '.join(map(str, shape))} voxels of {config.preprocess.spacing} mm",
        describe_memory(_held(config, len(manifest)) * math.prod(shape) * (channels + 1)),
        *(line for item in PIPELINE.estimates(config, Results([manifest])).values() for line in item.lines),
    ]
    return plan_lines(config, manifest, lines)


def _start(fitted: FitResult) -> dict[str, Any] | None:
    return None if fitted.start is None else fitted.start.record(fitted.model)


def _held_out(config: TrainRunConfig, manifest: Manifest) -> dict[str, Manifest]:
    return {name: part for name, part in split(manifest, config).items() if name != "train"}


def _held(config: TrainRunConfig, cases: int) -> int:
    """Scans that are in memory at a time: of a cohort on disk, those that the model is fitted to at first."""
    return cases if config.cache is None else min(cases, FEWEST)


def _settings(config: TrainRunConfig, channels: int, labels: int) -> ModelConfig:
    return settings_for(config.model, config.preprocess.shape, channels, labels)


def _fit(
    scans: TrainingScans,
    config: TrainRunConfig,
    checkpoints: Path,
    *,
    resume: bool,
    log: Log | None = None,
    progress: bool = False,
) -> FitResult:
    labels = max(data.highest_label for data in (scans.train, scans.validation) if data is not None)
    settings = _settings(config, scans.train.channels, labels)
    if labels > getattr(settings, "n_labels", labels):
        raise ConfigError(f"model.n_labels: the masks hold labels up to {labels}; leave it out, or set it to {labels}")
    model = build(settings, seed=config.seed)
    model.sampling = parse_sampling(settings.family, config.sampling)
    return fit(
        model,
        scans.train,
        config.training,
        seed=config.seed,
        device=config.device,
        out=checkpoints,
        validation=scans.validation,
        resume=resume,
        log=log,
        title=model.family,
        progress=progress,
    )
