"""The sentences of the anomaly reports that judge: each is made of the fields of the object that holds the decision."""

from __future__ import annotations

from medgen.anomaly import findings
from medgen.anomaly.calibration import significant
from medgen.anomaly.detector import ScanResult
from medgen.anomaly.ensemble import Calibration
from medgen.anomaly.evaluation.summary import Summary
from medgen.report.html import Kind, fmt

LIMITS = """
- The false-positive rate holds for scans that are exchangeable with the healthy scans of this cohort: same scanner,
protocol and population. On anything else it holds nothing.
- Test anomalies are implants. Real lesions look different; detection rates do not carry over.
- A hot voxel is unusual, not diseased; a cold one is usual among these scans, not proven healthy. NaN is not scored.
- Research use only: no part of this is meant for a decision about a patient.
"""


def found_words(summary: Summary) -> str:
    """What the calibrated threshold finds: implants, and healthy scans with a false finding."""
    rate = f"{100 * summary.target_fpr:g} %"
    return (
        f"At the threshold that at most {rate} of healthy scans exceed anywhere, a finding touches "
        f"**{summary.found_scans} of {summary.implanted} implants** ({fmt(summary.found)}); {summary.with_finding} of "
        f"{summary.implanted} implanted scans have a finding at all. Of the healthy test subjects, "
        f"{summary.healthy_with_finding} of {summary.any_hot.n} have one ({fmt(summary.any_hot)})."
    )


def compared_words(summary: Summary) -> tuple[str, Kind]:
    """How the fused heatmap compares with the best baselines, as published and with the same normative z."""
    best, best_z = summary.row(summary.best_raw), summary.row(summary.best_z)
    kind: Kind
    ap = f"Voxel average precision of the fused heatmap: **{fmt(summary.fused.ap)}** (chance {summary.prevalence:.4f})."
    raw = f"Best baseline as published, {best.score}: {fmt(best.ap)}; difference {fmt(summary.gain_raw)}."
    z = f"Best baseline with the same normative z, {best_z.score}: {fmt(best_z.ap)}; difference {fmt(summary.gain_z)}."
    if summary.gain_raw.high < 0 or summary.gain_z.high < 0:
        name = best.score if summary.gain_raw.high < 0 else f"{best_z.score} with normative z"
        words, kind = f"**A simple baseline is better at ranking voxels**: {name}.", "bad"
    elif summary.gain_raw.low > 0 and summary.gain_z.low > 0:
        words = "The fused heatmap ranks voxels **better than the best baseline**, as published and with the same z."
        kind = "good"
    elif summary.gain_raw.low > 0:
        words = "The fused heatmap ranks voxels better than the best baseline as published, but **not clearly** better "
        words, kind = f"{words}than the best one given the same z.", "neutral"
    else:
        words = "**No evidence** that the fused heatmap ranks voxels better than the best baseline on this cohort."
        kind = "neutral"
    return "\n\n".join([words, f"{ap} {raw} {z}"]), kind


def scan_words(result: ScanResult, target: float, calibration: Calibration) -> tuple[str, Kind]:
    """The verdict on a scan: findings where p (max) is at or below the target, else what the scan score says."""
    name = result.scan_score
    family, whole = f"p (max) = {result.p_values['max']:.3f}", f"p ({name}) = {result.p_values[name]:.3f}"
    numbers = family if name == "max" else f"{family}, {whole}"
    if result.findings:
        text = f"**{findings.summary(result.findings, calibration)}.**"
        text += f" At most {100 * target:g} % of healthy scans have a voxel above the threshold of "
        return f"{text}{calibration.threshold:.2f}. {numbers}.", "bad"
    if significant(result.p_values[name], target):
        return f"No single region stands out, but the scan as a whole is unusual by {name}: {numbers}.", "bad"
    return f"Nothing unusual among the scored voxels: {numbers}.", "neutral"
