"""Report sections about scans that are not scored, and about training scans that may not be healthy."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence

from medgen.anomaly.evaluation.contamination import OUTLIER, Suspect
from medgen.anomaly.evaluation.screening import Screening
from medgen.anomaly.gate import CHECKS, Gate
from medgen.report.html import Report


def gate_section(report: Report, gate: Gate | None, screening: Screening) -> None:
    """Limits of the gate beside what healthy development and test scans reach, and the test scans left out."""
    if gate is None:
        report.section(
            "Abstaining",
            "This model has no gate (`anomaly.gate.enabled=false`): no scan is refused for its looks.",
            layer="appendix",
        )
        _outside(report, screening)
        return
    report.section(
        "Abstaining",
        "A scan that fails any of these checks as a whole is refused and not scored. Development values: each scan "
        "against those of other subjects.",
        layer="appendix",
    )
    rows = []
    for name, limit in gate.limits.items():
        seen = screening.values.get(name, [])
        rows.append(
            (
                CHECKS[name].what + (f" ({CHECKS[name].unit})" if CHECKS[name].unit else ""),
                limit.low if math.isfinite(limit.low) else None,
                limit.high if math.isfinite(limit.high) else None,
                _range(limit.values.tolist()),
                _range(seen),
            )
        )
    report.table(
        ["check", "lowest allowed", "highest allowed", "healthy development scans", "healthy test scans"], rows
    )
    report.facts({"healthy test subjects with a refused scan": screening.abstained})
    if screening.refused:
        report.table(["test scan", "why it was refused"], [(f.case, f.message) for f in screening.refused])
    _outside(report, screening)


def _outside(report: Report, screening: Screening) -> None:
    """Test scans of people beyond what the normative maps are adjusted for; nothing if there are none."""
    if screening.outside:
        report.text(
            "Not evaluated, though nothing is wrong with the scans: nothing was learnt of people like these, so that a "
            "new scan of one is not scored either."
        )
        report.table(["test scan", "whom it shows"], [(f.case, f.message) for f in screening.outside])


def abstained_section(report: Report, abstained: Sequence[tuple[str, str]]) -> None:
    """New scans that were refused as a whole: (name, reason); nothing if there are none."""
    if abstained:
        report.section(
            "Abstained",
            "Not scored: the scan as a whole is not like the healthy scans of this model, so no score of it would mean "
            "anything. This says nothing about lesions, neither that there are any nor that there are none.",
        )
        report.table(["scan", "why"], abstained)


def artefact_section(report: Report, spoilt: Sequence[tuple[str, str]]) -> None:
    """New scans that look like an artefact: (name, what and by which number); nothing if there are none."""
    if spoilt:
        report.section(
            "Likely artefacts",
            "Scored, but nothing is claimed: they go beyond all healthy scans in what an artefact changes. What is hot "
            "in them is shown as hot places, not as findings, and they have ranks among the healthy scans, but no "
            "p-values. A lesion may be there all the same.",
        )
        report.table(["scan", "what it looks like"], spoilt)


def outside_section(report: Report, outside: Sequence[tuple[str, str]]) -> None:
    """New scans that were scored although the gate refuses them: (name, reason); nothing if there are none."""
    if outside:
        report.section(
            "Outside the cohort",
            "Scored on request although they are not like the healthy scans of this model: another scanner or protocol "
            "is itself an anomaly. They have heatmaps and ranks among the healthy scans, no p-values and no findings.",
        )
        report.table(["scan", "what the gate found"], outside)


def contamination_section(report: Report, suspects: Sequence[Suspect]) -> None:
    """Development scans that stand out among the others."""
    text = (
        "Development subjects whose out-of-fold scan score or hottest voxel has a robust z above "
        f"{OUTLIER:g} (median and MAD)."
    )
    if not suspects:
        report.section("Contaminated training scans", f"{text} None stands out.", layer="appendix")
        return
    report.section("Contaminated training scans", f"{text} **Look at these before trusting the model.**")
    rows = [
        (s.case, s.subject, s.scan_score, s.score, s.robust_z, " ".join(f"{value:.1f}" for value in s.peak_ras))
        for s in suspects
    ]
    report.table(["case", "subject", "by", "score", "robust z", "hottest at R A S (mm, the scan's own origin)"], rows)
    for suspect in suspects:
        if suspect.picture:
            report.figure(suspect.picture, f"{suspect.case} through its hottest voxel.", f"Suspect {suspect.case}")
    named = shlex.quote(f"exclude={json.dumps([suspect.case for suspect in suspects])}")
    report.text(
        "What is not healthy is left out by its name, a list of some or all of these: add "
        f"`{named} --resume` to the command of this run. Models are kept, the calibration is made again."
    )


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.3g} to {max(values):.3g}" if values else ""
