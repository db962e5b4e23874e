"""What moving a detector to another site has changed, in a sentence and a table."""

from __future__ import annotations

from medgen.anomaly.adaptation import Adapted
from medgen.anomaly.detector import AnomalyDetector
from medgen.anomaly.findings.false_findings import count_interval
from medgen.anomaly.findings.listing import number
from medgen.report.html import Report, fmt

# Scans named in a sentence before it says how many more there are.
_NAMED = 5


def adapted_words(old: AnomalyDetector, adapted: Adapted) -> str:
    """How many false findings healthy scans of the site have before and after."""
    level, healthy = old.config.findings.false_findings, adapted.detector.calibration.healthy
    return (
        f"{healthy.n} healthy subjects of the new site have {fmt(count_interval(adapted.false_findings))} findings per "
        f"scan by the old detector and {fmt(healthy.rate(level))} by the new one, each left out of its calibration, "
        f"where {number(level)} are aimed at"
    )


def refused_words(adapted: Adapted) -> str:
    """Which scans of the site the old gate refuses, in a sentence; empty if none."""
    names = adapted.refused
    if not names:
        return ""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return (
        f"the gate of the old detector refuses {len(names)} of these scans ({', '.join(names[:_NAMED])}{more}): look "
        "whether they show what the model has learnt, since the new one takes them for healthy"
    )


def adaptation_section(
    report: Report, old: AnomalyDetector, adapted: Adapted, source_sha256: str, missing: str = ""
) -> None:
    """The old detector and the new one on the healthy scans of the new site.

    Args:
        report: The report.
        old: The detector as it came.
        adapted: What was made of it.
        source_sha256: Digest of the old model.
        missing: The channels that the scans of this detector lack.
    """
    without = f"Without {missing}: " if missing else ""
    report.verdict(f"{without}{adapted_words(old, adapted)}.")
    if words := refused_words(adapted):
        report.verdict(f"{without}{words}.", "bad")
    new, n = adapted.detector, adapted.detector.calibration.healthy.n
    was = old.config.calibration.target_fpr
    report.section(
        f"Before and after, without {missing}" if missing else "Before and after",
        "The networks are the old ones. At every place the z of each score was moved and scaled to what the healthy "
        "scans of the new site have there; gate, words for looks and calibration are of these scans alone. Numbers of "
        "the new detector are of each subject with means, scales and calibration of the others.",
    )
    level = old.config.findings.false_findings
    report.table(
        ["", "old detector", "new detector"],
        [
            ("findings per healthy scan", count_interval(adapted.false_findings), new.calibration.healthy.rate(level)),
            ("threshold of findings (z)", old.findings_threshold, new.findings_threshold),
            ("family-wise level", f"{100 * was:g} %", f"{100 * adapted.target:g} %"),
            ("threshold of family-wise findings (z)", old.calibration.threshold, new.calibration.threshold),
            ("subjects with a voxel above it", f"{adapted.passing} of {n}", None),
            ("scans that the gate refuses", len(adapted.refused), None),
            ("subjects in the calibration", old.calibration.healthy.n, n),
        ],
    )
    if adapted.target > was:
        report.text(
            f"{n} subjects cannot certify {100 * was:g} %: the family-wise level is {100 * adapted.target:g} %, the "
            "smallest that they can."
        )
    report.facts({"old model (SHA-256)": source_sha256, "healthy means and variances": new.adjusted.words})
