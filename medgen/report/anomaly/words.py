"""The sentences of the anomaly reports that judge: each is made of the fields of the object that holds the decision."""

from __future__ import annotations

from medgen.anomaly.calibration import significant
from medgen.anomaly.config import AnomalyConfig
from medgen.anomaly.detector import ScanResult
from medgen.anomaly.doubts import rank_words
from medgen.anomaly.ensemble import Calibration
from medgen.anomaly.evaluation.summary import Summary
from medgen.anomaly.findings import listing
from medgen.anomaly.findings.false_findings import HealthyCandidates
from medgen.anomaly.findings.listing import number
from medgen.report.html import Kind, fmt

LIMITS = """
- The numbers of false findings and the false-positive rate hold for scans that are exchangeable with the healthy scans
of this cohort: same scanner, protocol and population. On anything else they hold nothing.
- A finding is no diagnosis: at the level of the list healthy scans have findings too, as many as it says.
- Test anomalies are implants. Real lesions look different; detection rates do not carry over.
- A hot voxel is unusual, not diseased; a cold one is usual among these scans, not proven healthy. NaN is not scored.
- Research use only: no part of this is meant for a decision about a patient.
"""


def found_words(summary: Summary) -> str:
    """What findings find at the level of the run and at others, what they cost, and what passes the stricter level."""
    found, own, false = summary.findings, summary.findings.operating, summary.findings.false
    others = ", ".join(
        f"{share.found} at {number(share.level)}" for share in found.everything.shares if share.level != found.level
    )
    untouched = "none" if own.untouched == 0 else f"{own.untouched}"
    return (
        f"At {number(found.level)} expected false findings per healthy scan a finding is on **{own.found} of "
        f"{summary.implanted} implants** ({fmt(own.share)}); {others}. Without the implants {untouched} of these "
        f"places have one. Held-out healthy scans have {fmt(false.measured)} findings each; {false.with_finding} of "
        f"{false.measured.n} healthy subjects have any. The stricter family-wise level, which at most "
        f"{100 * summary.target_fpr:g} % of healthy scans exceed anywhere, is passed on {summary.found_family_wise} of "
        f"{summary.implanted} implants and in {summary.healthy_family_wise} of {summary.any_hot.n} healthy subjects."
    )


def found_kind(summary: Summary) -> Kind:
    """The colour of what is found: good from half of the implants on, bad where it may be no more than by chance.

    By chance a place has a finding where the untouched scan has one.
    """
    own, chance = summary.findings.operating, summary.findings.operating.untouched / max(summary.implanted, 1)
    if own.share.low <= chance:
        return "bad"
    return "good" if own.share.estimate >= 0.5 else "neutral"


def next_words(model: str) -> str:
    """What to do with a finished run.

    Args:
        model: Path of its model folder, as a command takes it.
    """
    return (
        f"**Next:** score a scan with `medgen anomaly score SCAN --model {model} --out FOLDER`; its report and viewer "
        "show where it is unusual. What this run cannot find is below: the missed test scans, and the limits."
    )


def level_words(healthy: HealthyCandidates, level: float) -> str:
    """What the level of findings means, and how it came out in this calibration."""
    share = healthy.share_with_finding(level)
    return (
        f"Findings are listed up to {number(level)} expected false findings per healthy scan. In this calibration, "
        f"each of its {healthy.n} healthy subjects left out in turn, a healthy scan has {fmt(healthy.rate(level))} "
        f"and {round(share.estimate * share.n)} of {share.n} subjects have any"
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
        # No praise: a map that ranks voxels well may still lead to few findings, which is what is told first.
        words = "The fused heatmap ranks voxels **better than the best baseline**, as published and with the same z."
        kind = "neutral"
    elif summary.gain_raw.low > 0:
        words = "The fused heatmap ranks voxels better than the best baseline as published, but **not clearly** better "
        words, kind = f"{words}than the best one given the same z.", "neutral"
    else:
        words = "**No evidence** that the fused heatmap ranks voxels better than the best baseline on this cohort."
        kind = "neutral"
    return "\n\n".join([words, f"{ap} {raw} {z}"]), kind


def p_words(result: ScanResult, name: str) -> str:
    """The p of a scan score; where it ends, with the number of subjects that ends it, and how rare a tail fit says."""
    text, tail = f"p ({name}) = {result.p_values[name]:.3f}", result.tails.get(name)
    if tail is None:
        return text
    fitted = f"{tail.estimate:.2g} [{tail.low:.2g}, {tail.high:.2g}]"
    return f"{text} (conformal, the smallest possible with {tail.n}; tail fit: {fitted})"


def doubt_words(result: ScanResult) -> str:
    """Why nothing is claimed of a scan, and where it stands among the healthy scans all the same.

    Args:
        result: A scan with doubts.
    """
    doubts, parts = result.doubts, []
    if doubts.refused:
        parts.append("**The gate refuses this scan, and it was scored all the same.**")
    elif doubts.signs:
        parts.append(f"**The scan {doubts.signs[0].words}.**")
        parts += [f"It also {sign.words}." for sign in doubts.signs[1:]]
    hot = len(result.unlisted)
    places = "no place" if not hot else "1 hot place" if hot == 1 else f"{hot} hot places"
    parts.append(f"So it has no p-value and no findings: {places} of it would have been listed.")
    return " ".join([*parts, f"It is {rank_words(result.ranks, result.scan_score)}."])


def scan_words(result: ScanResult, config: AnomalyConfig, calibration: Calibration) -> tuple[str, Kind]:
    """The verdict on a scan: its findings with their level, those that pass the stricter one, else what the scan says.

    Args:
        result: The scan.
        config: The levels.
        calibration: What they were calibrated on.
    """
    name, target, level = result.scan_score, config.calibration.target_fpr, config.findings.false_findings
    family, whole = p_words(result, "max"), p_words(result, name)
    numbers = family if name == "max" else f"{family}, {whole}"
    unusual = [key for key in dict.fromkeys(["max", name]) if significant(result.p_values[key], target)]
    as_a_whole = f"the scan as a whole is unusual by {' and '.join(unusual)}"
    if result.findings:
        strong = sum(finding.family_wise for finding in result.findings)
        share = calibration.healthy.share_with_finding(level)
        sure = "Unusual" if strong or unusual else "Perhaps unusual"
        text = f"**{sure}: {listing.summary(result.findings)}.** Listed up to {number(level)} expected false findings "
        text += f"per healthy scan: {round(share.estimate * share.n)} of {share.n} healthy subjects have one or more."
        if strong:
            text += f" {strong} of {len(result.findings)} passes" if strong == 1 else f" {strong} pass"
            text += f" the family-wise level: at most {100 * target:g} % of healthy scans have a voxel above "
            return f"{text}{calibration.threshold:.2f}. {numbers}.", "bad"
        text += " None passes the family-wise level."
        if unusual:
            return f"{text} But {as_a_whole}: {numbers}.", "bad"
        return f"{text} {numbers}.", "neutral"
    if unusual:
        return f"**Unusual as a whole.** No finding stands out, but {as_a_whole}: {numbers}.", "bad"
    return f"**Ordinary: no finding.** Nothing is unusual among the scored voxels: {numbers}.", "neutral"
