"""Which synthetic scans were accepted, and why the others were not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from medgen.report.html import Report
from medgen.synthesis.backend import Backend
from medgen.synthesis.filtering.checks import check_name
from medgen.synthesis.filtering.filter import Filter
from medgen.synthesis.filtering.pool import CandidatePool


def filter_section(
    report: Report, pool: CandidatePool, backends: Sequence[Backend], filters: Filter, label_names: Mapping[int, str]
) -> None:
    """How many scans of every backend were accepted, which checks the others failed, and the bounds."""
    report.section("Filter", "A scan that fails any check, or that a check cannot judge, is not used.")
    rows: list[tuple[str, int, int, str]] = []
    for backend in backends:
        accepted, rejected = pool.accepted(backend.name), pool.rejected(backend.name)
        share = f"{len(accepted) / max(len(accepted) + len(rejected), 1):.0%}"
        rows.append((backend.name, len(accepted), len(rejected), share))
    report.table(["backend", "accepted", "rejected", "acceptance"], rows)
    counts: dict[tuple[str, str], int] = {}
    for candidate in pool.rejected():
        for reason in candidate.filtered.reasons:
            key = (candidate.backend, check_name(reason, label_names))
            counts[key] = counts.get(key, 0) + 1
    if counts:
        table = [(backend, check, count) for (backend, check), count in sorted(counts.items())]
        report.table(
            ["backend", "failed check", "scans"],
            table,
            "A scan can fail several checks; rejections.csv has the numbers.",
        )
    report.section("Bounds of the filter", "All are taken from the training scans.", layer="appendix")
    real = list(filters.agreement.values())
    report.facts(
        {
            "label agreement (Dice) that real scans reach out of fold": f"{min(real):.3f} to {max(real):.3f}",
            "label agreement required": filters.agreement_bound,
            "likeness r above which a scan counts as a copy, towards everybody who is no parent": filters.copy_bound,
            "likeness r above which a deformed scan counts as a copy of its parent": filters.identity_bound,
        }
    )
