"""What a run has on record, and which of its fields were read to say something."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from medgen.config import read_yaml
from medgen.data.cards.form import describe
from medgen.errors import AuditError, ConfigError, DataError
from medgen.runs import environment, tracking
from medgen.runs.outputs import RECORD, check_unaltered
from medgen.system import files

Kind = Literal["anomaly detector", "generators of labelled scans", "generative model", "pretrained model", "other"]
Path_ = tuple[str | int, ...]

METRICS = "metrics.json"
CONFIG = "config.yaml"
ARTIFACT = "model/artifact.json"
COHORT = "manifest.json"
MANIFEST = "manifest.csv"
SPLITS = "splits.csv"
FAILURES = "failures.csv"

_DOCUMENTS = (METRICS, ARTIFACT, COHORT)
_TABLES = (MANIFEST, SPLITS, FAILURES)
# Tables of cohorts are short; a longer file is not one that a run has written.
_TABLE_BYTES = 64 << 20


@dataclass(frozen=True)
class RunRecords:
    """The records of one run.

    Attributes:
        out: The folder of the run.
        documents: Content of every JSON and YAML record by its name; what a run does not write is not there.
        tables: Rows of every CSV record by its name.
    """

    out: Path
    documents: Mapping[str, Any]
    tables: Mapping[str, tuple[Mapping[str, str], ...]]

    def get(self, file: str, *path: str | int) -> Any:
        """A value of a document; None where there is none.

        >>> records = RunRecords(Path("run"), {"metrics.json": {"scan": [{"name": "top"}]}}, {})
        >>> records.get("metrics.json", "scan", 0, "name"), records.get("metrics.json", "scan", 7)
        ('top', None)
        """
        value: Any = self.documents.get(file)
        for step in path:
            try:
                value = value[step]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    @property
    def kind(self) -> Kind:
        """What the run has trained."""
        told = self.get(ARTIFACT, "meta", "kind")
        if told == "anomaly":
            return "anomaly detector"
        if self.get(METRICS, "generators") is not None:
            return "generators of labelled scans"
        kinds: Mapping[Any, Kind] = {"generative": "generative model", "pretrained": "pretrained model"}
        return kinds.get(told, "other") if isinstance(told, str) else "other"

    @property
    def weights(self) -> dict[str, str]:
        """SHA-256 of every file of weights below ``model/``, by its path."""
        listed = self.get(RECORD, "files") or {}
        return {
            name: sha
            for name, sha in sorted(listed.items())
            if name.startswith("model/") and name.endswith(".safetensors")
        }


@dataclass
class Reader:
    """Reads records and keeps in mind which fields it has found.

    >>> read = Reader(RunRecords(Path("run"), {"metrics.json": {"subjects": 12}}, {}))
    >>> read("metrics.json", "subjects"), read("metrics.json", "seeds"), read.sources
    (12, None, ['metrics.json: subjects'])

    Attributes:
        records: What is read.
        found: Files with the paths of the fields that were found in them, each once.
    """

    records: RunRecords
    found: dict[tuple[str, Path_], None] = field(default_factory=dict)

    def __call__(self, file: str, *path: str | int) -> Any:
        """A value, see :meth:`RunRecords.get`."""
        value = self.records.get(file, *path)
        if value is not None:
            self.found[file, path] = None
        return value

    def table(self, file: str, column: str) -> tuple[Mapping[str, str], ...]:
        """The rows of a table, read for one of its columns; empty where there is no such table or column."""
        rows = self.records.tables.get(file, ())
        if rows and column not in rows[0]:
            return ()
        if file in self.records.tables:
            self.found[file, (column,)] = None
        return rows

    @property
    def sources(self) -> list[str]:
        """Where what was read stands, such as ``metrics.json: scan.0.auroc``."""
        return [f"{file}: {'.'.join(map(str, path))}" for file, path in self.found]


def read_records(out: str | Path) -> RunRecords:
    """The records of a finished run, once they are known to be as the run left them.

    Raises:
        DataError: If the folder is not that of a finished run, or a record cannot be read.
        AuditError: If a record was changed since.
    """
    out = Path(out)
    for name, what in ((METRICS, "the numbers"), (RECORD, "the hashes"), (CONFIG, "the settings")):
        if not files.exists(out / name):
            raise DataError(
                f"{out}: no {name}; expected the folder of a finished run, which has {what} there; name that folder"
            )
    outputs = files.read_json(out / RECORD)
    if not isinstance(outputs, dict) or not files.seal_holds(outputs):
        raise AuditError(
            f"{out / RECORD}: is not as the run wrote it; expected what its own sha256 covers; restore the file"
        )
    records = _read(out, {RECORD: outputs})
    for name in (*records.documents, *records.tables):
        if name != RECORD:
            check_unaltered(out, name)
    return records


def records_in_progress(out: Path) -> RunRecords:
    """The records of a run at its end, before its own ``outputs.json`` is written.

    Raises:
        DataError: If a record cannot be read.
    """
    run = tracking.last_run(out) or {}
    source = environment.commit()
    weights = sorted((out / "model").rglob("*.safetensors"))
    outputs = {
        "run_id": run.get("medgen.run"),
        "config_sha256": _digest(out) or run.get("medgen.config.sha256"),
        "manifest_digest": run.get("medgen.manifest.sha256") or _hash(out / MANIFEST),
        "seed": int(run["medgen.seed"]) if "medgen.seed" in run else None,
        "commit": source.id,
        "dirty": source.dirty,
        "versions": environment.versions(),
        "files": {path.relative_to(out).as_posix(): files.sha256_file(path) for path in weights},
    }
    return _read(out, {RECORD: outputs})


def well_formed(records: RunRecords, make: Callable[[], Any]) -> Any:
    """What is made of records; one line where they are not as medgen writes them.

    Raises:
        DataError: Instead of whatever Python says of a missing key or a wrong type.
    """
    try:
        return make()
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        what = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        if isinstance(error, ValidationError):
            what = describe(dict(error.errors(include_url=False)[0]))
        raise DataError(
            f"{records.out}: its records are not as this version of medgen writes them ({what}); run it anew"
        ) from error


def _read(out: Path, documents: dict[str, Any]) -> RunRecords:
    for name in _DOCUMENTS:
        if (out / name).is_file():
            documents[name] = files.read_json(out / name)
    for path in sorted(out.glob("model/*/backend.json")):
        documents[path.relative_to(out).as_posix()] = files.read_json(path)
    if (out / CONFIG).is_file():
        documents[CONFIG] = read_yaml(out / CONFIG)
    for name, content in documents.items():
        if not isinstance(content, dict):
            raise DataError(
                f"{out / name}: is a {type(content).__name__}; expected names with values; restore the file"
            )
    tables = {name: _rows(out / name) for name in _TABLES if (out / name).is_file()}
    return RunRecords(out, documents, tables)


def _rows(path: Path) -> tuple[Mapping[str, str], ...]:
    rows = csv.DictReader(io.StringIO(files.read_text(path, _TABLE_BYTES)))
    return tuple({key: value or "" for key, value in row.items() if key is not None} for row in rows)


def _hash(path: Path) -> str | None:
    return files.sha256_file(path) if path.is_file() else None


def _digest(out: Path) -> str | None:
    try:
        return tracking.config_digest(read_yaml(out / CONFIG))
    except (ConfigError, DataError):
        return None
