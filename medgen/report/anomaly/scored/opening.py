"""What the page of a scored scan says first: what was scored and by what, whether it is unusual, where, how sure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medgen.anomaly.detector import AnomalyDetector, ScanResult
from medgen.data.simulation import SIMULATED
from medgen.report.anomaly.pictures import Scored
from medgen.report.anomaly.words import doubt_words, scan_words
from medgen.report.html import Report


@dataclass(frozen=True)
class Scorer:
    """What is known of the model that scores, besides the detector itself.

    Attributes:
        cohort: Name of the cohort that it was made from; empty if it is not known.
        finds: What it found in the test of its own run, in a sentence; empty if that is not at hand.
    """

    cohort: str = ""
    finds: str = ""


def scan_opening(report: Report, entry: Scored, detector: AnomalyDetector, scorer: Scorer, viewer: str = "") -> None:
    """The first screen of a scan's page.

    Args:
        report: Before anything else is said of the scan.
        entry: The scan and its result.
        detector: What scored it.
        scorer: What else is known of it.
        viewer: Path of the page to look through the scan, relative to this one; empty if there is none.
    """
    result = entry.result
    if result.doubts:
        report.verdict(doubt_words(result), "bad")
    else:
        report.verdict(*scan_words(result, detector.config, detector.calibration))
    report.facts(scan_facts(entry, detector, scorer))
    if viewer:
        report.link("Look through the scan", viewer, "slices, heat and findings in the browser")
    report.text("**Next**\n\n" + "\n".join(f"- {step}" for step in next_steps(result, scorer)))


def scan_facts(entry: Scored, detector: AnomalyDetector, scorer: Scorer) -> dict[str, str]:
    """What was scored, against whom, and whether it is a scan of the kind that the model knows."""
    grid, result, healthy = entry.scan.grid, entry.result, len(detector.calibration.maxima)
    # What tells how sure the answer is, in two numbers; of a scan with doubts there are none.
    level = detector.config.findings.false_findings
    sure = {} if result.doubts else {"how sure": _sure_words(result, detector, level)}
    size = " x ".join(map(str, grid.shape))
    spacing = " x ".join(f"{step:.3g}" for step in grid.spacing)
    contrasts = f", {', '.join(result.contrasts)}" if len(result.contrasts) > 1 else ""
    where = f" of {scorer.cohort}" if scorer.cohort else ""
    return {
        "scan": f"{size} voxels of {spacing} mm{contrasts}",
        "compared with": f"{healthy} healthy subjects{where}",
        "is it such a scan": _gate_words(result, detector),
        **sure,
    }


def next_steps(result: ScanResult, scorer: Scorer) -> Sequence[str]:
    """What to do with the result, and what it does not say."""
    steps = []
    if scorer.cohort == SIMULATED:
        steps.append("Practice only: this model has seen simulated scans alone, and says nothing about a person.")
    if result.doubts.refused:
        steps.append("Use a model of scans like this one: another scanner or protocol is itself an anomaly.")
    elif result.doubts:
        steps.append("Look at the scan for the artefact; where there is one, repeat the scan or leave it out.")
    places = result.findings or result.unlisted
    if places:
        what = "finding" if result.findings else "hot place"
        count = f"the {what}" if len(places) == 1 else f"each of {len(places)} {what}s"
        steps.append(
            f"Look at {count} in the scan without overlay, and in other contrasts where there are any: unusual is not "
            "diseased."
        )
    else:
        steps.append("Read the scan as always: no finding does not show that it is healthy.")
    if scorer.finds:
        steps.append(scorer.finds)
    return steps


def _sure_words(result: ScanResult, detector: AnomalyDetector, level: float) -> str:
    """How many healthy scans look like it."""
    share = detector.calibration.healthy.share_with_finding(level)
    return (
        f"p (max) = {result.p_values['max']:.3f}; {round(share.estimate * share.n)} of {share.n} healthy have findings"
    )


def _gate_words(result: ScanResult, detector: AnomalyDetector) -> str:
    if result.doubts.refused:
        return "no: the gate refuses it"
    if result.doubts:
        return f"in doubt: {result.doubts.why}"
    if detector.gate is None:
        return "not asked: this model has no gate"
    return "yes: it passes the gate"
