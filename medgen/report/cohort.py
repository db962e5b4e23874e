"""What every report says of its cohort: what it was taken for, and whether outputs may name patients."""

from __future__ import annotations

from medgen.data.account import account
from medgen.data.cases import Manifest
from medgen.report.html import Report

NOTE = (
    "file and folder names of the DICOM series become ids in outputs (tables, reports, heatmaps) and may name "
    "patients; `medgen data import SRC OUT` makes a copy with pseudonyms to run on instead"
)


def taken_table(report: Report, manifest: Manifest) -> None:
    """What the cohort was taken for, as a table of a report; without names of files, which may name patients."""
    told = [line.partition(": ")[::2] for line in account(manifest, examples=False)]
    report.table(["of the cohort", "taken for"], told, "What was found in the cohort's folder, and what was left out.")


def limits(text: str, named_by_folders: bool) -> str:
    """The limits of a report, a list in Markdown, with the note on patients' names as one more item where it applies.

    Args:
        text: The list.
        named_by_folders: Whether ids are the names of DICOM folders.
    """
    return f"{text.rstrip()}\n- {NOTE[0].upper()}{NOTE[1:]}.\n" if named_by_folders else text
