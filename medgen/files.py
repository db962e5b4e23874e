"""Files that are either whole or not there: atomic writing, hashing and small structured formats."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from medgen.errors import DataError

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def unescaped(cell: str) -> str:
    """A cell of a CSV as it was before :func:`write_csv` made it harmless for spreadsheets.

    >>> unescaped("'=1+1"), unescaped("'quoted'")
    ('=1+1', "'quoted'")
    """
    return cell[1:] if cell[:1] == "'" and cell[1:2] in _FORMULA else cell


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is fsynced and renamed over ``path``, else removed.

    A reader never sees a half-written file, also after a power cut or ``kill -9``. The temporary name keeps the
    suffixes, for writers that choose the format by them.

    Raises:
        DataError: If the folder cannot be written or the disk is full; ``path`` is then as it was before.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".tmp-", suffix="-" + path.name, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror or error}); check space and permissions"
        ) from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write bytes atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: str | Path, data: Any) -> None:
    """Write JSON atomically, keys in the order given; NaN and infinities become ``null`` (JSON has neither)."""
    write_text(path, json.dumps(plain(data), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path, limit: int = 64 << 20) -> Any:
    """Read a JSON file of at most ``limit`` bytes.

    Raises:
        DataError: If it is missing, too large or not JSON.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > limit:
            raise DataError(f"{path}: {size} bytes of JSON, at most {limit} are accepted")
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error.__class__.__name__})") from None


def write_csv(path: str | Path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write a CSV with a header atomically; missing keys are empty cells, unknown keys an error."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(columns), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: _cell(value) for key, value in row.items()})


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file's content as 64 hexadecimal digits.

    Raises:
        DataError: If the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    return digest.hexdigest()


def sha256_json(data: Any) -> str:
    """SHA-256 of plain data in canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(plain(data), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def plain(value: Any) -> Any:
    """Turn mappings, sequences, paths, NumPy scalars and arrays into what JSON can hold; non-finite numbers to None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Path):
        return value.as_posix()
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} is not plain data")


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else ""
    if isinstance(value, str) and value[:1] in _FORMULA:
        # Spreadsheets run text that starts like a formula; numbers in text stay numbers.
        try:
            float(value)
        except ValueError:
            return f"'{value}"
    return "" if value is None else value


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
