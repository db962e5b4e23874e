"""Sections of the anomaly report that come first: the cohort, the training, and at the end what each score is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from medgen.anomaly.detector import AnomalyDetector
from medgen.anomaly.evaluation.groups import GroupRow
from medgen.anomaly.evaluation.prospects import Prospect
from medgen.anomaly.evaluation.summary import Summary
from medgen.anomaly.scores.catalogue import registered
from medgen.data.cases import Manifest
from medgen.models.base import ScanModel
from medgen.preprocessing.dataset import Failure
from medgen.report.anomaly.scored.preparation import recipe_facts
from medgen.report.cohort import taken_table
from medgen.report.figures.curves import training_curves
from medgen.report.html import Report, without_marks


def cohort_section(
    report: Report,
    manifest: Manifest,
    parts: Mapping[str, Manifest],
    detector: AnomalyDetector,
    *,
    seed: int,
    failures: Sequence[Failure],
    excluded: Sequence[str],
) -> None:
    """Who is in which part, the model grid, how the detector is made, and what was left out.

    Args:
        report: The report.
        manifest: The cohort.
        parts: Cases of every part, by its name.
        detector: The calibrated detector.
        seed: Seed of the run.
        failures: Scans that could not be prepared.
        excluded: Development cases that were left out of the calibration.
    """
    grid = detector.preprocess
    report.section(
        "Cohort",
        "Splits are by subject. Test subjects took no part in training, template or calibration.",
        layer="appendix",
    )
    rows = [(name, len(part), len(part.subjects)) for name, part in parts.items()]
    report.table(["part", "scans", "subjects"], rows)
    report.facts(
        {
            "model grid (voxels)": " x ".join(map(str, grid.shape)),
            "voxel size (mm)": " x ".join(f"{step:g}" for step in grid.spacing),
            "alignment": grid.align,
            **recipe_facts(grid),
            "folds": detector.config.folds,
            "scores of the heatmap": ", ".join(detector.config.fusion.channels),
            "score of whole scans": detector.config.scan_score,
            "healthy means and variances": detector.adjusted.words,
            "subjects in the calibration": len(detector.calibration.maxima),
            "left out of the calibration": ", ".join(excluded) or "none",
            "seed": seed,
        }
    )
    if failures:
        report.table(["case", "reason"], [(f.case, f.message) for f in failures], "Left out")
    taken_table(report, manifest)


def more_scans_section(report: Report, prospects: Sequence[Prospect]) -> None:
    """What further healthy subjects would buy."""
    report.section(
        "More healthy scans",
        "What a calibration on more healthy subjects of the same population would say: the smallest p-value of a scan, "
        "and the interval of the false findings per healthy scan, whose counts vary as in this calibration.",
        layer="appendix",
    )
    report.table(
        ["healthy subjects", "more than now", "smallest p", "false findings per healthy scan"],
        [(own.subjects, own.subjects - prospects[0].subjects, own.smallest_p, own.rate) for own in prospects],
    )


def training_section(
    report: Report, models: Sequence[ScanModel], histories: Mapping[str, Sequence[Mapping[str, float]]]
) -> None:
    """The models of a fold and the losses of every training."""
    report.section("Training", "Models of every fold, each trained without the fold's subjects.", layer="appendix")
    for model in models:
        report.facts({"family": model.family, "parameters": model.parameter_count})
    report.figure(training_curves(histories), "Losses over the optimiser steps of every fold.", "Training curves")


def scores_section(report: Report, summary: Summary) -> None:
    """What each row of the tables is, and where it comes from."""
    report.section("Scores", "What each row of the tables is, and where it comes from.", layer="appendix")
    used = {row.score for row in summary.voxel} | {row.name for row in summary.scan}
    entries = [(name, entry.level, without_marks(entry.source)) for name, entry in registered().items() if name in used]
    report.table(["score", "level", "definition and source"], entries)


def groups_section(report: Report, rows: Sequence[GroupRow], target: float) -> None:
    """A table of false-positive rates; nothing where the manifest says nothing of age, sex, scanner or site."""
    if not rows:
        return
    report.section(
        "Groups",
        f"Healthy subjects with p at or below {100 * target:g} %, exact 95 % intervals. Test subjects were held out. "
        "Development subjects are ranked among each other out of fold: their overall rate is near the target by "
        "construction, and only differences between groups tell. Wide intervals mean that nothing can be said.",
        layer="appendix",
    )
    report.table(
        ["column", "group", "subjects from", "subjects", "flagged", "false-positive rate"],
        [(r.column, r.group, r.source, r.subjects, r.flagged, r.fpr) for r in rows],
    )
