"""What a scoring has done, scan by scan, so that one that was interrupted goes on where it stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medgen.errors import DataError
from medgen.report.anomaly.scored.scoring import ScoredCase
from medgen.system.files import plain, read_json, seal_holds, sealed, sha256_json, write_json


@dataclass(frozen=True, eq=False)
class KeptCase:
    """A scan whose files and page are written.

    Attributes:
        case: What the index says of it.
        said: The line for the console.
        rows: Its rows of the tables, see :meth:`medgen.pipelines.anomaly.outputs.ScanFiles.rows`.
        files: Everything that was written for it, relative to the run's folder.
    """

    case: ScoredCase
    said: str
    rows: Mapping[str, Any]
    files: Sequence[str]


@dataclass(frozen=True)
class KeptCases:
    """Kept scans as small files of one folder, which the finished run needs no more.

    Attributes:
        folder: Where they are.
        out: Folder of the run, with the files of the scans.
        about: All but the scan that results depend on: model, settings, version.
    """

    folder: Path
    out: Path
    about: Mapping[str, Any]

    def keep(self, kept: KeptCase, files: Mapping[str, str]) -> None:
        """Keep a scan, once everything else of it is written.

        Args:
            kept: The scan.
            files: SHA-256 of what was read.
        """
        record = {"key": self._key(kept.case.name, files), "case": kept.case, "said": kept.said, "rows": kept.rows}
        record["files"] = list(kept.files)
        write_json(self.folder / f"{kept.case.name}.json", sealed(plain_of(record)))

    def find(self, name: str, files: Mapping[str, str]) -> KeptCase | None:
        """A scan that was kept of the same files under the same settings, with all its files still there; else None."""
        path = self.folder / f"{name}.json"
        if not path.is_file():
            return None
        try:
            found = read_json(path)
        except DataError:
            return None
        if not isinstance(found, dict) or not seal_holds(found) or found.get("key") != self._key(name, files):
            return None
        case = ScoredCase.from_plain(found["case"])
        written = found.get("files", [])
        complete = written and all((self.out / own).is_file() for own in written)
        return KeptCase(case, found["said"], found["rows"], written) if complete else None

    def _key(self, name: str, files: Mapping[str, str]) -> str:
        return sha256_json([name, dict(files), dict(self.about)])


def plain_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as plain data, its scan by the scan's own form."""
    return {key: item.to_plain() if isinstance(item, ScoredCase) else plain(item) for key, item in record.items()}
