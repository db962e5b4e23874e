"""False-positive rates by group: whether healthy men, older subjects or one scanner are flagged more often."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from medgen.anomaly.evaluation.measure import HEALTHY, Measurement

if TYPE_CHECKING:
    from medgen.anomaly.detector import AnomalyDetector
    from medgen.data.cases import Manifest
    from medgen.preprocessing.dataset import Dataset

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medgen.anomaly.calibration import significant
from medgen.anomaly.normative.values import sex, years
from medgen.data.cases import Case
from medgen.metrics.bootstrap import binomial_interval
from medgen.metrics.interval import Interval

COLUMNS = ("age", "sex", "scanner", "site")
TEST = "test"
DEVELOPMENT = "development, out of fold"
UNKNOWN = "unknown"
# Fixed beforehand: bands cut to the cohort would let a reader's eye find a difference in any cohort.
_BANDS = ((18, "0-17"), (40, "18-39"), (60, "40-59"), (80, "60-79"))


@dataclass(frozen=True)
class GroupRow:
    """The healthy subjects of one group.

    Attributes:
        column: Column of the manifest that makes the groups: ``age``, ``sex``, ``scanner`` or ``site``.
        group: Band or value.
        source: ``"test"``: held-out subjects. ``"development, out of fold"``: subjects whose scans calibrate, ranked
            among the others; their overall rate is the target by construction, only differences between groups tell.
        subjects, flagged: How many, and how many with p at or below the target.
        fpr: Share flagged, exact binomial interval.
    """

    column: str
    group: str
    source: str
    subjects: int
    flagged: int
    fpr: Interval


def group_of(column: str, value: str) -> str:
    """The group that a cell of a manifest belongs to; ``"unknown"`` for what cannot be read.

    >>> group_of("age", "45"), group_of("age", "006M"), group_of("age", "89+"), group_of("age", "n/a")
    ('40-59', '0-17', '80+', 'unknown')
    >>> group_of("sex", "F"), group_of("scanner", " Trio "), group_of("site", "")
    ('female', 'Trio', 'unknown')
    """
    text = value.strip()
    if column == "age":
        age = years(text)
        return UNKNOWN if age is None else next((name for limit, name in _BANDS if age < limit), "80+")
    return (sex(text) if column == "sex" else text) or UNKNOWN


def out_of_fold_p(scores: ArrayLike) -> NDArray[np.float64]:
    """Conformal p of each of n healthy scores among the n - 1 others, (n,): (1 + others at least as high) / n.

    >>> out_of_fold_p([1.0, 3.0, 2.0, 3.0]).tolist()
    [1.0, 0.5, 0.75, 0.5]
    """
    values = np.asarray(scores, dtype=np.float64)
    return np.asarray((values[None, :] >= values[:, None]).sum(axis=1) / values.size, dtype=np.float64)


def group_rows(cases: Iterable[Case], p_values: Mapping[str, float], target: float, source: str) -> list[GroupRow]:
    """False-positive rates of the subjects in ``p_values``, for every column that a case has.

    Args:
        cases: Cases of the manifest; columns are found whatever their case, a subject has the value of its first
            case that has one.
        p_values: Per healthy subject, p of its most unusual scan.
        target: A subject is flagged at or below it.
        source: Which subjects the p-values are of, for :attr:`GroupRow.source`.

    Returns:
        Rows by column, then by group; nothing where no case has such a column, or where so few subjects were ranked
        that no p could be as low as the target.
    """
    if source == DEVELOPMENT and len(p_values) * target < 1 - 1e-9:
        return []
    found: dict[str, dict[str, str]] = {column: {} for column in COLUMNS}
    for case in cases:
        for name, value in case.attributes.items():
            column = name.strip().lower()
            if column in found and value.strip() and case.subject in p_values:
                found[column].setdefault(case.subject, group_of(column, value))
    rows = []
    for column, own in found.items():
        if not own:
            continue
        groups: dict[str, list[bool]] = {}
        for subject, p in p_values.items():
            groups.setdefault(own.get(subject, UNKNOWN), []).append(significant(p, target))
        for group in sorted(groups):
            flags = groups[group]
            k, n = sum(flags), len(flags)
            rows.append(GroupRow(column, group, source, n, k, binomial_interval(k, n)))
    return rows


CSV_COLUMNS = ("column", "group", "source", "subjects", "flagged", "fpr", "low", "high")


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
    return [dict(zip(CSV_COLUMNS, line, strict=True)) for line in values]
