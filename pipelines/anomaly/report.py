"""The HTML reports of anomaly runs and of scorings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly import findings
from medgen.anomaly.comparison.methods import Comparison
from medgen.anomaly.detector import AnomalyDetector, ScanResult
from medgen.anomaly.evaluation.contamination import Suspect
from medgen.anomaly.evaluation.detectability import Detectability
from medgen.anomaly.evaluation.groups import GroupRow
from medgen.anomaly.evaluation.leverage import Leverage
from medgen.anomaly.evaluation.measure import HEALTHY, TestScan
from medgen.anomaly.evaluation.screening import Screening
from medgen.anomaly.evaluation.summary import Summary, VoxelRow
from medgen.anomaly.pseudo_healthy import as_seen
from medgen.anomaly.scores.catalogue import registered
from medgen.data.cases import Manifest
from medgen.preprocessing.dataset import Failure
from medgen.report.anomaly.channel_choice import choice_section
from medgen.report.anomaly.detectability import detectability_section
from medgen.report.anomaly.files import files_section
from medgen.report.anomaly.gate import abstained_section, contamination_section, gate_section, outside_section
from medgen.report.anomaly.groups import groups_section
from medgen.report.anomaly.words import compared_words, found_words, scan_words
from medgen.report.figures.curves import interval_plot, training_curves
from medgen.report.figures.mosaic import LIMITS, comparison, mosaic
from medgen.report.html import Report, fmt, without_marks
from medgen.volume import Volume

from .. import patient_names as names

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
class Example:
    """A test scan shown in the report: the scan on the model grid in its own world, and its result."""

    scan: TestScan
    image: Volume
    result: ScanResult


@dataclass(frozen=True, eq=False)
class Scored:
    """A new scan, its result, and its pseudo-healthy version if a model makes one."""

    name: str
    scan: Volume
    result: ScanResult
    pseudo: Volume | None = None


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
    names.taken(report, manifest)
    _training(report, detector, histories)
    choice_section(report, detector.choice, config.evaluation.kinds, detector.config.corruptions)
    _voxel_level(report, summary)
    _scan_level(report, summary)
    files_section(report, checks.files, summary.fused.ap.estimate)
    groups_section(report, checks.groups, summary.target_fpr)
    gate_section(report, detector.gate, checks.screening)
    contamination_section(report, checks.suspects)
    detectability_section(report, checks.smallest)
    _pictures(report, examples, detector)
    report.section("Scores", "What each row of the tables is, and where it comes from.")
    used = {row.score for row in summary.voxel} | {row.name for row in summary.scan}
    entries = [(name, entry.level, without_marks(entry.source)) for name, entry in registered().items() if name in used]
    report.table(["score", "level", "definition and source"], entries)
    report.section("Limits", names.limits(LIMITS_TEXT, manifest.named_by_folders))
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
        _compare(report, entry, detector)
        figure = mosaic(entry.scan, heatmap=entry.result.heatmap, slices=_peak(entry.result), title=entry.name)
        report.figure(figure, _caption("The scan in its own space, slices through the hottest voxel."), entry.name)
        _findings(report, entry.result)
    report.section("Limits", names.limits(LIMITS_TEXT, named_by_folders))
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


def _voxel_level(report: Report, summary: Summary) -> None:
    report.section(
        "Finding the voxels",
        f"All {summary.implanted} implanted scans of {summary.subjects} held-out subjects, pooled; prevalence "
        f"{summary.prevalence:.4f}. Intervals: 95 %, resampling subjects. Dice is an upper limit, at the threshold "
        f"chosen with the truth at hand; at the calibrated threshold fused reaches {fmt(summary.dice_at_threshold)}.",
    )
    columns = ["score", "form", "baseline", "AP", "AP per scan", "AUROC", "best Dice"]
    rows = [(r.score, r.form, r.baseline, r.ap, r.ap_per_scan, r.auroc, r.dice) for r in summary.voxel]
    caption = (
        f"raw: as published; z: with the normative z of this pipeline. Chance: AP {summary.prevalence:.4f}, AUROC 0.5."
    )
    report.table(columns, rows, caption, highlight=[0])
    shown = _compared(summary)
    report.figure(
        interval_plot(
            [row.name for row in shown], [row.ap for row in shown], "voxel AP, 95 %", reference=summary.prevalence
        ),
        "Average precision with 95 % intervals; the line is chance.",
        "Average precision of the scores",
    )
    report.facts(
        {
            f"fused minus {summary.best_raw}": summary.gain_raw,
            f"fused over {summary.best_raw}": summary.ratio_raw,
            f"fused minus {summary.best_z}": summary.gain_z,
            f"fused over {summary.best_z}": summary.ratio_z,
        }
    )
    rows_by_kind = [
        (kind, count, summary.prevalence_by_kind[kind], *(row.by_kind[kind] for row in shown[:4]))
        for kind, count in summary.kinds.items()
    ]
    columns = ["implant", "scans", "chance", *(row.name for row in shown[:4])]
    report.table(columns, rows_by_kind, "Voxel AP by kind of implant; chance: its prevalence.")
    controls = [(name, value) for name, value in summary.controls.items()]
    report.table(
        ["control", "AP over prevalence"],
        controls,
        "Chance is 1. Zero amplitude: the untouched scan against the place of its implant. Permuted masks: against "
        "another subject's implant.",
    )


def _scan_level(report: Report, summary: Summary) -> None:
    target = summary.target_fpr
    report.section(
        "Finding the scans",
        f"{summary.healthy} healthy test scans against {summary.implanted} implanted copies. The calibration aims at "
        f"{100 * target:g} % of healthy subjects; realised: share of healthy test subjects with p at or below it, "
        "exact 95 % interval.",
    )
    rows = [(r.name, r.auroc, r.ap, r.chance, r.fpr_at_95, r.fpr, r.detected) for r in summary.scan]
    columns = ["scan score", "AUROC", "AP", "chance AP", "FPR at 95 % TPR", "realised FPR", "detected"]
    report.table(columns, rows, "Chance: AUROC 0.5, AP the share of implanted scans. Detected: p at or below the aim.")
    report.facts(
        {
            "healthy subjects with a finding": summary.any_hot,
            "implants touched by a finding": summary.found,
        }
    )


def _pictures(report: Report, examples: Sequence[Example], detector: AnomalyDetector) -> None:
    report.section(
        "Heatmaps",
        "Unselected: the first test scans and the first implant of each kind. Colours start at z = "
        f"{LIMITS[0]:g}; findings need {detector.calibration.threshold:.2f}.",
    )
    for example in examples:
        scan, result = example.scan, example.result
        healthy = scan.kind == HEALTHY
        truth = None if healthy else example.image.with_data(scan.truth.astype(np.uint8))
        point = _peak(result) if healthy or truth is None else _middle(truth)
        what = "healthy" if healthy else f"{scan.kind}, radius {scan.radius_mm:.1f} mm, contrast {scan.contrast:g}"
        title = f"{scan.case}: {what}; p (max) = {result.p_values['max']:.3f}, findings: {len(result.findings)}"
        figure = mosaic(
            example.image, heatmap=result.heatmap, contour=truth, slices=point, title=title, rows="axial,coronal"
        )
        through = "the hottest voxel" if healthy else "the implant"
        report.figure(figure, _caption(f"On the model grid; slices through {through}."), title)


def _compare(report: Report, entry: Scored, detector: AnomalyDetector) -> None:
    result, difference = entry.result, None
    if entry.pseudo is not None:
        seen = as_seen(result.prepared, detector.preprocess)
        difference = seen.with_data(seen.data - entry.pseudo.data)
    contour = findings.outline(result.heatmap, detector.calibration.threshold)
    figure = comparison(
        entry.scan,
        heatmap=result.heatmap,
        expected=entry.pseudo,
        difference=difference,
        contour=contour if result.findings else None,
        point=_peak(result),
        # In the scan's own terms: half the range between the percentiles that it was scaled by.
        span=result.prepared.scale[0][1] / 2,
        title=entry.name,
    )
    text = "Three slices through the hottest voxel, in the scan's own space."
    if entry.pseudo is not None:
        text += (
            " Pseudo-healthy: the scan as models that know healthy scans only rebuild it. Difference: the scan, at the"
            " models' resolution, minus that; orange is brighter than rebuilt, blue darker."
        )
    report.figure(figure, _caption(text), f"{entry.name}: comparison")


def _findings(report: Report, result: ScanResult) -> None:
    rows = [
        (
            f.id,
            f.region,
            findings.millilitres(f.half_peak_extent_ml),
            findings.millilitres(f.above_threshold_ml),
            f.peak,
            f.p_max,
            f.channels or None,
            f.position,
        )
        for f in result.findings
    ]
    if rows:
        columns = [
            "finding", "region", "extent at half the peak", "part above the threshold", "peak z", "p (max)", "channels",
            "position of the peak",
        ]  # fmt: skip
        report.table(
            columns,
            rows,
            "Extent: where the heat is at least half as far above the scan's background as the peak is; the part above "
            "the threshold is smaller, and neither is a lesion's volume. p (max): share of healthy scans whose hottest "
            "voxel is at least as hot (family-wise). channels: those that at most 1 % of healthy voxels surprise as "
            "much as the peak does, each with its -log10 p. Voxels are counted from 0, in the file's order.",
        )


def _compared(summary: Summary) -> list[VoxelRow]:
    """The rows that a reader compares: fused, best baselines, then the rest by AP."""
    first = [summary.fused, summary.row(summary.best_raw), summary.row(summary.best_z)]
    return first + [row for row in summary.voxel if row not in first]


def _caption(text: str) -> str:
    return (
        f"{text} Radiological convention: the patient's right is on the left; i, j, k: slice number along that axis of "
        f"the picture's grid, from 0. Heat: z against healthy, fixed scale from {LIMITS[0]:g} to {LIMITS[1]:g}; "
        "transparent: below, or not scored (outside the dotted line)."
    )


def _peak(result: ScanResult) -> NDArray[np.float64]:
    """World point of the hottest voxel."""
    data = np.nan_to_num(result.heatmap.data[0], nan=-np.inf)
    return result.heatmap.grid.to_world(np.unravel_index(int(data.argmax()), data.shape))


def _middle(mask: Volume) -> NDArray[np.float64]:
    """World point of the mask's voxel that is nearest to its centre of mass."""
    voxels = np.argwhere(mask.data[0] > 0)
    if not len(voxels):
        return mask.grid.center
    return mask.grid.to_world(voxels[np.linalg.norm(voxels - voxels.mean(axis=0), axis=1).argmin()])
