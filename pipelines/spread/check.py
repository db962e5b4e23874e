"""A cohort checked in shards: every case is looked at by some worker, and compared with the others here."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medgen.data.cases import Case, Manifest, case_files
from medgen.data.integrity import CheckResult, check, look
from medgen.data.layouts.cohort_config import CohortConfig
from medgen.data.looked import Looked
from medgen.progress import Progress
from medgen.runs.cases.manifest import Item, stamp
from medgen.runs.cases.map_cases import Spread, map_cases


@dataclass(frozen=True)
class LookAt:
    """Looks at a case, in whichever process.

    Attributes:
        root: Folder that the keys of hashes are relative to.
        labels: Declared label numbers.
    """

    root: Path
    labels: Mapping[int, str]

    def __call__(self, case: Case, place: Path) -> dict[str, Any]:
        """What was found of a case; no file is written."""
        return look(case, self.root, self.labels).to_plain()


def run(
    path: Path, cohort: CohortConfig, spread: Spread, place: Path | None = None, progress: Progress | None = None
) -> CheckResult:
    """Check a cohort; the result is that of :func:`medgen.data.integrity.check`.

    Args:
        path: Cohort folder, manifest CSV, scan file, or folder with one DICOM series.
        cohort: How to find the cases.
        spread: Where cases are looked at.
        place: Folder for the shards, whose finished ones a later check of unchanged files takes over; None: a temporary
            folder of this machine.
        progress: Called with the number of cases done and their total.

    Raises:
        ConfigError: If the folder holds shards of another check, or the executor cannot be used.
        DataError: If the folder cannot be written.
        TrainingError: If the worker of a shard has died several times.
    """

    def looking(manifest: Manifest) -> Iterator[Looked]:
        function = LookAt(manifest.root, dict(manifest.labels))
        settings = {
            "work": "data check",
            "cohort": cohort.model_dump(mode="json"),
            "root": str(manifest.root.resolve()),
            "labels": {str(value): name for value, name in manifest.labels.items()},
        }
        with ExitStack() as stack:
            folder = place or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="medgen-")))
            items = (Item(case.id, case, stamps(case)) for case in manifest)
            found = map_cases(function, items, count=len(manifest), folder=folder, settings=settings, spread=spread)
            for case, (_, data) in zip(manifest, found, strict=True):
                yield Looked.from_plain(case, data)

    return check(path, cohort, progress=progress, looking=looking)


def stamps(case: Case) -> dict[str, str]:
    """Size and time of change of each file of a case, and the hashes that its manifest declares; no name of a file."""
    found = {f"file {number}": stamp(file) for number, file in enumerate(case_files(case))}
    return found | {f"declared {number}": digest for number, digest in enumerate(case.sha256.values())}
