"""Measurements of a run as a file, so that scores can be pooled over runs one table row at a time.

A run of 200 test scans with 60 rows holds two gigabytes of voxel scores. The file is a plain ``.npz`` (arrays and JSON
as bytes, nothing pickled) with one array per row over all scans, so that whoever pools five runs reads one row of each.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.evaluation.measure import Measurement
from medgen.errors import DataError
from medgen.system.archives import read_npz
from medgen.system.files import atomic_path

FILE = "measurements.npz"
_FORMAT = 3


@dataclass(frozen=True, eq=False)
class MeasurementFile:
    """The measurements of one run, read from their file as they are asked for.

    Attributes:
        path: The file.
        facts: Per scan, what :class:`Measurement` holds beside its arrays.
        names: Table rows.
        sizes: (n,) scored voxels of each scan.
    """

    path: Path
    facts: Sequence[dict[str, Any]]
    names: tuple[str, ...]
    sizes: NDArray[np.int64]

    @classmethod
    def open(cls, path: str | Path) -> MeasurementFile:
        """Read what the file holds, but no voxel scores.

        Raises:
            DataError: If it is missing, damaged or no file of measurements.
        """
        path = Path(path)
        try:
            head = json.loads(bytes(_member(path, "facts")))
            if head["format"] != _FORMAT:
                raise DataError(f"{path}: measurements of format {head['format']}, expected {_FORMAT}; run again")
            return cls(path, head["scans"], tuple(head["rows"]), _member(path, "sizes"))
        except (ValueError, LookupError, TypeError, RecursionError):
            raise DataError(f"{path}: damaged, or no file of measurements; run again") from None

    def row(self, name: str) -> list[NDArray[np.float16]]:
        """Voxel scores of one table row, (v,) per scan.

        Raises:
            DataError: If there is no such row.
        """
        if name not in self.names:
            raise DataError(f"{self.path}: no row {name!r}; it holds {', '.join(self.names)}")
        return self._split(_member(self.path, f"row{self.names.index(name)}"))

    def truth(self) -> list[NDArray[np.bool_]]:
        """Which scored voxels an implant changed, (v,) per scan."""
        return self._split(self._bits("truth"))

    def measurements(self, rows: Sequence[str] = ()) -> list[Measurement]:
        """All scans with these rows only."""
        values = {name: self.row(name) for name in rows}
        truth = self.truth()
        regions = self._bits("regions").reshape(len(self.facts), *_member(self.path, "shape").tolist())
        return [
            Measurement(
                **_from_plain(fact),
                region=regions[number],
                truth=truth[number],
                rows={name: own[number] for name, own in values.items()},
            )
            for number, fact in enumerate(self.facts)
        ]

    def _bits(self, name: str) -> NDArray[np.bool_]:
        count = int(_member(self.path, f"{name}_size")[0])
        return np.unpackbits(_member(self.path, name), count=count).astype(bool)

    def _split(self, values: NDArray[Any]) -> list[NDArray[Any]]:
        return list(np.split(values, np.cumsum(self.sizes)[:-1]))


def save(path: str | Path, measurements: Sequence[Measurement]) -> None:
    """Write measurements atomically; memory is needed for one row at a time beyond what is given.

    Args:
        path: File to write, ``.npz``.
        measurements: At least one, all on grids of one shape and with the same rows.

    Raises:
        DataError: If there is none, grids or rows differ, or the file cannot be written.
    """
    if not measurements:
        raise DataError(f"{path}: no measurement to keep; at least one scored test scan is needed")
    names, shape = list(measurements[0].rows), measurements[0].region.shape
    if any(list(item.rows) != names or item.region.shape != shape for item in measurements):
        raise DataError(f"{path}: expected test scans on grids of one shape with the same rows, found others")
    facts = [
        {
            "case": item.case,
            "subject": item.subject,
            "kind": item.kind,
            "radius_mm": item.radius_mm,
            "contrast": item.contrast,
            "scores": dict(item.scores),
            "p_values": dict(item.p_values),
            "hottest_in_truth": item.hottest_in_truth,
            "own_grid": list(item.own_grid),
            "expected_false": item.expected_false.tolist(),
            "hits": item.hits.tolist(),
            "untouched": item.untouched,
        }
        for item in measurements
    ]
    head = json.dumps({"format": _FORMAT, "rows": names, "scans": facts}).encode()
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        _write(archive, "facts", np.frombuffer(head, dtype=np.uint8))
        _write(archive, "shape", np.array(shape, dtype=np.int64))
        _write(archive, "sizes", np.array([item.truth.size for item in measurements], dtype=np.int64))
        for name, flags in (
            ("regions", np.concatenate([item.region.ravel() for item in measurements])),
            ("truth", np.concatenate([item.truth for item in measurements])),
        ):
            _write(archive, name, np.packbits(flags))
            _write(archive, f"{name}_size", np.array([flags.size], dtype=np.int64))
        for number, name in enumerate(names):
            values = [item.rows[name].astype(np.float16, copy=False) for item in measurements]
            _write(archive, f"row{number}", np.concatenate(values))


def _from_plain(fact: dict[str, Any]) -> dict[str, Any]:
    """The fields of a measurement that are no voxels."""
    return {
        **fact,
        "own_grid": tuple(fact["own_grid"]),
        "expected_false": np.array(fact["expected_false"], dtype=np.float64),
        "hits": np.array(fact["hits"], dtype=bool),
    }


def _write(archive: zipfile.ZipFile, name: str, array: NDArray[Any]) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array(file, array, allow_pickle=False)


def _member(path: Path, name: str) -> NDArray[Any]:
    try:
        # Rows of large test sets take gigabytes; the archive is not compressed, so the file is as large as its arrays.
        return read_npz(path, [name], limit=path.stat().st_size)[name]
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; expected the measurements of a finished run") from None
    except DataError as error:
        raise DataError(f"{error}: damaged, or no file of measurements; run again") from None
