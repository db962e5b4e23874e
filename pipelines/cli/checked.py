"""What ``medgen data check`` says: what was taken for what, a table of the cases, every fault."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from medgen.data.account import account
from medgen.data.integrity import CheckResult
from medgen.data.looked import CheckedCase
from medgen.system.advice import as_options

from .answer import JSON, Answer

if TYPE_CHECKING:
    from collections.abc import Mapping

SHOWN = 20
HEADS = ("case", "subject", "voxels", "mm", "axes", "contrasts", "labels")


def answer(path: Path, result: CheckResult) -> Answer:
    """What to say of a checked path: a table of what can be used, or the faults."""
    lines = list(result.scan if result.manifest is None else account(result.manifest))
    names = {} if result.manifest is None else result.manifest.labels
    if result.manifest is not None and result.scans:
        lines += ["", *table([HEADS, *(cells(case, names) for case in result.scans[:SHOWN])])]
        if len(result.scans) > SHOWN:
            lines.append(f"... and {len(result.scans) - SHOWN} more of {len(result.scans)}; {JSON} lists all")
        lines.append("")
    faults = [as_options(str(replace(fault, found=f"found {fault.found}"))) for fault in result.faults]
    count = f"{len(result.faults)} fault(s) in {result.cases} case(s)"
    lines.append(count if result.faults else f"{result.cases} case(s), no fault")
    notes = [f"note: {note}" for note in result.notes]
    return Answer(result.to_plain(path), tuple(map(as_options, lines)), (*faults, *notes), 2 if result.faults else 0)


def cells(case: CheckedCase, names: Mapping[int, str]) -> tuple[str, ...]:
    """A case as a line of the table, in the order of ``HEADS``."""
    if not case.shape:
        return (case.id, case.subject, "unreadable", "", "", "", "")
    contrasts = ", ".join(case.contrasts) or str(case.channels)
    labels = ", ".join(f"{value} {names[value]}" if value in names else str(value) for value in case.labels[:6])
    more = f" and {len(case.labels) - 6} more" if len(case.labels) > 6 else ""
    return (
        case.id,
        case.subject,
        " x ".join(map(str, case.shape)),
        " x ".join(f"{size:.4g}" for size in case.spacing),
        case.axes,
        contrasts,
        f"{labels}{more}" if case.labels else "none" if case.masked else "no mask",
    )


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells in aligned columns.

    >>> table([("case", "mm"), ("a", "2 x 2 x 2")])
    ['case  mm', 'a     2 x 2 x 2']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return [line.rstrip() for line in padded]
