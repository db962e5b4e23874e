"""Anomaly run: train on healthy scans out of fold, calibrate, evaluate on held-out subjects, report."""

from __future__ import annotations

from functools import partial

from medgen.anomaly.evaluation.leverage import Leverage
from medgen.anomaly.evaluation.screening import Screening
from medgen.data.cases import Manifest
from medgen.data.integrity import check_scans
from medgen.data.layouts.detect import load_cohort
from medgen.models.catalogue import settings_for
from medgen.preprocessing.parts import PreparedParts
from medgen.preprocessing.recipe import Preprocess
from medgen.progress import bars
from medgen.report.anomaly.heat.sources import heat_words
from medgen.report.anomaly.words import LIMITS, compared_words, found_kind, found_words, next_words
from medgen.report.html import Report
from medgen.runs.context import Results, RunContext, start_run
from medgen.runs.folder import RunSummary
from medgen.training.cost import check_memory

from .. import patient_names
from ..labelled import check_labelled
from ..sources import check_sources
from .cohort import AnomalyCohort, divide, split
from .config import AnomalyRunConfig, refuse
from .stages import pipeline
from .stages.calibrate import Calibrated
from .stages.evaluate import Evaluation


def run(
    config: AnomalyRunConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
    save_measurements: bool = False,
) -> RunSummary:
    """Run the pipeline; ``out`` then holds heatmaps, tables, ``model/`` and ``report.html``.

    Args:
        config: What to run.
        resume: Go on with an interrupted run, or calibrate a finished one anew.
        overwrite: Remove an earlier run first.
        progress: Show progress bars.
        save_measurements: Keep the voxel scores of all test scans, see
            :class:`~medgen.pipelines.anomaly.stages.evaluate.Evaluate`.

    Raises:
        MedgenError: If configuration or data are at fault, or the cohort is too small for the false-positive rate.
    """
    refuse(config, resume=resume, overwrite=overwrite)
    manifest, cohort = _take_in(config, progress)
    stages = pipeline(save_measurements)
    with start_run("anomaly", config, manifest, resume=resume, overwrite=overwrite, progress=progress) as context:
        results = Results([manifest, cohort])
        stages.run(config, results, context)
        lines = stages.finish(config, _opening(results, context), LIMITS, results, context, manifest.named_by_folders)
    missing = results[PreparedParts].failures or results[Screening].refused
    places = {"heatmaps": context.folder.heatmaps, "model": context.folder.model, "report": context.folder.report}
    lines += [f"{name + ':':9} {path}" for name, path in {**places, "MLflow": context.track.store}.items()]
    return RunSummary(config.out, 1 if missing else 0, tuple(lines))


def _take_in(config: AnomalyRunConfig, progress: bool) -> tuple[Manifest, AnomalyCohort]:
    """The cohort with hashes, divided, once every scan is known to be sound and the trainings to fit into memory."""
    manifest = load_cohort(config.data, config.cohort)
    patient_names.warn(manifest.named_by_folders)
    check_labelled(config.models.values(), manifest)
    parts = split(config, manifest)
    with bars(progress) as tick:
        manifest = check_scans(manifest, config.workers, partial(tick, "checking scans"), masks=False)
    # Each development scan is held out of a fold, and calibrates as one that no model has seen.
    check_sources(config, manifest, parts, config.workers)
    cohort = divide(config, parts)
    _check_memory(config, cohort.recipe, manifest)
    patient_names.announce(manifest)
    return manifest, cohort


def _check_memory(config: AnomalyRunConfig, recipe: Preprocess, manifest: Manifest) -> None:
    """Refuse trainings that will not fit into memory."""
    for own in config.models.values() if config.check_resources else ():
        settings = settings_for(own.model, recipe.shape, channels=1, labels=max(manifest.labels, default=1))
        check_memory(settings, own.training, config.device, len(manifest), getattr(settings, "n_labels", 0))


def _opening(results: Results, context: RunContext) -> Report:
    manifest, summary, leverage = results[Manifest], results[Evaluation].summary, results[Leverage]
    report = Report("Anomaly detection", f"{manifest.name}: {len(manifest)} scans", context.track.id)
    report.verdict(found_words(summary), found_kind(summary))
    if leverage.decides:
        report.verdict(leverage.words, "bad")
    words, kind = compared_words(summary)
    if kind == "bad":
        report.verdict(words, kind)
    else:
        report.text(words)
    report.text(heat_words(results[Calibrated].detector))
    report.text(next_words(f"{context.folder.out.name}/model"))
    return report
