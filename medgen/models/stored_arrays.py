"""Learned arrays as they are kept: safetensors and JSON with hashes, loaded without running any content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.errors import ArtifactError, DataError
from medgen.system.files import plain, read_bytes, read_json, sha256_json, write_bytes, write_json
from medgen.system.memory import readable_bytes

ARRAYS = "arrays.safetensors"
RECORD = "backend.json"
_FORMAT = "medgen-backend"
_VERSION = 1


@dataclass(frozen=True, eq=False)
class Stored:
    """Named arrays with plain data.

    Attributes:
        kind: Name of the backend.
        arrays: By name.
        meta: Plain data.
    """

    kind: str
    arrays: Mapping[str, NDArray[Any]]
    meta: Mapping[str, Any]

    def _content(self) -> bytes:
        from safetensors.numpy import save

        return save({name: np.ascontiguousarray(array) for name, array in sorted(self.arrays.items())})

    def _record(self, content: bytes) -> dict[str, Any]:
        record = {"format": _FORMAT, "version": _VERSION, "kind": self.kind, "meta": plain(self.meta)}
        record["arrays_sha256"] = hashlib.sha256(content).hexdigest()
        return {**record, "sha256": sha256_json(record)}

    @property
    def sha256(self) -> str:
        """Digest over arrays and data; equal for equal content."""
        return str(self._record(self._content())["sha256"])

    def save(self, folder: Path) -> None:
        """Write the two files; the record last, so that a record always has its arrays."""
        content = self._content()
        write_bytes(folder / ARRAYS, content)
        write_json(folder / RECORD, self._record(content))


def load_stored(folder: Path) -> Stored:
    """Read what :meth:`Stored.save` wrote.

    Raises:
        ArtifactError: If a file is missing, altered or of another kind or version.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        record = read_json(folder / RECORD)
        content = read_bytes(folder / ARRAYS, readable_bytes())
    except DataError as error:
        raise ArtifactError(f"{folder}: is not a complete generator ({error}); copy the whole folder") from None
    if not isinstance(record, dict) or record.get("format") != _FORMAT or record.get("version") != _VERSION:
        raise ArtifactError(f"{folder / RECORD}: is not a medgen generator of version {_VERSION}")
    body = {key: value for key, value in record.items() if key != "sha256"}
    if sha256_json(body) != record.get("sha256"):
        raise ArtifactError(f"{folder / RECORD}: was altered after it was written; restore it from a copy")
    if (folder / RECORD).is_symlink() or not isinstance(record.get("meta"), dict):
        raise ArtifactError(f"{folder / RECORD}: is a link, or lacks its data; restore it from a copy")
    if hashlib.sha256(content).hexdigest() != record.get("arrays_sha256"):
        raise ArtifactError(f"{folder / ARRAYS}: was altered after it was written; restore it from a copy")
    try:
        arrays = load(content)
    except (SafetensorError, ValueError, LookupError, TypeError, AttributeError, MemoryError) as error:
        raise ArtifactError(f"{folder / ARRAYS}: cannot be read ({error})") from None
    return Stored(str(record.get("kind")), arrays, record["meta"])


def stored_kind(folder: Path) -> str | None:
    """Name of the backend that a folder's record names; None if there is no readable record."""
    try:
        record = read_json(folder / RECORD)
    except (DataError, OSError):
        return None
    return str(record.get("kind")) if isinstance(record, dict) and record.get("format") == _FORMAT else None
