"""Find and read the records of finished runs, ``outputs.json``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from medgen.errors import AuditError, DataError
from medgen.runs.journal import NAME as JOURNAL
from medgen.runs.outputs import FORMAT, READABLE, RECORD
from medgen.system import files

# Below a folder of runs: deeper than this nobody keeps them.
_DEPTH = 6


@dataclass(frozen=True)
class RunRecord:
    """The record of one finished run.

    Attributes:
        out: Folder of the run.
        content: What ``outputs.json`` says.
    """

    out: Path
    content: Mapping[str, Any]

    @property
    def files(self) -> Mapping[str, str]:
        """SHA-256 of every output by its path below the folder."""
        listed: Mapping[str, str] = self.content["files"]
        return listed

    @property
    def inputs(self) -> Mapping[str, Mapping[str, str]]:
        """SHA-256 of every input: case → part, such as ``image``; empty where the record has none."""
        return self.content.get("inputs") or {}

    @property
    def model(self) -> Mapping[str, Any]:
        """Facts about the model that the run used; empty for one that trained its own."""
        return self.content.get("model") or {}

    @property
    def run_id(self) -> str:
        """Id of the run; empty for one that was not tracked."""
        return str(self.content.get("run_id") or "")

    @property
    def called(self) -> str:
        """The run in words: pipeline, folder, and the beginning of its id."""
        name, run = self.content.get("pipeline") or "run", self.run_id
        return f"{name} {self.out.name}" + (f" ({run[:8]})" if run else "")

    def listed(self, name: str) -> str | None:
        """The SHA-256 that the record has for a file; None if it lists no such file."""
        return self.files.get(name)


def find_record(target: str | Path) -> tuple[RunRecord, str]:
    """The record of the run that a target lies in, and the target's path below its folder (empty for the folder).

    Raises:
        AuditError: If there is none above the target, or it was altered.
    """
    path = Path(target).absolute()
    for folder in (path, *path.parents):
        if (folder / RECORD).is_file():
            part = path.relative_to(folder).as_posix()
            return read_record(folder), "" if part == "." else part
    if path.is_dir() and os.path.lexists(path / RECORD):
        raise AuditError(f"{path / RECORD}: is no regular file; expected the record of a finished run")
    if path.is_dir() and (path / JOURNAL).is_file():
        raise AuditError(
            f"{target}: the run has not ended, so nothing is recorded of its outputs; finish it with --resume"
        )
    raise AuditError(f"{target}: no {RECORD} here or above; expected the folder of a finished run or a file in it")


def read_record(out: Path) -> RunRecord:
    """Read and check the record of a run.

    Raises:
        AuditError: If it is missing, of another form, or was altered.
    """
    path = out / RECORD
    try:
        record = files.read_json(path)
    except DataError as error:
        raise AuditError(f"{error}; expected the record of a finished run") from None
    known = isinstance(record, dict) and record.get("format") in READABLE
    if not known or not isinstance(record.get("files"), dict):
        raise AuditError(f"{path}: not an outputs record of format {FORMAT}; it may be of another medgen version")
    if not all(isinstance(digest, str) for digest in record["files"].values()):
        raise AuditError(f"{path}: lists files without a SHA-256; restore it from a copy")
    if not files.seal_holds(record):
        raise AuditError(f"{path}: the record itself was altered: its SHA-256 differs from what it states")
    if (wrong := _wrong(record)) is not None:
        raise AuditError(f"{path}: {wrong!r} is of the wrong kind; it is no record of medgen")
    return RunRecord(out, record)


def records_below(*roots: Path) -> Iterator[RunRecord]:
    """The records of all finished runs below some folders, by the names of these; damaged ones are passed over."""
    seen = set()
    for root in roots:
        top = len(root.absolute().parts)
        for folder, folders, names in os.walk(root.absolute()):
            here = Path(folder)
            folders[:] = sorted(name for name in folders if not name.startswith(".") and len(here.parts) - top < _DEPTH)
            if RECORD in names and here.resolve() not in seen:
                seen.add(here.resolve())
                try:
                    yield read_record(here)
                except AuditError:
                    continue


def _wrong(record: Mapping[str, Any]) -> str | None:
    """A key whose value is of another kind than this program reads it as."""
    journal, model = record.get("journal"), record.get("model")
    if isinstance(record.get("format"), bool):
        return "format"
    for key in ("run_id", "pipeline", "started", "ended", "manifest_digest", "config_sha256", "commit"):
        if not isinstance(record.get(key), str | None):
            return key
    if not isinstance(record.get("seed"), int | None):
        return "seed"
    if not _texts(record.get("versions")):
        return "versions"
    if any(not name or PurePosixPath(name).is_absolute() or ".." in name.split("/") for name in record["files"]):
        return "files"
    if not _cases(record.get("inputs")):
        return "inputs"
    if model is not None and not (
        isinstance(model, dict)
        and _cases(model.get("inputs"))
        and _texts(model.get("weights"))
        and isinstance(model.get("cases"), list | None)
        and all(isinstance(model.get(key), str | None) for key in ("sha256", "run_id"))
    ):
        return "model"
    if journal is not None and not (
        isinstance(journal, dict) and isinstance(journal.get("lines"), int) and isinstance(journal.get("chain"), str)
    ):
        return "journal"
    return None


def _texts(value: Any) -> bool:
    """Whether this is nothing, or texts by name."""
    return value is None or (isinstance(value, dict) and all(isinstance(own, str) for own in value.values()))


def _cases(value: Any) -> bool:
    """Whether this is nothing, or hashes by case and part."""
    return value is None or (isinstance(value, dict) and all(own is not None and _texts(own) for own in value.values()))
