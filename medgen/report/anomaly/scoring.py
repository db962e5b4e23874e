"""The report of new scans: verdict, pseudo-healthy comparison and findings of each."""

from __future__ import annotations

from collections.abc import Sequence

from medgen.anomaly.detector import AnomalyDetector
from medgen.report.anomaly.gate import abstained_section, outside_section
from medgen.report.anomaly.pictures import Scored, comparison_section, findings_section, peak_of, picture_caption
from medgen.report.anomaly.words import scan_words
from medgen.report.figures.mosaic import mosaic
from medgen.report.html import Report

UNGATED_WORDS = (
    "The gate refuses this scan, and it was scored all the same: p-values, threshold and findings mean nothing here."
)


def scoring_sections(
    report: Report,
    detector: AnomalyDetector,
    scored: Sequence[Scored],
    failures: Sequence[tuple[str, str, str]],
    outside: Sequence[tuple[str, str]],
    model_sha256: str,
) -> None:
    """Tables of all scans, then a section for each.

    Args:
        report: The report.
        detector: What scored them.
        scored: The scans that could be scored.
        failures: Case, stage and reason of the others; the stage ``gate`` is an abstention.
        outside: Name and reason of scans that the gate refuses and that were scored all the same.
        model_sha256: Digest of the model.
    """
    target = detector.config.calibration.target_fpr
    abstained = [(name, reason) for name, stage, reason in failures if stage == "gate"]
    unusable = [(name, reason) for name, stage, reason in failures if stage != "gate"]
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
