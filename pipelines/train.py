"""Train one generative model on a cohort and save it as an artifact."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from medgen.data.account import account
from medgen.data.cases import Manifest, split_subjects, write_splits
from medgen.data.integrity import check_scans
from medgen.data.layouts.detect import load_cohort
from medgen.errors import ConfigError
from medgen.models.artifact import TrainedModel
from medgen.models.base import GenerativeModel, ModelConfig
from medgen.models.catalogue import build, settings_for
from medgen.preprocessing.dataset import Dataset, Failure, prepare_dataset
from medgen.preprocessing.recipe import Template, build_template
from medgen.report.figures.curves import training_curves
from medgen.report.figures.mosaic import mosaic
from medgen.report.html import Report
from medgen.runs import tracking
from medgen.runs.folder import RunFolder, RunSummary, check_cohort, open_run
from medgen.seeds import derive, torch_rng
from medgen.training.cost import check_memory, describe_memory, describe_training, training_cost
from medgen.training.trainer import FitResult, Log, fit, rank_of
from medgen.transforms.affine_registration import register_affine
from medgen.transforms.kept_registrations import Register
from medgen.volume import Volume

from . import patient_names
from .labelled import check_labelled
from .preflight import preflight
from .train_settings import TrainRunConfig

LIMITS = "- Samples and reconstructions are as good as the cohort is large and uniform; nothing here is diagnostic."


def run(config: TrainRunConfig, *, resume: bool = False, overwrite: bool = False, progress: bool = False) -> RunSummary:
    """Read and prepare the cohort, train, save ``model/``, draw samples, report.

    Under ``torchrun`` every process prepares the cohort and trains its share; the first alone writes.

    Raises:
        MedgenError: If configuration, data or training are at fault; see the message.
    """
    if rank_of() == 0:
        preflight(config, resume=resume, overwrite=overwrite)
    manifest = load_cohort(config.data, config.cohort)
    check_labelled([config], manifest)
    if config.check_resources:
        settings = _settings(config, 1, max(manifest.labels, default=1))
        check_memory(settings, config.training, config.device, len(manifest), getattr(settings, "n_labels", 0))
    if rank_of() > 0:
        parts = _split(manifest, config)
        _, dataset, _ = _prepare(manifest, parts, config)
        _fit(dataset, parts, config, config.out / "checkpoints", resume=resume)
        return RunSummary(config.out, 0, ())
    patient_names.warn(manifest.named_by_folders)
    manifest = check_scans(manifest, config.workers)
    patient_names.announce(manifest)
    with open_run(config.out, config, resume=resume, overwrite=overwrite) as folder:
        check_cohort(folder.out, manifest)
        patient_names.write_manifest(manifest, folder.out / "manifest.csv")
        parts = _split(manifest, config)
        write_splits(folder.out / "splits.csv", parts)
        with tracking.start(
            "train",
            folder.out,
            config=config.model_dump(mode="json"),
            seed=config.seed,
            manifest_digest=manifest.digest(),
        ) as track:
            return _tracked(config, manifest, parts, folder, track, resume=resume, progress=progress)


def plan(config: TrainRunConfig, *, resume: bool = False, overwrite: bool = False) -> list[str]:
    """What a run would do, and what it would cost: the lines of ``--dry-run``.

    Raises:
        MedgenError: If the run would refuse configuration, data or output folder.
    """
    preflight(config, resume=resume, overwrite=overwrite)
    manifest = load_cohort(config.data, config.cohort)
    check_labelled([config], manifest)
    if resume:
        check_cohort(config.out, manifest.with_hashes(config.workers))
    first = next(iter(manifest))
    labels = max(manifest.labels, default=0)
    if not labels and first.mask is not None:
        labels = int(_labels_of(first.read_mask()))
    channels = len(first.read_image().data)
    settings = _settings(config, channels, labels)
    voxels = math.prod(config.preprocess.shape)
    estimate = training_cost(settings, config.training, config.device, getattr(settings, "n_labels", 0))
    return [
        *account(manifest),
        f"cohort: {len(manifest)} cases of {len(manifest.subjects)} subjects, {config.validation:.0%} for validation",
        f"grid: {' x '.join(map(str, config.preprocess.shape))} voxels of {config.preprocess.spacing} mm",
        describe_memory(len(manifest) * voxels * (channels + 1)),
        describe_training(settings.family, estimate),
        f"output: {config.out}",
        tracking.place(config.out),
    ]


def _tracked(
    config: TrainRunConfig,
    manifest: Manifest,
    parts: Mapping[str, Manifest],
    folder: RunFolder,
    track: tracking.Run,
    *,
    resume: bool,
    progress: bool,
) -> RunSummary:
    template, dataset, failures = _prepare(manifest, parts, config, folder.registrations)
    folder.write_failures((failure.case, "preprocess", failure.message) for failure in failures)
    with track.stage("training") as stage:
        log = stage.log_metrics
        result = _fit(dataset, parts, config, folder.checkpoints, resume=resume, log=log, progress=progress)
    parents = [case.id for case in parts["train"] if case.id in set(dataset.ids)]
    model = TrainedModel(
        models=[result.model],
        preprocess=config.preprocess,
        template=template,
        meta={
            "kind": "generative",
            "seed": config.seed,
            "cases": parents,
            "manifest_sha256": manifest.digest(),
            "steps": result.steps,
        },
    )
    model.save(folder.model)
    last = {f"last.{name}": value for name, value in result.history[-1].items()}
    folder.write_metrics({"steps": result.steps, "seconds": result.seconds, "model_sha256": model.sha256, **last})
    _report(config, manifest, parts, result, failures, track.id).write(folder.report)
    track.set_tags({"medgen.model.sha256": model.sha256})
    track.log_file(folder.model, "model")
    track.log_file(folder.report)
    track.log_file(folder.out / "manifest.csv")
    lines = [
        f"trained {result.model.family} for {result.steps} steps on {len(parents)} cases in {result.seconds:.0f} s",
        f"model:  {folder.model}",
        f"report: {folder.report}",
    ]
    if failures:
        lines.append(f"{len(failures)} case(s) could not be prepared, see {folder.out / 'failures.csv'}")
    return RunSummary(folder.out, 1 if failures else 0, tuple(lines))


def _settings(config: TrainRunConfig, channels: int, labels: int) -> ModelConfig:
    return settings_for(config.model, config.preprocess.shape, channels, labels)


def _labels_of(mask: Volume | None) -> int:
    return 0 if mask is None else int(mask.data.max())


def _split(manifest: Manifest, config: TrainRunConfig) -> dict[str, Manifest]:
    if not config.validation:
        return {"train": manifest}
    shares = {"train": 1 - config.validation, "validation": config.validation}
    return split_subjects(manifest, shares, derive(config.seed, "split"))


def _prepare(
    manifest: Manifest,
    parts: Mapping[str, Manifest],
    config: TrainRunConfig,
    register: Register = register_affine,
) -> tuple[Template | None, Dataset, list[Failure]]:
    template = None
    if config.preprocess.align == "affine":
        scans = [case.read_image() for case in parts["train"]]
        template = build_template(scans, config.preprocess, workers=config.workers, register=register)
    dataset, failures = prepare_dataset(manifest, config.preprocess, template, config.workers, register=register)
    return template, dataset, failures


def _fit(
    dataset: Dataset,
    parts: Mapping[str, Manifest],
    config: TrainRunConfig,
    checkpoints: Path,
    *,
    resume: bool,
    log: Log | None = None,
    progress: bool = False,
) -> FitResult:
    prepared = set(dataset.ids)
    subsets = {name: dataset.subset([case.id for case in part if case.id in prepared]) for name, part in parts.items()}
    labels = 0 if dataset.labels is None else int(dataset.labels.max())
    settings = _settings(config, dataset.channels, labels)
    if labels > getattr(settings, "n_labels", labels):
        raise ConfigError(f"model.n_labels: the masks hold labels up to {labels}; leave it out, or set it to {labels}")
    model = build(settings, seed=config.seed)
    return fit(
        model,
        subsets["train"],
        config.training,
        seed=config.seed,
        device=config.device,
        out=checkpoints,
        validation=subsets.get("validation"),
        resume=resume,
        log=log,
        title=model.family,
        progress=progress,
    )


def _report(
    config: TrainRunConfig,
    manifest: Manifest,
    parts: Mapping[str, Manifest],
    result: FitResult,
    failures: list[Failure],
    run_id: str,
) -> Report:
    report = Report(f"Training of {result.model.family}", manifest.name, run_id)
    report.section("Cohort")
    rows = [(name, len(part), len(part.subjects)) for name, part in parts.items()]
    report.table(["part", "cases", "subjects"], rows)
    patient_names.taken(report, manifest)
    if failures:
        report.table(["case", "reason"], [(failure.case, failure.message) for failure in failures], "Left out")
    report.section("Training")
    report.facts({"steps": result.steps, "seconds": round(result.seconds), "parameters": result.model.parameter_count})
    curves = training_curves({result.model.family: result.history})
    report.figure(curves, "Losses over the optimiser steps.", "Training curves")
    if isinstance(result.model, GenerativeModel):
        report.section("Samples", "Drawn by the model. They show what it has learned, and are nobody's anatomy.")
        images = result.model.sample(2, torch_rng(config.seed, "report")).cpu().numpy()
        for number, image in enumerate(images, start=1):
            figure = mosaic(Volume(image, config.preprocess.canonical()), title=f"Sample {number}")
            report.figure(figure, f"Sample {number}, radiological convention.", f"Orthogonal planes of sample {number}")
    report.section("Limits", patient_names.limits(LIMITS, manifest.named_by_folders))
    return report
