"""Anomaly run: train on healthy scans out of fold, calibrate, evaluate on held-out subjects, report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from medgen.anomaly.artifact import to_artifact
from medgen.anomaly.comparison import measurement_file
from medgen.anomaly.comparison.methods import Comparison
from medgen.anomaly.detector import AnomalyDetector
from medgen.anomaly.evaluation import contamination
from medgen.anomaly.evaluation.detectability import detectability
from medgen.anomaly.evaluation.groups import CSV_COLUMNS as GROUP_COLUMNS
from medgen.anomaly.evaluation.groups import csv_rows, groups_of
from medgen.anomaly.evaluation.leverage import leverage_of
from medgen.anomaly.evaluation.measure import Measurement
from medgen.anomaly.evaluation.screening import Screening, screen
from medgen.anomaly.evaluation.summary import Summary, summarise
from medgen.data.cases import Manifest, kfold_subjects, write_splits
from medgen.data.integrity import check_scans
from medgen.data.layouts.detect import load_cohort
from medgen.models.base import ScanModel
from medgen.models.catalogue import settings_for
from medgen.preprocessing.automatic import fit_preprocess
from medgen.preprocessing.dataset import Dataset, Failure, prepare_dataset
from medgen.preprocessing.recipe import Preprocess, Template, build_template
from medgen.report.anomaly.detectability import write_detectability
from medgen.runs import tracking
from medgen.runs.folder import RunFolder, RunSummary, check_cohort, open_run
from medgen.runs.progress import Tick, bars
from medgen.seeds import derive
from medgen.system.files import plain, write_csv
from medgen.training.cost import check_memory

from .. import patient_names
from ..labelled import check_labelled
from .cohort import check_implants, split
from .config import AnomalyRunConfig, refuse
from .outputs import write_calibration
from .report import Checks, run_report
from .test_scans import evaluate
from .training import trained, training_digest


def run(
    config: AnomalyRunConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
    keep: bool = False,
) -> RunSummary:
    """Run the pipeline; ``out`` then holds heatmaps, tables, ``model/`` and ``report.html``.

    With ``keep`` also ``measurements.npz``, the voxel scores of all test scans, which benchmarks pool over runs; it
    takes two bytes per scored voxel, scan and row of the table, gigabytes for large test sets.

    Raises:
        MedgenError: If configuration or data are at fault, or the cohort is too small for the false-positive rate.
    """
    refuse(config, resume=resume, overwrite=overwrite)
    manifest, parts, recipe, folds = _intake(config, progress)
    with open_run(config.out, config, resume=resume, overwrite=overwrite) as folder, bars(progress) as tick:
        check_cohort(folder.out, manifest)
        patient_names.write_manifest(manifest, folder.out / "manifest.csv")
        write_splits(folder.out / "splits.csv", {**_named(folds), "test": parts["test"]})
        resolved, digest = config.model_dump(mode="json"), manifest.digest()
        with tracking.start("anomaly", folder.out, config=resolved, seed=config.seed, manifest_digest=digest) as track:
            with track.stage("prepare") as stage:
                development, test, template, failures = _prepare(config, recipe, parts, folder, tick)
                stage.log_metrics({"development": len(development), "test": len(test), "failures": len(failures)})
            listed = [(failure.case, "preprocess", failure.message) for failure in failures]
            folder.write_failures(listed)
            config.anomaly.check_subjects(len(set(development.subjects)))
            held_out = [[case.id for case in fold if case.id in set(development.ids)] for fold in folds]
            weights = training_digest(config, recipe, digest, held_out)
            models, histories = trained(
                config, development, held_out, weights, folder, track, resume=resume, progress=progress
            )
            healthy = development.subset([case for case in development.ids if case not in set(config.exclude)])
            with track.stage("calibrate") as stage:
                detector = _calibrated(config, healthy, held_out, models, recipe, template, tick)
                stage.log_metrics({"threshold": detector.calibration.threshold})
            write_calibration(folder.out, detector.calibration, list(dict.fromkeys(healthy.subjects)))
            provenance = _provenance(config, manifest, development, track.id)
            provenance |= {"excluded": list(config.exclude), "training_sha256": weights}
            artifact = to_artifact(detector, provenance)
            artifact.save(folder.model)
            screening = screen(detector.gate, test)
            folder.write_failures([*listed, *((case, "gate", reason) for case, reason in screening.refused)])
            with track.stage("evaluate") as stage:
                measurements, examples, files = evaluate(config, detector, healthy, screening.passed, folder, tick)
                summary = _summarise(config, measurements)
                stage.log_metrics(_flat(summary))
            if keep:
                measurement_file.save(folder.out / measurement_file.FILE, measurements)
            checks = _check(config, manifest, detector, healthy, screening, measurements, files, folder, track, tick)
            folder.write_metrics({**plain(summary), **_further(detector, checks, len(parts["test"]))})
            with track.stage("report"):
                report = run_report(
                    config, manifest, parts, detector, histories, summary, examples, failures, checks, track.id
                )
                report.write(folder.report)
            track.set_tags({"medgen.model.sha256": artifact.sha256, **_chosen(detector)})
            for path in (folder.model, folder.report, folder.out / "metrics.json", folder.out / "splits.csv"):
                track.log_file(path, "model" if path == folder.model else "")
            lines = _lines(folder, summary, failures, checks, track.store)
            return RunSummary(folder.out, 1 if failures or screening.refused else 0, lines)


def _intake(
    config: AnomalyRunConfig, progress: bool
) -> tuple[Manifest, dict[str, Manifest], Preprocess, list[Manifest]]:
    """The cohort with hashes, its parts, the recipe of its development scans, and the scans held out of each fold."""
    manifest = load_cohort(config.data, config.cohort)
    patient_names.warn(manifest.named_by_folders)
    check_labelled(config.models.values(), manifest)
    parts = split(config, manifest)
    with bars(progress) as tick:
        manifest = check_scans(manifest, config.workers, partial(tick, "checking scans"), masks=False)
    recipe = fit_preprocess(parts["development"], config.preprocess, config.max_side)
    check_implants(config, recipe)
    _check_resources(config, recipe, manifest)
    patient_names.announce(manifest)
    folds = kfold_subjects(parts["development"], config.anomaly.folds, derive(config.seed, "fold"))
    return manifest, parts, recipe, [held for _, held in folds]


def _check_resources(config: AnomalyRunConfig, recipe: Preprocess, manifest: Manifest) -> None:
    """Refuse trainings that will not fit into memory."""
    for own in config.models.values() if config.check_resources else ():
        settings = settings_for(own.model, recipe.shape, channels=1, labels=max(manifest.labels, default=1))
        check_memory(settings, own.training, config.device, len(manifest), getattr(settings, "n_labels", 0))


def _calibrated(
    config: AnomalyRunConfig,
    healthy: Dataset,
    held_out: Sequence[Sequence[str]],
    models: Sequence[Sequence[ScanModel]],
    recipe: Preprocess,
    template: Template | None,
    tick: Tick,
) -> AnomalyDetector:
    """The detector from the development scans that take part in the calibration."""
    folds = [[case for case in fold if case in set(healthy.ids)] for fold in held_out]
    return AnomalyDetector.fit(healthy, folds, models, config.anomaly, recipe, template, progress=tick)


def _prepare(
    config: AnomalyRunConfig, recipe: Preprocess, parts: Mapping[str, Manifest], folder: RunFolder, tick: Tick
) -> tuple[Dataset, Dataset, Template | None, list[Failure]]:
    template = None
    if recipe.align == "affine":
        template = build_template(
            [case.read_image() for case in parts["development"]],
            recipe,
            workers=config.workers,
            progress=partial(tick, "building the template"),
            register=folder.registrations,
        )
    prepared, failures = {}, []
    for name, part in parts.items():
        prepared[name], failed = prepare_dataset(
            part,
            recipe,
            template,
            config.workers,
            progress=partial(tick, f"preparing {name} scans"),
            register=folder.registrations,
        )
        failures += failed
    return prepared["development"], prepared["test"], template, failures


def _summarise(config: AnomalyRunConfig, measurements: Sequence[Measurement]) -> Summary:
    target = config.anomaly.calibration.target_fpr
    return summarise(measurements, target, config.evaluation.bootstrap, derive(config.seed, "bootstrap"))


def _chosen(detector: AnomalyDetector) -> dict[str, str]:
    tags = {"medgen.anomaly.channels": ", ".join(detector.config.fusion.channels)}
    return tags if detector.choice is None else {**tags, "medgen.anomaly.channel_choice": detector.choice.words}


def _check(
    config: AnomalyRunConfig,
    manifest: Manifest,
    detector: AnomalyDetector,
    development: Dataset,
    screening: Screening,
    measurements: Sequence[Measurement],
    files: Comparison,
    folder: RunFolder,
    track: tracking.Run,
    tick: Tick,
) -> Checks:
    """Suspect training scans, rates by group and the minimum detectable lesion, each with its table."""
    suspects = contamination.suspects(detector, development)
    write_csv(folder.out / "contamination.csv", [item.row() for item in suspects], contamination.COLUMNS)
    groups = groups_of(manifest, measurements, detector, development)
    if groups:
        write_csv(folder.out / "groups.csv", csv_rows(groups), GROUP_COLUMNS)
    smallest = None
    if config.detectability.enabled:
        with track.stage("detectability"):
            smallest = detectability(detector, screening.passed, config.detectability, config.seed, tick)
        write_detectability(folder.out / "detectability.csv", smallest)
    target = config.anomaly.calibration.target_fpr
    alone = leverage_of(detector.calibration, development.subjects, development.ids, target, measurements)
    return Checks(screening, groups, suspects, smallest, alone, files, config.exclude)


def _further(detector: AnomalyDetector, checks: Checks, test_scans: int) -> dict[str, Any]:
    """Entries of ``metrics.json`` beside the summary of the evaluation."""
    return {
        "preprocess": detector.preprocess.model_dump(mode="json"),
        "threshold": detector.calibration.threshold,
        "calibration_subjects": len(detector.calibration.maxima),
        "models": [
            {"family": model.family, "parameters": model.parameter_count} for model in detector.members[0].models
        ],
        "channels": list(detector.config.fusion.channels),
        "scan_score": detector.config.scan_score,
        "excluded": list(checks.excluded),
        "leverage": {**plain(checks.leverage), "decides": checks.leverage.decides},
        "suspects": [item.row() for item in checks.suspects],
        "own_grid": plain(checks.files),
        "choice": plain(detector.choice),
        "gate": checks.screening.to_plain(detector.gate, test_scans),
        "groups": plain(checks.groups),
        "detectability": plain(checks.smallest),
    }


def _provenance(config: AnomalyRunConfig, manifest: Manifest, development: Dataset, run_id: str) -> dict[str, Any]:
    """What the model is made from: the run, its configuration, and every development scan by id and hash."""
    used = set(development.ids)
    return {
        "run_id": run_id,
        "seed": config.seed,
        "config_sha256": config.digest(),
        "manifest_sha256": manifest.digest(),
        "cases": list(development.ids),
        "inputs": {
            case.id: {
                part: value for part, value in zip(("image", "mask"), manifest.hashes_of(case), strict=True) if value
            }
            for case in manifest
            if case.id in used
        },
    }


def _named(folds: Sequence[Manifest]) -> dict[str, Manifest]:
    return {f"fold-{number + 1}": fold for number, fold in enumerate(folds)}


def _flat(summary: Summary) -> dict[str, float]:
    """The numbers of a summary that MLflow shows: estimates by name."""
    numbers = {f"ap.{row.name}": row.ap.estimate for row in summary.voxel}
    numbers |= {f"auroc.{row.name}": row.auroc.estimate for row in summary.scan}
    numbers |= {"gain_over_best_baseline": summary.gain_raw.estimate, "gain_over_best_z": summary.gain_z.estimate}
    return {
        **numbers,
        "prevalence": summary.prevalence,
        "realised_fpr": summary.any_hot.estimate,
        "found": summary.found.estimate,
    }


def _lines(
    folder: RunFolder, summary: Summary, failures: Sequence[Failure], checks: Checks, store: str
) -> tuple[str, ...]:
    best = summary.row(summary.best_raw)
    lines = [
        f"findings: on {summary.found_scans} of {summary.implanted} implants, in "
        f"{summary.healthy_with_finding} of {summary.any_hot.n} healthy test subjects (aim: at "
        f"most {100 * summary.target_fpr:g} %)",
        f"voxel AP: fused {summary.fused.ap}, best baseline ({best.score}) {best.ap}, chance {summary.prevalence:.4f}",
        f"heatmaps: {folder.heatmaps}",
        f"model:    {folder.model}",
        f"report:   {folder.report}",
        f"MLflow:   {store}",
    ]
    if failures:
        lines.append(f"{len(failures)} scan(s) could not be prepared, see {folder.out / 'failures.csv'}")
    lines += [f"{case}: abstained: {reason}" for case, reason in checks.screening.refused]
    if checks.leverage.decides:
        lines.append(checks.leverage.words)
    if checks.suspects:
        where = folder.out / "contamination.csv"
        lines.append(f"{len(checks.suspects)} training scan(s) stand out, look at them before trusting: {where}")
    return tuple(lines)
