"""False-positive rates by age, sex and scanner: the numbers of a run and their report section."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from medgen.anomaly.evaluation import HEALTHY, Measurement
from medgen.anomaly.groups import DEVELOPMENT, TEST, GroupRow, group_rows, out_of_fold_p
from medgen.report.html import Report

if TYPE_CHECKING:
    from medgen.anomaly.detector import AnomalyDetector
    from medgen.cases import Manifest
    from medgen.dataset import Dataset

COLUMNS = ("column", "group", "source", "subjects", "flagged", "fpr", "low", "high")


def groups_of(
    manifest: Manifest, measurements: Sequence[Measurement], detector: AnomalyDetector, development: Dataset
) -> list[GroupRow]:
    """Rows for held-out healthy subjects, then for development subjects ranked among each other."""
    name, target = detector.config.scan_score, detector.config.calibration.target_fpr
    tested: dict[str, float] = {}
    for item in measurements:
        if item.kind == HEALTHY:
            tested[item.subject] = min(item.p_values[name], tested.get(item.subject, 1.0))
    # The calibration holds one score per subject, in this order.
    subjects = list(dict.fromkeys(development.subjects))
    ranked = dict(zip(subjects, out_of_fold_p(detector.calibration.scores[name]).tolist(), strict=True))
    return [*group_rows(manifest, tested, target, TEST), *group_rows(manifest, ranked, target, DEVELOPMENT)]


def csv_rows(rows: Sequence[GroupRow]) -> list[dict[str, Any]]:
    """Lines of ``groups.csv``."""
    values = [(r.column, r.group, r.source, r.subjects, r.flagged, r.fpr.estimate, r.fpr.low, r.fpr.high) for r in rows]
    return [dict(zip(COLUMNS, line, strict=True)) for line in values]


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
