"""A word on ids that are the names of DICOM folders: they go into every output, and may name patients."""

from __future__ import annotations

import sys

NOTE = (
    "file and folder names of the DICOM series become ids in outputs (tables, reports, heatmaps) and may name "
    "patients; `medgen data import SRC OUT` makes a copy with pseudonyms to run on instead"
)


def warn(named_by_folders: bool) -> None:
    """Say it once on stderr, before anything is written, if the scans are named by DICOM folders."""
    if named_by_folders:
        print(f"warning: {NOTE}", file=sys.stderr)


def limits(text: str, named_by_folders: bool) -> str:
    """The limits of a report, a list in Markdown, with the note as one more item where it applies."""
    return f"{text.rstrip()}\n- {NOTE[0].upper()}{NOTE[1:]}.\n" if named_by_folders else text
