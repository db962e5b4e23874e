"""The cohort of a run on labelled scans: who is in which part, and what labels of unlabelled scans are worth."""

from __future__ import annotations

from collections.abc import Mapping

from medgen.data.cases import Manifest
from medgen.report.cohort import taken_table
from medgen.report.html import Report
from medgen.synthesis.cohort.consensus import Consensus
from medgen.synthesis.cohort.prepared import PreparedCohort
from medgen.synthesis.cohort.split import CohortSplit
from medgen.synthesis.value.verdict import listed


def cohort_section(report: Report, manifest: Manifest, parts: CohortSplit, prepared: PreparedCohort) -> None:
    """Numbers of subjects and scans of every part, labels, model grid, and the scans that were left out."""
    report.section("Cohort", layer="appendix")
    rows = [
        (name, len(part.subjects), len(part), len(data) if (data := prepared.data.get(name)) is not None else 0)
        for name, part in parts.named().items()
    ]
    used = {case.id for part in parts.named().values() for case in part}
    idle = [case for case in manifest if case.id not in used]
    if idle:
        rows.append(("not used", len({case.subject for case in idle}), len(idle), 0))
    report.table(["part", "subjects", "scans", "prepared"], rows, "Parts are disjoint by subject.")
    taken_table(report, manifest)
    grid = prepared.preprocess.canonical()
    spacing = " x ".join(f"{step:g}" for step in grid.spacing)
    report.facts(
        {
            "labels": ", ".join(f"{label} {name}" for label, name in prepared.label_names.items()),
            "model grid": f"{' x '.join(map(str, grid.shape))} voxels of {spacing} mm",
        }
    )
    if prepared.failures:
        report.table(["case", "reason"], [tuple(failure) for failure in prepared.failures], "Scans left out")


def consensus_sentence(consensus: Consensus, label_names: Mapping[int, str]) -> str:
    """What became of the unlabelled scans, in words; empty if there were none to label."""
    agreement = consensus.agreement
    if consensus.biased:
        named = listed([label_names[label] for label in consensus.biased])
        return (
            f"No unlabelled scan was labelled, since inferred labels are biased ({named}): these scans lend their "
            "images only."
        )
    if not agreement:
        return ""
    kept = 0 if consensus.scans is None else len(consensus.scans)
    return (
        f"{kept} of {len(agreement)} unlabelled scans were labelled by consensus, for the generators only. "
        f"Members agree with their consensus to a mean Dice of {min(agreement.values()):.3f} to "
        f"{max(agreement.values()):.3f}; below {consensus.bound:.3f} a scan is left out."
    )


def consensus_part(report: Report, consensus: Consensus, label_names: Mapping[int, str]) -> None:
    """What labels of the unlabelled scans are worth, measured on labelled ones."""
    if consensus.bias:
        rows = [
            (
                label_names[item.label],
                item.scans,
                item.volume_ratio,
                item.dice,
                item.real_difference,
                item.tolerance,
                "not inferred" if item.biased else "inferred",
            )
            for item in consensus.bias
        ]
        columns = ["label", "scans", "volume, inferred / human", "Dice", "real halves differ", "bias allowed", "result"]
        report.table(
            columns,
            rows,
            "Inferred labels beside human ones, on labelled scans that the segmenters had not learnt from; 95 % "
            "intervals over subjects. The last two numbers are differences of log volume (0.1 is about 10 %): a label "
            "is inferred if its bias is no larger than what two halves of the real subjects differ by, or may be "
            "chance.",
        )
    if text := consensus_sentence(consensus, label_names):
        report.text(text)
