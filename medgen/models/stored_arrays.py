"""Learned arrays as they are kept: safetensors and JSON with hashes, loaded without running any content.

Two formats are on disk. A :class:`Stored` is what is not a model, such as a segmenter's weights or a filter:
``arrays.safetensors`` and one record. A :class:`~medgen.models.artifact.TrainedModel` holds models that are built from
their settings before their weights are read, a file for each, and is replaced as a whole. Both keep and check arrays
and records by the functions here. Other arrays on disk have needs of their own: a checkpoint holds the state of
optimisers and is read by its own run alone (:mod:`medgen.training.checkpoint`), and measurements are read one table row
at a time (:mod:`medgen.anomaly.comparison.measurement_file`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from medgen.errors import ArtifactError, DataError, MedgenError
from medgen.system.files import plain, read_bytes, read_json, seal_holds, sealed, write_bytes, write_json
from medgen.system.memory import readable_bytes

ARRAYS = "arrays.safetensors"
RECORD = "backend.json"
_FORMAT = "medgen-backend"
_VERSION = 1
# What crafted settings and arrays make torch, numpy and pydantic raise.
UNUSABLE = (
    MedgenError,
    SafetensorError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
)
T = TypeVar("T")


def arrays_to_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Arrays by name as safetensors; the same bytes for the same numbers, whatever their order."""
    return save({name: np.ascontiguousarray(array) for name, array in sorted(arrays.items())})


def read_safetensors(load: Callable[[bytes], dict[str, T]], content: bytes, name: str) -> dict[str, T]:
    """Tensors by name.

    Args:
        load: ``load`` of ``safetensors.numpy`` or ``safetensors.torch``.
        content: The bytes of the file.
        name: What the file is called in messages.

    Raises:
        ArtifactError: If it is no such file.
    """
    try:
        return load(content)
    except UNUSABLE as error:
        raise ArtifactError(f"{name}: is no safetensors file that medgen wrote ({first_line(error)})") from None


def check_hash(content: bytes, sha256: Any, path: Path) -> None:
    """Raise ArtifactError if the content of a file is not what was written; whoever uses it uses what was checked."""
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ArtifactError(f"{path}: was altered after it was written; restore it from a copy")


def first_line(error: BaseException) -> str:
    """The first line of an error, cut where it grows too long."""
    lines = str(error).strip().splitlines() or [""]
    return lines[0][:300] or error.__class__.__name__


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

    def _record(self, content: bytes) -> dict[str, Any]:
        record = {"format": _FORMAT, "version": _VERSION, "kind": self.kind, "meta": plain(self.meta)}
        record["arrays_sha256"] = hashlib.sha256(content).hexdigest()
        return sealed(record)

    @property
    def sha256(self) -> str:
        """Digest over arrays and data; equal for equal content."""
        return str(self._record(arrays_to_bytes(self.arrays))["sha256"])

    def check_parts(self, folder: Path, digests: Mapping[str, str]) -> None:
        """Refuse models beside the arrays that are not those the record was written with, by their SHA-256 by name.

        Raises:
            ArtifactError: Naming the first of another training.
        """
        for name, digest in digests.items():
            if digest != self.meta["parts"][name]:
                raise ArtifactError(f"{folder / name}: is of another training than the rest; restore it from a copy")

    def save(self, folder: Path) -> None:
        """Write the two files; the record last, so that a record always has its arrays."""
        content = arrays_to_bytes(self.arrays)
        write_bytes(folder / ARRAYS, content)
        write_json(folder / RECORD, self._record(content))


def load_stored(folder: Path) -> Stored:
    """Read what :meth:`Stored.save` wrote.

    Raises:
        ArtifactError: If a file is missing, altered or of another kind or version.
    """
    try:
        record = read_json(folder / RECORD)
        content = read_bytes(folder / ARRAYS, readable_bytes())
    except DataError as error:
        raise ArtifactError(f"{folder}: is not a complete generator ({error}); copy the whole folder") from None
    if not isinstance(record, dict) or record.get("format") != _FORMAT or record.get("version") != _VERSION:
        raise ArtifactError(f"{folder / RECORD}: is not a medgen generator of version {_VERSION}")
    if not seal_holds(record):
        raise ArtifactError(f"{folder / RECORD}: was altered after it was written; restore it from a copy")
    if (folder / RECORD).is_symlink() or not isinstance(record.get("meta"), dict):
        raise ArtifactError(f"{folder / RECORD}: is a link, or lacks its data; restore it from a copy")
    check_hash(content, record.get("arrays_sha256"), folder / ARRAYS)
    arrays = read_safetensors(load, content, str(folder / ARRAYS))
    return Stored(str(record.get("kind")), arrays, record["meta"])


def stored_kind(folder: Path) -> str | None:
    """Name of the backend that a folder's record names; None if there is no readable record."""
    try:
        record = read_json(folder / RECORD)
    except (DataError, OSError):
        return None
    return str(record.get("kind")) if isinstance(record, dict) and record.get("format") == _FORMAT else None
