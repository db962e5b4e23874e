"""The audit in the report of an augment run: controls first, then every number with what was expected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from medgen.report.figures.mosaic import sample_pairs
from medgen.report.html import Report, png
from medgen.runs.folder import RunFolder
from medgen.synthesis.filtering.pool import Candidate, CandidatePool
from medgen.synthesis.privacy.results import Audit, BackendAudit
from medgen.system.files import write_bytes
from medgen.volume import Volume

# Scan, its nearest real scan, and the labels of both where known.
Pair = Callable[[Candidate, str], tuple[Volume, Volume, Volume, Volume | None]]

_TEXT = """
Accepted scans are compared with every training scan, labelled or not, and with held-out scans that nothing was \
learnt from. The likeness r is the mean correlation of blocks that may each move by two voxels, in any mirror image. \
The audit says something only if it finds the copies that were planted (positive controls) and does not accuse scans \
of other people (negative control).
"""


def printed_audit(audit: Audit) -> list[str]:
    """The audit as lines for the terminal."""
    lines = [] if audit.valid else [f"memorisation audit NOT VALID: {'; '.join(audit.problems)}"]
    return lines + [f"{name}: stamp: {item.stamp} ({item.reason})" for name, item in audit.backends.items()]


def audit_section(
    report: Report,
    audit: Audit,
    pool: CandidatePool,
    pair: Pair,
    names: Mapping[int, str],
    folder: RunFolder,
) -> None:
    """Add the section; pictures are also written to ``figures/``.

    Args:
        report: To add to.
        audit: What was found.
        pool: The candidates after the audit.
        pair: The volumes of a candidate beside a training case.
        names: Label → name.
        folder: The run's folder, which the pictures are written to.
    """
    report.section("Memorisation audit", _TEXT)
    for name, item in audit.backends.items():
        kind: Any = {"share": "good", "internal use only": "neutral"}.get(item.stamp, "bad")
        report.verdict(f"{name}: {item.stamp}: {item.reason}.", kind)
    report.text(_validity(audit))
    for name, item in audit.backends.items():
        _picture(report, name, item, pool, pair, names, folder)
    report.section("Numbers of the audit", layer="appendix")
    rows = [
        (item.name, item.kind, item.interval, item.expected, "as expected" if item.passed else "FAILED")
        for item in audit.controls
    ]
    report.table(["control", "kind", "share or AUC", "expected", "verdict"], rows, "Controls. " + _validity(audit))
    for name, item in audit.backends.items():
        if item.checks:
            table = [
                (check.name, check.interval, check.expected, check.words if audit.valid else "not judged")
                for check in item.checks
            ]
            caption = f"{name}: {item.scans} accepted scans. " + (
                "A number is suspicious if its whole interval is above."
                if audit.valid
                else "Nothing follows from these numbers, since the audit failed its controls."
            )
            report.table(["check", "number", "expected at most", "verdict"], table, caption)
    report.text(
        f"Training: {audit.training[0]} subjects, {audit.training[1]} scans; held out, of all parts that nothing was "
        f"learnt from: {audit.held_out[0]} subjects, {audit.held_out[1]} scans. {_sentence(str(audit.bounds))}. "
        "Towards the subject of its own parent, whom it resembles by construction, a deformed scan counts as a copy "
        f"above r = {audit.bounds.identity:.3f} instead."
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _validity(audit: Audit) -> str:
    return "The audit is valid." if audit.valid else f"The audit is NOT valid: {'; '.join(audit.problems)}."


def _picture(
    report: Report,
    name: str,
    item: BackendAudit,
    pool: CandidatePool,
    pair: Pair,
    names: Mapping[int, str],
    folder: RunFolder,
) -> None:
    """The scan that resembles a training scan most, beside it."""
    if not item.likeness:
        return
    worst = max(sorted(item.likeness), key=lambda key: item.likeness[key])
    # A flagged scan carries another id since it was taken out.
    found = [c for c in pool.of(name) if c.id in (worst, f"rejected-{name}-{worst}") and c.synthetic is not None]
    if not found:
        return
    scan, real, labels, truth = pair(found[0], item.nearest[worst])
    likeness = f"r = {item.likeness[worst]:.3f}"
    figure = sample_pairs(
        [(scan, real)],
        labels=[(labels, truth)],
        names=[(worst, f"{item.nearest[worst]}, {likeness}")],
        label_names=names,
        title=f"{name}: the most suspicious scan and its nearest real one",
    )
    write_bytes(folder.figures / f"audit-{name}.png", png(figure))
    report.figure(
        figure, f"{name}: {worst} and the training scan it resembles most, {likeness}.", f"{name}: nearest pair"
    )
