"""Anomaly run: train on healthy scans out of fold, calibrate, evaluate on held-out subjects, report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from medgen import tracking
from medgen.anomaly import contamination, kept
from medgen.anomaly.detectability import detectability
from medgen.anomaly.detector import AnomalyDetector
from medgen.anomaly.evaluation import HEALTHY, Measurement, TestScan, measure, scans_to_test
from medgen.anomaly.pseudohealthy import as_seen
from medgen.anomaly.screening import Screening, screen
from medgen.anomaly.screening import as_json as screening_json
from medgen.anomaly.storage import to_artifact
from medgen.anomaly.summary import Summary, as_json, summarise
from medgen.cases import Manifest, kfold_subjects, split_subjects, write_splits
from medgen.costs import check_memory, describe_memory, describe_training, training_cost
from medgen.dataset import Dataset, Failure, prepare_dataset
from medgen.files import write_csv
from medgen.integrity import admit as sound
from medgen.layouts import load_cohort
from medgen.models import ScanModel, build, settings_for
from medgen.preprocess import Prepared, Preprocess, Template, build_template
from medgen.recipe import fit_preprocess
from medgen.seeds import derive
from medgen.training import fit
from medgen.volume import Volume

from . import names
from .anomaly_outputs import ScanFiles
from .anomaly_report import Checks, Example, run_report
from .anomaly_score import score
from .anomaly_sections import write_detectability
from .anomaly_sections_groups import COLUMNS as GROUP_COLUMNS
from .anomaly_sections_groups import csv_rows, groups_of
from .anomaly_settings import AnomalyRunConfig, refuse
from .labelled import check_labelled
from .progress import Tick, bars
from .runfolder import RunFolder, RunSummary, check_cohort, open_run

__all__ = ["AnomalyRunConfig", "plan", "run", "score"]


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
    manifest = load_cohort(config.data, config.cohort)
    names.warn(manifest.named_by_folders)
    check_labelled(config.models.values(), manifest)
    parts = split_subjects(
        manifest, {"development": 1 - config.test, "test": config.test}, derive(config.seed, "split")
    )
    config.anomaly.check_subjects(len(parts["development"].subjects))
    with bars(progress) as tick:
        manifest = sound(manifest, config.workers, partial(tick, "checking scans"), masks=False)
    recipe = fit_preprocess(parts["development"], config.preprocess, config.max_side)
    if config.check_resources:
        for own in config.models.values():
            settings = settings_for(own.model, recipe.shape, channels=1, labels=max(manifest.labels, default=1))
            check_memory(settings, own.training, config.device, len(manifest), getattr(settings, "n_labels", 0))
    folds = [
        held for _, held in kfold_subjects(parts["development"], config.anomaly.folds, derive(config.seed, "fold"))
    ]
    with open_run(config.out, config, resume=resume, overwrite=overwrite) as folder, bars(progress) as tick:
        check_cohort(folder.out, manifest)
        names.write_manifest(manifest, folder.out / "manifest.csv")
        write_splits(folder.out / "splits.csv", {**_named(folds), "test": parts["test"]})
        resolved, digest = config.model_dump(mode="json"), manifest.digest()
        with tracking.start("anomaly", folder.out, config=resolved, seed=config.seed, manifest_digest=digest) as track:
            with track.stage("prepare") as stage:
                development, test, template, failures = _prepare(config, recipe, parts, tick)
                stage.log_metrics({"development": len(development), "test": len(test), "failures": len(failures)})
            listed = [(failure.case, "preprocess", failure.message) for failure in failures]
            folder.write_failures(listed)
            config.anomaly.check_subjects(len(set(development.subjects)))
            held_out = [[case.id for case in fold if case.id in set(development.ids)] for fold in folds]
            models, histories = _train(config, development, held_out, folder, track, resume=resume, progress=progress)
            with track.stage("calibrate") as stage:
                detector = AnomalyDetector.fit(
                    development, held_out, models, config.anomaly, recipe, template, progress=tick
                )
                stage.log_metrics({"threshold": detector.calibration.threshold})
            artifact = to_artifact(detector, _provenance(config, manifest, development, track.id))
            artifact.save(folder.model)
            screening = screen(detector.gate, test)
            folder.write_failures([*listed, *((case, "gate", reason) for case, reason in screening.refused)])
            with track.stage("evaluate") as stage:
                measurements, examples = _evaluate(config, detector, development, screening.passed, folder, tick)
                summary = _summarise(config, measurements)
                stage.log_metrics(_flat(summary))
            if keep:
                kept.save(folder.out / kept.FILE, measurements)
            checks = _check(config, manifest, detector, development, screening, measurements, folder, track, tick)
            folder.write_metrics({**as_json(summary), **_further(detector, checks, len(parts["test"]))})
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


def plan(config: AnomalyRunConfig, *, resume: bool = False, overwrite: bool = False) -> list[str]:
    """What a run would do and cost: the lines of ``--dry-run``.

    Raises:
        MedgenError: If the run would refuse configuration, data, further inputs or output folder.
    """
    refuse(config, resume=resume, overwrite=overwrite)
    manifest = load_cohort(config.data, config.cohort)
    check_labelled(config.models.values(), manifest)
    if resume:
        check_cohort(config.out, manifest.with_hashes(config.workers))
    parts = split_subjects(
        manifest, {"development": 1 - config.test, "test": config.test}, derive(config.seed, "split")
    )
    subjects = len(parts["development"].subjects)
    config.anomaly.check_subjects(subjects)
    channels = len(next(iter(manifest)).read_image().data)
    recipe = fit_preprocess(parts["development"], config.preprocess, config.max_side)
    voxels = math.prod(recipe.shape)
    trainings = []
    for own in config.models.values():
        settings = settings_for(own.model, recipe.shape, channels, labels=max(manifest.labels, default=1))
        estimate = training_cost(settings, own.training, config.device, getattr(settings, "n_labels", 0))
        trainings.append(describe_training(settings.family, estimate, config.anomaly.folds))
    copies = 1 + config.evaluation.per_scan
    return [
        f"cohort: {len(manifest)} scans of {len(manifest.subjects)} subjects; {subjects} subjects in "
        f"{config.anomaly.folds} folds, {len(parts['test'].subjects)} held out",
        f"grid: {' x '.join(map(str, recipe.shape))} voxels of {recipe.spacing} mm, align: {recipe.align}",
        describe_memory(len(manifest) * voxels * (channels + 1)),
        *trainings,
        f"test: {copies * len(parts['test'])} scans, {config.evaluation.per_scan} implanted copies of each healthy one",
        *_plan_detectability(config, len(parts["test"].subjects)),
        f"output: {config.out}",
        tracking.place(config.out),
    ]


def _plan_detectability(config: AnomalyRunConfig, subjects: int) -> list[str]:
    if not config.detectability.enabled:
        return []
    return [f"minimum detectable lesion: at most {config.detectability.measurements(subjects)} more scans scored"]


def _prepare(
    config: AnomalyRunConfig, recipe: Preprocess, parts: Mapping[str, Manifest], tick: Tick
) -> tuple[Dataset, Dataset, Template | None, list[Failure]]:
    template = None
    if recipe.align == "affine":
        template = build_template(
            [case.read_image() for case in parts["development"]],
            recipe,
            workers=config.workers,
            progress=partial(tick, "building the template"),
        )
    prepared, failures = {}, []
    for name, part in parts.items():
        prepared[name], failed = prepare_dataset(
            part,
            recipe,
            template,
            config.workers,
            progress=partial(tick, f"preparing {name} scans"),
        )
        failures += failed
    return prepared["development"], prepared["test"], template, failures


def _train(
    config: AnomalyRunConfig,
    development: Dataset,
    held_out: Sequence[Sequence[str]],
    folder: RunFolder,
    track: tracking.Run,
    *,
    resume: bool,
    progress: bool,
) -> tuple[list[list[ScanModel]], dict[str, list[dict[str, float]]]]:
    labels = 1 if development.labels is None else int(development.labels.max())
    models: list[list[ScanModel]] = [[] for _ in held_out]
    histories = {}
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


def _evaluate(
    config: AnomalyRunConfig,
    detector: AnomalyDetector,
    development: Dataset,
    test: Dataset,
    folder: RunFolder,
    tick: Tick,
) -> tuple[list[Measurement], list[Example]]:
    """Score healthy and implanted test scans, write their files, keep what metrics and pictures need."""
    scans = scans_to_test(test, development, detector.preprocess.spacing, config.evaluation, config.seed)
    total = len(test) * (1 + config.evaluation.per_scan)
    rows = {case: row for row, case in enumerate(test.ids)}
    files = ScanFiles(folder.out)
    measurements: list[Measurement] = []
    examples: list[Example] = []
    for done, (scan, measured, measurement) in enumerate(measure(detector, scans), start=1):
        prepared = test.prepared[rows[scan.case]]
        result = detector.result(prepared, measured)
        facts = {"subject": scan.subject, "kind": scan.kind, "radius_mm": scan.radius_mm, "contrast": scan.contrast}
        files.add(scan.name, result, **facts)
        if scan.kind != HEALTHY:
            truth = detector.preprocess.restore(scan.truth.astype("uint8"), prepared, order=0, fill=0)
            files.add_truth(scan.name, truth)
        measurements.append(measurement)
        if _shown(scan, examples):
            _write_pseudo_healthy(scan, prepared, detector, files)
            examples.append(Example(scan, Volume(scan.image.numpy(), prepared.grid), result))
        tick("scoring test scans", done, total)
    files.close()
    return measurements, examples


def _write_pseudo_healthy(scan: TestScan, prepared: Prepared, detector: AnomalyDetector, files: ScanFiles) -> None:
    # An implanted scan exists on the model grid only, so the difference is taken from what it looks like from there.
    own = replace(prepared, image=scan.image.numpy(), foreground=scan.foreground[0].numpy())
    pseudo = detector.pseudo_healthy(own)
    if pseudo is not None:
        seen = as_seen(own, detector.preprocess)
        files.add_pseudo_healthy(scan.name, pseudo, seen.with_data(seen.data - pseudo.data))


def _shown(scan: TestScan, examples: Sequence[Example]) -> bool:
    """Whether the report shows a scan: two healthy ones and the first of each kind of implant, unselected."""
    return sum(example.scan.kind == scan.kind for example in examples) < (2 if scan.kind == HEALTHY else 1)


def _summarise(config: AnomalyRunConfig, measurements: Sequence[Measurement]) -> Summary:
    target = config.anomaly.calibration.target_fpr
    return summarise(measurements, target, config.evaluation.bootstrap, derive(config.seed, "bootstrap"))


def _chosen(detector: AnomalyDetector) -> dict[str, str]:
    tags = {"medgen.anomaly.channels": ", ".join(detector.config.fusion.channels)}
    return tags if detector.choice is None else {**tags, "medgen.anomaly.choice": detector.choice.words}


def _check(
    config: AnomalyRunConfig,
    manifest: Manifest,
    detector: AnomalyDetector,
    development: Dataset,
    screening: Screening,
    measurements: Sequence[Measurement],
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
    return Checks(screening, groups, suspects, smallest)


def _further(detector: AnomalyDetector, checks: Checks, test_scans: int) -> dict[str, Any]:
    """Entries of ``metrics.json`` beside the summary of the evaluation."""
    return {
        "threshold": detector.calibration.threshold,
        "choice": as_json(detector.choice),
        "gate": screening_json(detector.gate, checks.screening, test_scans),
        "groups": as_json(checks.groups),
        "detectability": as_json(checks.smallest),
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
    return {**numbers, "prevalence": summary.prevalence, "realised_fpr": summary.any_hot.estimate}


def _lines(
    folder: RunFolder, summary: Summary, failures: Sequence[Failure], checks: Checks, store: str
) -> tuple[str, ...]:
    best = summary.row(summary.best_raw)
    lines = [
        f"voxel AP: fused {summary.fused.ap}, best baseline ({best.score}) {best.ap}, chance {summary.prevalence:.4f}",
        f"heatmaps: {folder.heatmaps}",
        f"model:    {folder.model}",
        f"report:   {folder.report}",
        f"MLflow:   {store}",
    ]
    if failures:
        lines.append(f"{len(failures)} scan(s) could not be prepared, see {folder.out / 'failures.csv'}")
    lines += [f"{case}: abstained: {reason}" for case, reason in checks.screening.refused]
    if checks.suspects:
        where = folder.out / "contamination.csv"
        lines.append(f"{len(checks.suspects)} training scan(s) stand out, look at them before trusting: {where}")
    return tuple(lines)
