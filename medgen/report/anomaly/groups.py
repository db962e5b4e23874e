"""False-positive rates by age, sex and scanner: the numbers of a run and their report section."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from medgen.anomaly.evaluation.groups import GroupRow
from medgen.report.html import Report

if TYPE_CHECKING:
    pass


def groups_section(report: Report, rows: Sequence[GroupRow], target: float) -> None:
    """A table of false-positive rates; nothing where the manifest says nothing of age, sex, scanner or site."""
    if not rows:
        return
    report.section(
        "Groups",
        f"Healthy subjects with p at or below {100 * target:g} %, exact 95 % intervals. Test subjects were held out. "
        "Development subjects are ranked among each other out of fold: their overall rate is near the target by "
        "construction, and only differences between groups tell. Wide intervals mean that nothing can be said.",
    )
    report.table(
        ["column", "group", "subjects from", "subjects", "flagged", "false-positive rate"],
        [(r.column, r.group, r.source, r.subjects, r.flagged, r.fpr) for r in rows],
    )
