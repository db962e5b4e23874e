"""Files that are either whole or not there: atomic writing, hashing and small structured formats."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import math
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, BinaryIO

from medgen.errors import DataError
from medgen.system.modes import file_mode, make_folder

# Of temporary files and folders; a killed process leaves them behind, and the next one to use the run sweeps them up.
TEMPORARY = ".tmp-"
# Of a folder that is being replaced, until the new one is in its place.
REPLACED = ".old-"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Deeper nesting is nobody's data, and would end in the interpreter's limit of recursion.
_DEPTH = 64
# A bracket takes one byte on disk and sixty in memory; more values than this are no record of ours.
_VALUES = 5_000_000
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def unescaped(cell: str) -> str:
    """A cell of a CSV as it was before :func:`write_csv` made it harmless for spreadsheets.

    >>> unescaped("'=1+1"), unescaped("'quoted'")
    ('=1+1', "'quoted'")
    """
    return cell[1:] if cell[:1] == "'" and cell[1:2] in _FORMULA else cell


def exists(path: Path) -> bool:
    """Whether there is anything at a path; no path that the system refuses is an error."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def is_utf8(path: str | Path) -> bool:
    r"""Whether a name is UTF-8, as text files are; others come from old disks and archives.

    >>> is_utf8("müller.nii"), is_utf8("m\udcfcller.nii")
    (True, False)
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


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
        make_folder(path.parent)
        handle, name = tempfile.mkstemp(prefix=TEMPORARY, suffix="-" + path.name, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(file_mode())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def unwritable(path: str | Path, error: OSError) -> DataError:
    """The error for a file or folder that could not be written, in words that say whether the disk is full."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return DataError(f"{path}: cannot be written, the disk or quota is full ({reason}); free space and run again")
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return DataError(
            f"{path}: cannot be written, a file is where a folder is expected ({reason}); choose another place"
        )
    return DataError(f"{path}: cannot be written ({reason}); check the permissions of its folder")


def open_regular(path: str | Path, follow: bool = True) -> BinaryIO:
    """Open a file for reading if it is one: a pipe would block for ever, a device would never end.

    Args:
        path: The file.
        follow: Whether it may be a symbolic link.

    Raises:
        OSError: As ``open``; also (``EINVAL``) if it is no regular file, and (``ELOOP``) if it is a link.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "is no regular file")
    return os.fdopen(handle, "rb")


def read_bytes(path: str | Path, limit: int) -> bytes:
    """Content of a regular file, no link, of at most ``limit`` bytes.

    Raises:
        DataError: If it is missing, too large, a link or no regular file.
    """
    try:
        with open_regular(path, follow=False) as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise DataError(f"{path}: {size} bytes, at most {limit} are accepted")
            # Not more: Python sets aside as much memory as is asked for.
            return file.read(size)
    except OSError as error:
        reason = "is a symbolic link" if error.errno == errno.ELOOP else error.strerror or str(error)
        raise DataError(f"{path}: cannot be read ({reason}); expected the file itself") from None


def read_text(path: str | Path, limit: int) -> str:
    """UTF-8 text of a regular file of at most ``limit`` bytes.

    Raises:
        DataError: If it is missing, too large, no regular file or not UTF-8.
    """
    try:
        with open_regular(path) as file:
            content = file.read(limit + 1)
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read as text ({error.strerror or error})") from None
    if len(content) > limit:
        raise DataError(f"{path}: {max(size, limit + 1)} bytes of text, at most {limit} are accepted")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{path}: cannot be read as text (it is not UTF-8)") from None


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: str | Path, data: bytes | memoryview) -> None:
    """Write bytes atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: str | Path, data: Any) -> None:
    """Write JSON atomically, keys in the order given; NaN and infinities become ``null`` (JSON has neither)."""
    write_text(path, json_text(data))


def json_text(data: Any) -> str:
    """Plain data as :func:`write_json` writes it."""
    return json.dumps(plain(data), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: str | Path, limit: int = 64 << 20) -> Any:
    """Read a JSON file of at most ``limit`` bytes and five million values, nested at most 64 deep.

    Raises:
        DataError: If it is missing, too large, nested too deeply, gives a key twice, or is not JSON; NaN and infinities
            are not JSON.
    """
    text = read_text(path, limit)
    if sum(text.count(sign) for sign in ",[{") > _VALUES:
        raise DataError(f"{path}: cannot be read as JSON (more than {_VALUES} values); restore it from a copy")
    try:
        data = json.loads(text, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        kind = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:120]
        raise DataError(f"{path}: cannot be read as JSON ({kind}); restore it from a copy") from None
    if _deeper(data, _DEPTH):
        raise DataError(
            f"{path}: cannot be read as JSON (it is nested more than {_DEPTH} deep); restore it from a copy"
        )
    return data


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
        with open_regular(path) as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    return digest.hexdigest()


def sha256_json(data: Any) -> str:
    """SHA-256 of plain data in canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(plain(data), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def sealed(body: Mapping[str, Any]) -> dict[str, Any]:
    """A record with the digest of all that it says, as ``sha256``.

    >>> seal_holds(sealed({"seed": 1})), seal_holds({**sealed({"seed": 1}), "seed": 2})
    (True, False)
    """
    return {**body, "sha256": sha256_json(body)}


def seal_holds(record: Mapping[str, Any]) -> bool:
    """Whether a record still says what it said when it was :func:`sealed`."""
    return record.get("sha256") == sha256_json({key: value for key, value in record.items() if key != "sha256"})


def plain(value: Any) -> Any:
    """What JSON can hold of mappings, sequences, dataclasses, paths, NumPy scalars and arrays; not finite is None.

    A dataclass becomes a mapping of its fields, in their order. A class whose plain form is another than that has a
    method ``to_plain``, and ``from_plain`` where it is read again.
    """
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
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} is not plain data")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, none of whose keys is given twice: which of the two values is meant would be a guess."""
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in result if keys.count(key) > 1)[:40]!r} is given twice")
    return result


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _deeper(data: Any, limit: int) -> bool:
    """Whether plain data is nested more than ``limit`` deep; without recursion."""
    level = [data]
    for _ in range(limit + 1):
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else ""
    if isinstance(value, str) and value[:1] in _FORMULA:
        # Spreadsheets run text that starts like a formula; numbers in text, and lists of them, stay numbers.
        try:
            for number in value.split(";"):
                float(number)
        except ValueError:
            return f"'{value}"
    return "" if value is None else value


def sync_folder(folder: Path) -> None:
    """Make a new name in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
