"""What is left of a forgotten case in a run: ``forgotten.json``, which does not name it and which verifies."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medgen.errors import AuditError, DataError
from medgen.system import files

FILE = "forgotten.json"
_FORMAT = "medgen-forgotten"
_VERSION = 1


@dataclass(frozen=True)
class Tombstone:
    """One case that a run was made to forget.

    Attributes:
        when: UTC.
        alias: What stands where a name had to keep its place.
        cases: Salted SHA-256 of what the case was called, and of the hashes of its files: who knows the name or has
            the scan can ask whether it is meant, and nobody else can tell it.
        salt: Of these.
        removed: SHA-256 of the files that were removed, sorted: their names would name the case.
        edited: Files that are there without it, by path.
        lines: Number of lines of the journal that are tombstones now.
        remains: What cannot be undone, in words.
        models: Models that had learnt from it: folder → SHA-256 before and after its records were changed. The numbers
            in them are as they were.
    """

    when: str
    alias: str
    cases: tuple[str, ...]
    salt: str
    removed: tuple[str, ...]
    edited: tuple[str, ...]
    lines: int
    remains: tuple[str, ...]
    models: Mapping[str, Sequence[str]]


def hashes_of(cases: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """A new salt, and the salted SHA-256 of names."""
    salt = secrets.token_hex(16)
    return salt, tuple(hashed(salt, case) for case in sorted(cases))


def hashed(salt: str, case: str) -> str:
    """The salted SHA-256 of a name, as ``forgotten.json`` has it."""
    return hashlib.sha256(f"{salt}{case}".encode()).hexdigest()


def read_tombstones(out: Path) -> list[dict[str, Any]]:
    """The tombstones of a run, the oldest first; none if nothing was forgotten.

    Raises:
        AuditError: If the file is none of medgen's, or was altered.
    """
    if not (out / FILE).is_file():
        return []
    try:
        content = files.read_json(out / FILE)
    except DataError as error:
        raise AuditError(str(error)) from None
    known = isinstance(content, dict) and content.get("format") == _FORMAT and content.get("version") == _VERSION
    if not known or not files.seal_holds(content) or not isinstance(content.get("forgotten"), list):
        raise AuditError(f"{out / FILE}: is not as medgen audit forget wrote it; restore it from a copy")
    return content["forgotten"]


def add_tombstone(out: Path, tombstone: Tombstone) -> None:
    """Add one to ``out/forgotten.json``.

    Raises:
        AuditError: If the file was altered.
        DataError: If it cannot be written.
    """
    every = [*read_tombstones(out), files.plain(tombstone)]
    files.write_json(out / FILE, files.sealed({"format": _FORMAT, "version": _VERSION, "forgotten": every}))
