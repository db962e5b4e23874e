"""Compare a file that was made again with the one that is there: byte for byte, else what differs and by how much."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medgen import io
from medgen.config import read_yaml
from medgen.errors import MedgenError
from medgen.io.streams import Stream
from medgen.runs.outputs import CONFIG, output_files
from medgen.runs.recorded_environment import DIFF, ENVIRONMENT
from medgen.runs.tracking import config_digest
from medgen.system import files

State = Literal["identical", "same but for times", "within tolerance", "differs", "missing", "new", "not compared"]
# A measured time is another every time.
_TIME = "seconds"
# What records say of the code, and digests over records that say so: told apart where other code is compared.
_ORIGIN = ("commit", "dirty", "versions", "medgen", "sha256")
# The table of the cohort says where scans are, seen from the run's folder; their hashes are beside it.
_COHORT, _PLACES = "manifest.csv", ("image", "mask")
_IMAGES = (".nii.gz", ".nii")
_PART = 1 << 20


@dataclass(frozen=True)
class Compared:
    """What came of comparing one file.

    Attributes:
        file: Its path below the run.
        state: ``identical``; ``same but for times`` (nothing but measured seconds, or where the run was written,
            differs, and what records say of the code where other code was accepted); ``within tolerance``; ``differs``;
            ``missing`` (not made again); ``new`` (made, but not by the run); ``not compared`` (text or pages that
            differ, where numbers alone can be compared).
        detail: By how much, in words; empty if there is nothing to say.
    """

    file: str
    state: State
    detail: str = ""

    @property
    def agrees(self) -> bool:
        """Whether nothing speaks against its being the same."""
        return self.state in ("identical", "same but for times", "within tolerance", "not compared")

    def __str__(self) -> str:
        return f"{self.file}: {self.state}" + (f": {self.detail}" if self.detail else "")


def compare_runs(before: Path, after: Path, listed: Mapping[str, str], tolerance: float | None) -> list[Compared]:
    """Compare every output of a run with that of another.

    Args:
        before: Folder of the run.
        after: Folder of the run that was made again.
        listed: SHA-256 of every output of the first by its path below the folder.
        tolerance: Largest difference of a number, as a share of the largest in its file or column; None asks for equal
            bytes.

    Raises:
        MedgenError: If a file cannot be read.
    """
    made = set(output_files(after))
    found = [compare(before, after, name, digest, tolerance) for name, digest in sorted(listed.items())]
    return found + [Compared(name, "new") for name in sorted(made - set(listed))]


def compare(before: Path, after: Path, name: str, digest: str, tolerance: float | None) -> Compared:
    """Compare one output with the hash that it had, and where that differs, with its content."""
    if not (after / name).is_file():
        # Whether code differs from its commit is told of the machine, not of the run's results.
        return Compared(name, "not compared" if name == DIFF else "missing")
    if files.sha256_file(after / name) == digest:
        return Compared(name, "identical")
    if name in (ENVIRONMENT, DIFF):
        return Compared(name, "not compared", "it tells of the machine and the code")
    if not (before / name).is_file() or files.sha256_file(before / name) != digest:
        return Compared(name, "differs", "and the run's own file is gone or altered, so that it cannot be said how")
    if name == CONFIG:
        same = config_digest(read_yaml(before / name)) == config_digest(read_yaml(after / name))
        return Compared(name, "same but for times" if same else "differs")
    one, other = before / name, after / name
    if name.endswith((".json", ".csv")):
        return _tables(name, one, other, tolerance)
    if name.endswith(".nii.gz") and _same_unpacked(one, other):
        return Compared(name, "identical", "what they hold; packed by another compressor, see medgen.io.deflate")
    if tolerance is None:
        return Compared(name, "differs", _by_how_much(name, one, other))
    if (arrays := _arrays(name, one, other)) is not None:
        return _numbers(name, arrays, tolerance)
    return Compared(name, "not compared", "its bytes differ; text and pages are not compared by number")


def _tables(name: str, one: Path, other: Path, tolerance: float | None) -> Compared:
    ignored = (_TIME,) if tolerance is None else (_TIME, *_ORIGIN)
    first, second = _plain(one, ignored), _plain(other, ignored)
    if first == second:
        return Compared(name, "same but for times")
    worst, where = _distance(first, second)
    if worst is None:
        return Compared(name, "differs", f"at {where}")
    said = f"by up to {worst:.2g} of the number, at {where}"
    return Compared(name, "within tolerance" if tolerance is not None and worst <= tolerance else "differs", said)


def _plain(path: Path, ignored: Sequence[str]) -> Any:
    """What a table or record says, without some of its columns or keys."""
    if path.suffix == ".csv":
        places = _PLACES if path.name == _COHORT else ()
        with path.open(encoding="utf-8", newline="") as file:
            return [
                {
                    key: _last_names(value) if key in places else value
                    for key, value in row.items()
                    if key not in ignored
                }
                for row in csv.DictReader(file)
            ]
    return _without(files.read_json(path), ignored)


def _last_names(places: str) -> str:
    return ";".join(place.rpartition("/")[2] for place in places.split(";"))


def _without(data: Any, ignored: Sequence[str]) -> Any:
    if isinstance(data, dict):
        return {key: _without(value, ignored) for key, value in data.items() if key not in ignored}
    return [_without(item, ignored) for item in data] if isinstance(data, list) else data


def _distance(first: Any, second: Any, where: str = "") -> tuple[float | None, str]:
    """Largest relative difference of numbers that stand in the same place; None where something else differs."""
    if isinstance(first, dict) and isinstance(second, dict):
        if first.keys() != second.keys():
            return None, f"{where}/{sorted(first.keys() ^ second.keys())[0]}"
        pairs: Sequence[tuple[Any, Any, str]] = [(first[key], second[key], f"{where}/{key}") for key in first]
    elif isinstance(first, list) and isinstance(second, list):
        pairs = [(one, two, f"{where}/{row}") for row, (one, two) in enumerate(zip_longest(first, second))]
    else:
        one, two = _number(first), _number(second)
        if one is None or two is None:
            return (0.0, where) if first == second else (None, where)
        largest = max(abs(one), abs(two))
        return (abs(one - two) / largest if largest else 0.0), where
    worst, place = 0.0, where
    for one, two, below in pairs:
        found, at = _distance(one, two, below)
        if found is None:
            return None, at
        if found > worst:
            worst, place = found, at
    return worst, place


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and not isinstance(value, bool) else None


def _same_unpacked(one: Path, other: Path) -> bool:
    """Whether two packed files hold the same bytes: how small they are made depends on what is installed."""
    try:
        with Stream(one) as first, Stream(other) as second:
            while (part := first.read(_PART)) == second.read(_PART):
                if not part:
                    return True
    except MedgenError:
        pass
    return False


def _by_how_much(name: str, one: Path, other: Path) -> str:
    arrays = _arrays(name, one, other)
    return "" if arrays is None else _numbers(name, arrays, math.inf).detail


def _numbers(name: str, arrays: Mapping[str, tuple[NDArray[Any], NDArray[Any]]], tolerance: float) -> Compared:
    """Compare arrays, each by the largest difference as a share of the range of the first."""
    worst, where = 0.0, ""
    for key, (one, two) in arrays.items():
        if one.shape != two.shape or not np.array_equal(np.isnan(one), np.isnan(two)):
            return Compared(name, "differs", f"shape or empty voxels of {key or 'the volume'}")
        if not one.size:
            continue
        span = float(np.nanmax(one) - np.nanmin(one)) or 1.0
        difference = float(np.nanmax(np.abs(one - two))) / span
        if difference > worst:
            worst, where = difference, key
    said = f"by up to {worst:.2g} of the range" + (f", in {where}" if where else "")
    return Compared(name, "within tolerance" if worst <= tolerance else "differs", said)


def _arrays(name: str, one: Path, other: Path) -> dict[str, tuple[NDArray[Any], NDArray[Any]]] | None:
    """The arrays of two files of numbers by name; None of other files."""
    try:
        if name.endswith(_IMAGES):
            read = partial(io.read, allow_nan=True, multichannel=True)
            return {"": (read(one).data.astype(np.float64), read(other).data.astype(np.float64))}
        if name.endswith(".safetensors"):
            from safetensors.numpy import load_file

            first, second = load_file(one), load_file(other)
            shared = {*first} & {*second}
            return {key: (first[key].astype(np.float64), second[key].astype(np.float64)) for key in sorted(shared)}
        if name.endswith(".png"):
            from PIL import Image

            return {"": (np.asarray(Image.open(one), float), np.asarray(Image.open(other), float))}
    except (MedgenError, OSError, ValueError):
        return None
    return None
