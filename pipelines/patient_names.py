"""What of a cohort may name patients, and what outputs do about it.

Ids that are the names of DICOM folders go into every output, with a word on it. Further columns of subject lists and
manifests stay behind, but for the few that name nobody.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from medgen.data.account import account
from medgen.data.cases import Manifest
from medgen.data.pseudonyms import plain_attributes
from medgen.faults import visible
from medgen.report.html import Report

NOTE = (
    "file and folder names of the DICOM series become ids in outputs (tables, reports, heatmaps) and may name "
    "patients; `medgen data import SRC OUT` makes a copy with pseudonyms to run on instead"
)


def warn(named_by_folders: bool) -> None:
    """Say it once on stderr, before anything is written, if the scans are named by DICOM folders."""
    if named_by_folders:
        print(f"warning: {NOTE}", file=sys.stderr)


def announce(manifest: Manifest) -> None:
    """Say on stderr, before anything is written, what the cohort was taken for."""
    print("\n".join(map(visible, account(manifest))), file=sys.stderr)


def taken(report: Report, manifest: Manifest) -> None:
    """What the cohort was taken for, as a table of a report; without names of files, which may name patients."""
    told = [line.partition(": ")[::2] for line in account(manifest, examples=False)]
    report.table(["of the cohort", "taken for"], told, "What was found in the cohort's folder, and what was left out.")


def limits(text: str, named_by_folders: bool) -> str:
    """The limits of a report, a list in Markdown, with the note as one more item where it applies."""
    return f"{text.rstrip()}\n- {NOTE[0].upper()}{NOTE[1:]}.\n" if named_by_folders else text


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write a run's ``manifest.csv`` without the columns that may name somebody."""
    cases = (replace(case, attributes=plain_attributes(case.attributes)) for case in manifest)
    replace(manifest, cases=tuple(cases)).write_csv(path)
