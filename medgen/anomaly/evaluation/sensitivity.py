"""What findings find: the share of implants with a finding on them, at numbers of false findings per healthy scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.evaluation.measure import HEALTHY, Measurement
from medgen.anomaly.findings.false_findings import FROC_LEVELS, count_interval
from medgen.metrics.bootstrap import binomial_interval
from medgen.metrics.detection import thirds
from medgen.metrics.interval import Interval
from medgen.metrics.ranking import Resampler

COLUMNS = ("by", "group", "scans", "expected_false", "found", "share", "low", "high", "untouched")
ALL = "all"


@dataclass(frozen=True)
class Share:
    """Implants with a finding on them at one level.

    Attributes:
        level: Expected false findings per healthy scan.
        found: How many.
        share: Their share, with an interval from resampling subjects; exact (binomial, over subjects) where each
            subject has one implant, or where all or none are found.
        untouched: How many of the same places have a finding in the scan without its implant: what is found by chance,
            or because the place is unusual anyway.
    """

    level: float
    found: int
    share: Interval
    untouched: int


@dataclass(frozen=True)
class Group:
    """The implants of one kind, size or contrast.

    Attributes:
        by: ``all``, ``kind``, ``radius`` or ``contrast``.
        name: Which.
        scans: How many implanted scans.
        shares: What is found, by rising level.
    """

    by: str
    name: str
    scans: int
    shares: tuple[Share, ...]


@dataclass(frozen=True)
class FalseFindings:
    """Findings in the held-out healthy scans at one level.

    Attributes:
        level: Expected false findings per healthy scan.
        measured: How many a healthy scan has: the mean over subjects, see
            :func:`medgen.anomaly.findings.false_findings.count_interval`.
        with_finding: Healthy subjects with a finding in any of their scans.
    """

    level: float
    measured: Interval
    with_finding: int


@dataclass(frozen=True)
class Missed:
    """An implant without a finding on it at the level of the run.

    Attributes:
        case, kind, radius_mm, contrast: As in :class:`~medgen.anomaly.evaluation.measure.Measurement`.
        expected_false: Level at which the strongest candidate on it would be listed; infinite if there is none.
    """

    case: str
    kind: str
    radius_mm: float
    contrast: float
    expected_false: float


@dataclass(frozen=True)
class Sensitivity:
    """What findings find in an evaluation.

    Attributes:
        level: Expected false findings per healthy scan of the run.
        groups: All implants, then by kind, size and contrast, each at all levels.
        healthy: False findings in held-out healthy scans at all levels.
        missed: Implants without a finding, the nearest to one first.
    """

    level: float
    groups: tuple[Group, ...]
    healthy: tuple[FalseFindings, ...]
    missed: tuple[Missed, ...]

    @property
    def everything(self) -> Group:
        """All implants."""
        return self.groups[0]

    @property
    def operating(self) -> Share:
        """All implants at the level of the run."""
        return next(share for share in self.everything.shares if share.level == self.level)

    @property
    def false(self) -> FalseFindings:
        """The held-out healthy scans at the level of the run."""
        return next(item for item in self.healthy if item.level == self.level)

    def by(self, what: str) -> list[Group]:
        """The groups by ``kind``, ``radius`` or ``contrast``."""
        return [group for group in self.groups if group.by == what]

    def rows(self) -> list[dict[str, Any]]:
        """Lines of ``sensitivity.csv``."""
        found = []
        for group in self.groups:
            for own in group.shares:
                share = (own.share.estimate, own.share.low, own.share.high)
                values = (group.by, group.name, group.scans, own.level, own.found, *share, own.untouched)
                found.append(dict(zip(COLUMNS, values, strict=True)))
        return found


def sensitivity_of(measurements: Sequence[Measurement], level: float, bootstrap: int, seed: int) -> Sensitivity:
    """Sensitivity and false findings at the level of the run and at :data:`FROC_LEVELS`.

    Args:
        measurements: Scored healthy and implanted test scans.
        level: Expected false findings per healthy scan of the run.
        bootstrap: Resamples of the test subjects.
        seed: Seed of the resampling.
    """
    levels = sorted({*FROC_LEVELS, level})
    implanted = [item for item in measurements if item.kind != HEALTHY]
    resampler = Resampler([item.subject for item in measurements], bootstrap, seed)
    parts: dict[tuple[str, str], list[int]] = {(ALL, ALL): list(range(len(implanted)))}
    for kind in sorted({item.kind for item in implanted}):
        parts["kind", kind] = [row for row, item in enumerate(implanted) if item.kind == kind]
    parts |= {("radius", name): rows for name, rows in thirds([item.radius_mm for item in implanted], " mm").items()}
    for contrast in sorted({item.contrast for item in implanted}):
        parts["contrast", f"{contrast:g}"] = [row for row, item in enumerate(implanted) if item.contrast == contrast]
    groups = tuple(
        Group(by, name, len(rows), tuple(_share([implanted[row] for row in rows], own, resampler) for own in levels))
        for (by, name), rows in parts.items()
    )
    healthy = [item for item in measurements if item.kind == HEALTHY]
    missed = sorted((item for item in implanted if not item.is_found(level)), key=lambda item: item.on_implant)
    return Sensitivity(
        level=level,
        groups=groups,
        healthy=tuple(_false(healthy, own) for own in levels),
        missed=tuple(Missed(item.case, item.kind, item.radius_mm, item.contrast, item.on_implant) for item in missed),
    )


def _share(items: Sequence[Measurement], level: float, resampler: Resampler) -> Share:
    found = np.array([item.is_found(level) for item in items])
    subjects = [item.subject for item in items]
    if len(set(subjects)) == len(subjects) or found.all() or not found.any():
        # One implant of each subject is a plain count. Where all are found, or none, resampling has no width.
        people = len(set(subjects))
        share = binomial_interval(float(found.mean()) * people, people)
    else:
        share = resampler.mean(found.astype(np.float64), subjects)
    return Share(level, int(found.sum()), share, sum(item.is_found_untouched(level) for item in items))


def _false(healthy: Sequence[Measurement], level: float) -> FalseFindings:
    by_subject: Mapping[str, list[int]] = {item.subject: [] for item in healthy}
    for item in healthy:
        by_subject[item.subject].append(item.false_findings(level))
    means: NDArray[np.float64] = np.array([np.mean(own) for own in by_subject.values()])
    return FalseFindings(level, count_interval(means), int((means > 0).sum()))
