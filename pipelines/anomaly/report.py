"""The HTML reports of anomaly runs and of scorings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medgen.anomaly.comparison.methods import Comparison
from medgen.anomaly.detector import AnomalyDetector
from medgen.anomaly.evaluation.contamination import Suspect
from medgen.anomaly.evaluation.detectability import Detectability
from medgen.anomaly.evaluation.groups import GroupRow
from medgen.anomaly.evaluation.leverage import Leverage
from medgen.anomaly.evaluation.screening import Screening
from medgen.anomaly.evaluation.summary import Summary
from medgen.anomaly.scores.catalogue import registered
from medgen.data.cases import Manifest
from medgen.preprocessing.dataset import Failure
from medgen.report.anomaly.channel_choice import choice_section
from medgen.report.anomaly.detectability import detectability_section
from medgen.report.anomaly.evaluation import scan_section, voxel_section
from medgen.report.anomaly.files import files_section
from medgen.report.anomaly.gate import abstained_section, contamination_section, gate_section, outside_section
from medgen.report.anomaly.groups import groups_section
from medgen.report.anomaly.pictures import (
    Example,
    Scored,
    comparison_section,
    findings_section,
    peak_of,
    picture_caption,
    pictures_section,
)
from medgen.report.anomaly.words import compared_words, found_words, scan_words
from medgen.report.figures.curves import training_curves
from medgen.report.figures.mosaic import mosaic
from medgen.report.html import Report, without_marks

from .. import patient_names

if TYPE_CHECKING:
    from .config import AnomalyRunConfig

UNGATED_WORDS = (
    "The gate refuses this scan, and it was scored all the same: p-values, threshold and findings mean nothing here."
)
LIMITS_TEXT = """
- The false-positive rate holds for scans that are exchangeable with the healthy scans of this cohort: same scanner,
protocol and population. On anything else it holds nothing.
- Test anomalies are implants. Real lesions look different; detection rates do not carry over.
- A hot voxel is unusual, not diseased; a cold one is usual among these scans, not proven healthy. NaN is not scored.
- Research use only: no part of this is meant for a decision about a patient.
"""


@dataclass(frozen=True, eq=False)
class Checks:
    """What was found beside the evaluation.

    Attributes:
        screening: Healthy test scans that the gate refused.
        groups: False-positive rates by group.
        suspects: Training scans to look at.
        smallest: Minimum detectable lesion; None if it is switched off.
        leverage: What the most extreme calibration subject costs.
        files: The heatmap files, evaluated on their own grids.
        excluded: Development cases that were left out of the calibration.
    """

    screening: Screening
    groups: Sequence[GroupRow]
    suspects: Sequence[Suspect]
    smallest: Detectability | None
    leverage: Leverage
    files: Comparison
    excluded: Sequence[str] = ()


def run_report(
    config: AnomalyRunConfig,
    manifest: Manifest,
    parts: Mapping[str, Manifest],
    detector: AnomalyDetector,
    histories: Mapping[str, Sequence[Mapping[str, float]]],
    summary: Summary,
    examples: Sequence[Example],
    failures: Sequence[Failure],
    checks: Checks,
    run_id: str,
) -> Report:
    """The report of an anomaly run."""
    report = Report("Anomaly detection", f"{manifest.name}: {len(manifest)} scans", run_id)
    report.verdict(found_words(summary))
    if checks.leverage.decides:
        report.verdict(checks.leverage.words, "bad")
    report.verdict(*compared_words(summary))
    _cohort(report, config, detector, parts, failures, checks.excluded)
    patient_names.taken(report, manifest)
    _training(report, detector, histories)
    choice_section(report, detector.choice, config.evaluation.kinds, detector.config.corruptions)
    voxel_section(report, summary)
    scan_section(report, summary)
    files_section(report, checks.files, summary.fused.ap.estimate)
    groups_section(report, checks.groups, summary.target_fpr)
    gate_section(report, detector.gate, checks.screening)
    contamination_section(report, checks.suspects)
    detectability_section(report, checks.smallest)
    pictures_section(report, examples, detector)
    report.section("Scores", "What each row of the tables is, and where it comes from.")
    used = {row.score for row in summary.voxel} | {row.name for row in summary.scan}
    entries = [(name, entry.level, without_marks(entry.source)) for name, entry in registered().items() if name in used]
    report.table(["score", "level", "definition and source"], entries)
    report.section("Limits", patient_names.limits(LIMITS_TEXT, manifest.named_by_folders))
    return report


def score_report(
    detector: AnomalyDetector,
    scored: Sequence[Scored],
    failures: Sequence[tuple[str, str, str]],
    outside: Sequence[tuple[str, str]],
    model_sha256: str,
    run_id: str,
    named_by_folders: bool,
) -> Report:
    """The report of new scans; ``named_by_folders`` where one of them is a DICOM series."""
    target = detector.config.calibration.target_fpr
    abstained = [(name, reason) for name, stage, reason in failures if stage == "gate"]
    unusable = [(name, reason) for name, stage, reason in failures if stage != "gate"]
    counts = f"scans scored: {len(scored)}, abstained: {len(abstained)}, unusable: {len(unusable)}"
    report = Report("Anomaly scores", counts, run_id)
    report.facts(
        {
            "model (SHA-256)": model_sha256,
            "healthy subjects in the calibration": len(detector.calibration.maxima),
            "target false-positive rate": f"{100 * target:g} % of healthy scans",
            "heat threshold": detector.calibration.threshold,
            "score of whole scans": detector.config.scan_score,
        }
    )
    refused = dict(outside)
    if scored:
        names_of = list(dict.fromkeys(["max", detector.config.scan_score]))
        columns = [text for name in names_of for text in (name, f"p ({name})")]
        report.table(
            ["scan", "findings", *columns],
            [
                (
                    s.name,
                    len(s.result.findings),
                    *(
                        part
                        for name in names_of
                        for part in (
                            s.result.scores[name],
                            None if s.name in refused else s.result.p_values[name],
                        )
                    ),
                )
                for s in scored
            ],
            "max: hottest voxel (z). Each p is the share of healthy scans with at least that score, this one included "
            "(conformal); a scan has a finding exactly where p (max) is at or below the target. By hand: "
            "`calibration.csv` lists the healthy scores. A scan that the gate refuses has no p.",
        )
    if unusable:
        report.table(["scan", "why it was not scored"], unusable)
    abstained_section(report, abstained)
    outside_section(report, outside)
    for entry in scored:
        report.section(entry.name)
        if entry.name in refused:
            report.verdict(UNGATED_WORDS, "bad")
        else:
            report.verdict(*scan_words(entry.result, target, detector.calibration))
        comparison_section(report, entry, detector)
        figure = mosaic(entry.scan, heatmap=entry.result.heatmap, slices=peak_of(entry.result), title=entry.name)
        report.figure(
            figure, picture_caption("The scan in its own space, slices through the hottest voxel."), entry.name
        )
        findings_section(report, entry.result)
    report.section("Limits", patient_names.limits(LIMITS_TEXT, named_by_folders))
    return report


def _cohort(
    report: Report,
    config: AnomalyRunConfig,
    detector: AnomalyDetector,
    parts: Mapping[str, Manifest],
    failures: Sequence[Failure],
    excluded: Sequence[str],
) -> None:
    grid = detector.preprocess
    report.section("Cohort", "Splits are by subject. Test subjects took no part in training, template or calibration.")
    rows = [(name, len(part), len(part.subjects)) for name, part in parts.items()]
    report.table(["part", "scans", "subjects"], rows)
    report.facts(
        {
            "model grid (voxels)": " x ".join(map(str, grid.shape)),
            "voxel size (mm)": " x ".join(f"{step:g}" for step in grid.spacing),
            "alignment": grid.align,
            "folds": config.anomaly.folds,
            "channels of the heatmap": ", ".join(detector.config.fusion.channels),
            "score of whole scans": detector.config.scan_score,
            "subjects in the calibration": len(detector.calibration.maxima),
            "left out of the calibration": ", ".join(excluded) or "none",
            "seed": config.seed,
        }
    )
    if failures:
        report.table(["case", "reason"], [(f.case, f.message) for f in failures], "Left out")


def _training(
    report: Report, detector: AnomalyDetector, histories: Mapping[str, Sequence[Mapping[str, float]]]
) -> None:
    report.section("Training", "Models of every fold, each trained without the fold's subjects.")
    for model in detector.members[0].models:
        report.facts({"family": model.family, "parameters": model.parameter_count})
    report.figure(training_curves(histories), "Losses over the optimiser steps of every fold.", "Training curves")
