"""Feature vectors that another program has computed, one per scan, read from a file."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medgen.errors import DataError
from medgen.system.archives import read_npz
from medgen.system.files import sha256_file

# A vector of 4096 numbers for each of 100 000 scans fits.
_LIMIT = 4 << 30


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """Feature vectors by case id.

    Attributes:
        path: Where the file lies.
        rows: Id → (d,), all of one length and finite.
        sha256: SHA-256 of the file.
    """

    path: Path
    rows: Mapping[str, NDArray[np.float64]]
    sha256: str

    def of(self, ids: Sequence[str]) -> NDArray[np.float64]:
        """The vectors of these scans, (n, d).

        Raises:
            DataError: Naming the first scan that the file lacks.
        """
        missing = [name for name in ids if name not in self.rows]
        if missing:
            raise DataError(
                f"{self.path}: no features of {missing[0]!r} ({len(missing)} of {len(ids)} scans are missing); "
                "compute them for every training scan and every accepted synthetic scan"
            )
        return np.stack([self.rows[name] for name in ids])


def read_features(path: str | Path) -> FeatureTable:
    """Read ``.npz`` or ``.csv``.

    ``.npz`` holds ``ids``, (n,) text, and ``features``, (n, d) numbers. ``.csv`` has a heading, the case id in its
    first column and numbers in the others.

    Args:
        path: The file. Nothing in it is executed: pickled objects are refused.

    Raises:
        DataError: If the file cannot be read, is of another kind, holds an id twice, a value that is not a finite
            number, or rows of different lengths.
    """
    path = Path(path)
    readers = {".npz": _npz, ".csv": _csv}
    if path.suffix.lower() not in readers:
        raise DataError(f"{path}: expected features as .npz or .csv, found {path.suffix or 'no ending'!r}")
    digest = sha256_file(path)
    ids, values = readers[path.suffix.lower()](path)
    if not ids or values.shape[1] == 0:
        raise DataError(f"{path}: holds no features")
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise DataError(f"{path}: {twice[0]!r} occurs more than once; give one vector per scan")
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if bad.size:
        raise DataError(f"{path}: features of {ids[int(bad[0])]!r} are not finite numbers ({bad.size} scans in all)")
    return FeatureTable(path, dict(zip(ids, values, strict=True)), digest)


def _npz(path: Path) -> tuple[list[str], NDArray[np.float64]]:
    try:
        arrays = read_npz(path, ["ids", "features"], _LIMIT)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    ids, values = arrays["ids"], arrays["features"]
    if ids.ndim != 1 or values.ndim != 2 or len(ids) != len(values) or values.dtype.kind not in "fiu":
        raise DataError(
            f"{path}: expected ids (n,) and numbers (n, d), found shapes {ids.shape} and {values.shape} "
            f"of type {values.dtype}"
        )
    return [str(name) for name in ids], values.astype(np.float64)


def _csv(path: Path) -> tuple[list[str], NDArray[np.float64]]:
    ids: list[str] = []
    rows: list[list[float]] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            heading = next(reader, [])
            for line in reader:
                if not line:
                    continue
                if len(line) != len(heading):
                    raise DataError(
                        f"{path}: line {reader.line_num} ({line[0]!r}) has {len(line) - 1} features, "
                        f"expected {len(heading) - 1} as in the heading"
                    )
                ids.append(line[0])
                rows.append([float(cell) for cell in line[1:]])
    except ValueError as error:
        raise DataError(f"{path}: {error} in the row of {ids[-1] if ids else 'the first scan'!r}") from None
    except (OSError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error})") from None
    return ids, np.array(rows, dtype=np.float64).reshape(len(rows), max(len(heading) - 1, 0))
