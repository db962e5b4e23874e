"""The first screen of a report as Markdown, and its pictures as files: the same objects, for MLflow's pages."""

from __future__ import annotations

import base64
from collections.abc import Iterator

from medgen.report.html import Report

_PNG = "data:image/png;base64,"


def markdown(report: Report) -> str:
    """What stands before the first section: verdicts as quotations, facts as a table, texts as they are.

    >>> report = Report("Anomaly detection")
    >>> report.verdict("**Found**: 3 of 4.", "good")
    >>> report.facts({"scans": 12})
    >>> report.section("Limits", "Not shown.")
    >>> print(markdown(report))
    > **Found**: 3 of 4.
    <BLANKLINE>
    | | |
    |---|---|
    | scans | 12 |
    """
    parts = []
    for block in report.front():
        if block["kind"] == "verdict":
            parts.append("\n".join(f"> {line.strip()}".rstrip() for line in block["words"].strip().splitlines()))
        elif block["kind"] == "facts" and block["rows"]:
            rows = [f"| {_cell(name)} | {_cell(value)} |" for name, _, value in block["rows"]]
            parts.append("\n".join(["| | |", "|---|---|", *rows]))
        elif block["kind"] == "text":
            parts.append(block["words"].strip())
    return "\n\n".join(parts)


def pictures(report: Report) -> Iterator[tuple[str, int, bytes]]:
    """Section, number within it and bytes of every PNG of a report, in the order in which they are seen."""
    for title, blocks in [("First screen", report.front()), *report.sections()]:
        shown = [block["source"] for block in blocks if block["kind"] == "figure"]
        still = [source.removeprefix(_PNG) for source in shown if source.startswith(_PNG)]
        for number, source in enumerate(still):
            yield title, number, base64.b64decode(source)


def _cell(text: object) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")
