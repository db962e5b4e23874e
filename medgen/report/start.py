"""What a training started from, in reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medgen.report.html import Report
from medgen.training.transfer.start import sentences


def start_section(report: Report, record: Mapping[str, Any] | None, name: str = "") -> None:
    """What was taken from which model, and a line for each tensor that was not; nothing for a start from scratch.

    Args:
        report: The report, in its section on training.
        record: Of the start, see :meth:`medgen.training.transfer.start.Start.record`.
        name: Of the training, where there are several.
    """
    if record is None:
        return
    first = f"**{name}** " if name else ""
    report.text(first + " ".join(sentences(record)))
    if rows := [line.split(": ", 1) for line in record["mismatches"]]:
        report.table(["tensor", "why it was not taken"], rows, "Not taken from the source")


def source_tags(*records: Mapping[str, Any] | None) -> dict[str, str]:
    """The digests of the models that trainings started from, as a tag for MLflow; none where there are none."""
    digests = sorted({str(record["sha256"]) for record in records if record is not None})
    return {"medgen.init.sha256": ", ".join(digests)} if digests else {}
