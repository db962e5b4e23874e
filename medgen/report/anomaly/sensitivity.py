"""What findings find: the headline tables of an evaluation, and what is missed."""

from __future__ import annotations

from medgen.anomaly.evaluation.hits import RULE
from medgen.anomaly.evaluation.sensitivity import Group, Sensitivity, Share
from medgen.anomaly.findings.listing import number
from medgen.metrics.interval import Interval
from medgen.report.figures.curves import interval_plot
from medgen.report.html import Report

# Implants of a group from which on an interval says something: two that are found are no 100 %.
_ENOUGH = 5
# Rows of the table of missed implants; `scans.csv` has all.
_LISTED = 20


def sensitivity_section(report: Report, found: Sensitivity) -> None:
    """What is found by level, kind, size and contrast, false findings in healthy scans, and what is missed."""
    report.section(
        "Findings",
        "The share of implants with a finding on them, by how many findings a healthy scan is expected to have (FROC: "
        f"Bunch 1978). {RULE} untouched: the same places in the scans without implants. Intervals: 95 %, resampling "
        "subjects; of false findings for counts that vary more than Poisson counts.",
    )
    healthy = {item.level: item for item in found.healthy}
    report.table(
        ["expected false findings", "implants found", "share", "untouched", "measured in held-out healthy scans"],
        [(number(own.level), own.found, own.share, own.untouched, healthy[own.level].measured)
         for own in found.everything.shares],
        f"{found.everything.scans} implants; the run lists findings up to {number(found.level)}.",
        highlight=[number_ for number_, own in enumerate(found.everything.shares) if own.level == found.level],
    )  # fmt: skip
    kinds = [group for group in found.by("kind") if group.scans >= _ENOUGH]
    if kinds:
        report.figure(
            interval_plot(
                [f"{group.name} ({group.scans})" for group in kinds],
                [_at(found, group) for group in kinds],
                f"share found at {number(found.level)} expected false findings, 95 %",
            ),
            f"Implants with a finding on them, by kinds with at least {_ENOUGH} implants (their number in brackets).",
            "Share of implants found by kind",
        )
    for by, heading in (("kind", "implant"), ("radius", "radius"), ("contrast", "contrast")):
        report.table(
            [heading, "scans", *(f"at {number(own.level)}" for own in found.everything.shares)],
            [(group.name, group.scans, *(_share(group, own) for own in group.shares)) for group in found.by(by)],
            f"Implants found by {heading}, at so many expected false findings per healthy scan: their share, with less "
            f"than {_ENOUGH} implants their number.",
        )
    report.table(
        ["missed", "kind", "radius (mm)", "contrast", "would be listed at"],
        [(m.case, m.kind, m.radius_mm, m.contrast, m.expected_false) for m in found.missed[:_LISTED]],
        f"{len(found.missed)} of {found.everything.scans} implants have no finding on them"
        f"{f', the first {_LISTED} here' if len(found.missed) > _LISTED else ''}; would be listed at: expected false "
        "findings per healthy scan from which on there is one; \N{INFINITY}: no candidate is on it.",
    )


def _share(group: Group, own: Share) -> Interval | str:
    return own.share if group.scans >= _ENOUGH else f"{own.found} of {group.scans}"


def _at(found: Sensitivity, group: Group) -> Interval:
    return next(share.share for share in group.shares if share.level == found.level)
