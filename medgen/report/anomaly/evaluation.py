"""How well voxels and scans are told apart: the tables of the evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medgen.anomaly.evaluation.summary import Summary, VoxelRow
from medgen.report.figures.curves import interval_plot
from medgen.report.html import Report, fmt

if TYPE_CHECKING:
    pass


def voxel_section(report: Report, summary: Summary) -> None:
    """Every score side by side on the voxels of the implanted scans, with chance and the best baselines."""
    report.section(
        "Finding the voxels",
        f"All {summary.implanted} implanted scans of {summary.subjects} held-out subjects, pooled; prevalence "
        f"{summary.prevalence:.4f}. Intervals: 95 %, resampling subjects. Dice is an upper limit, at the threshold "
        f"chosen with the truth at hand; at the family-wise threshold fused reaches {fmt(summary.dice_at_threshold)}.",
        layer="appendix",
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


def scan_section(report: Report, summary: Summary) -> None:
    """Whether whole scans with an implant are told from healthy ones, and how often healthy ones are flagged."""
    target = summary.target_fpr
    report.section(
        "Finding the scans",
        f"{summary.healthy} healthy test scans against {summary.implanted} implanted copies. The calibration aims at "
        f"{100 * target:g} % of healthy subjects; realised: share of healthy test subjects with p at or below it, "
        "exact 95 % interval.",
        layer="appendix",
    )
    rows = [(r.name, r.auroc, r.ap, r.chance, r.fpr_at_95, r.fpr, r.detected) for r in summary.scan]
    columns = ["scan score", "AUROC", "AP", "chance AP", "FPR at 95 % TPR", "realised FPR", "detected"]
    report.table(columns, rows, "Chance: AUROC 0.5, AP the share of implanted scans. Detected: p at or below the aim.")
    report.facts(
        {
            "healthy subjects with a voxel above the family-wise threshold": summary.any_hot,
            "implants with one": f"{summary.found_family_wise} of {summary.implanted}",
        }
    )


def _compared(summary: Summary) -> list[VoxelRow]:
    """The rows that a reader compares: fused, best baselines, then the rest by AP."""
    first = [summary.fused, summary.row(summary.best_raw), summary.row(summary.best_z)]
    return first + [row for row in summary.voxel if row not in first]
