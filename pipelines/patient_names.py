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
from medgen.report.cohort import NOTE


def warn(named_by_folders: bool) -> None:
    """Say it once on stderr, before anything is written, if the scans are named by DICOM folders."""
    if named_by_folders:
        print(f"warning: {NOTE}", file=sys.stderr)


def announce(manifest: Manifest) -> None:
    """Say on stderr, before anything is written, what the cohort was taken for."""
    print("\n".join(map(visible, account(manifest))), file=sys.stderr)


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write a run's ``manifest.csv`` without the columns that may name somebody."""
    cases = (replace(case, attributes=plain_attributes(case.attributes)) for case in manifest)
    replace(manifest, cases=tuple(cases)).write_csv(path)
