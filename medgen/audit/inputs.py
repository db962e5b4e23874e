"""Compare the scans and weights that a run has read with the hashes in its record."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from medgen.audit.record import RunRecord, records_below
from medgen.data import cases
from medgen.errors import DataError, MedgenError
from medgen.runs import outputs
from medgen.system import files


@dataclass
class Looked:
    """What came of looking for what a run has read.

    Attributes:
        altered: File → what was found and expected.
        missing: What was looked for in the given places and is not there.
        same: Number of files that are as the run read them.
        unseen: Number of files whose place is not known.
    """

    altered: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    same: int = 0
    unseen: int = 0


def digests_of(path: Path) -> set[str]:
    """Every hash by which a record may know a file or folder.

    A series of slices counts in a cohort by the names and hashes of its files, in a scoring by the hashes alone.

    Raises:
        DataError: If a file cannot be read.
    """
    if path.is_dir():
        return {cases.sha256_of(path), outputs.sha256_of(path)}
    try:
        return {files.sha256_file(path), cases.sha256_of(path)}
    except MedgenError:
        # A header whose voxels are not there has at least its own hash.
        return {files.sha256_file(path)}


def check_inputs(record: RunRecord, data: Sequence[Path] = ()) -> Looked:
    """Look for the scans that a run has read, and compare them.

    Args:
        record: Of the run.
        data: Files and folders in which they are; default: where the run's ``manifest.csv`` says.

    Raises:
        DataError: If a file that is there cannot be read.
    """
    looked = Looked()
    places = _places(record.out)
    known = _Below(data)
    for case, parts in record.inputs.items():
        for part, joined in parts.items():
            named = places.get((case, part), [])
            for number, digest in enumerate(joined.split(";")):
                place = named[number] if number < len(named) else None
                called = f"{case} {part}" + (f" {number + 1}" if ";" in joined else "")
                _look(looked, called, digest, place, known, asked=bool(data))
    return looked


def check_weights(record: RunRecord, model: Path | None = None) -> Looked:
    """Compare the weights of the model that a run has used.

    Args:
        record: Of the run.
        model: Folder of the model; default: that of the run beside this one that made it, if it is there.

    Raises:
        DataError: If a file cannot be read.
    """
    looked = Looked()
    used: Mapping[str, Any] = record.model.get("weights") or {}
    folder = model or _trained_beside(record)
    for name, digest in used.items():
        if folder is None:
            looked.unseen += 1
            continue
        path = weights_in(folder, str(name), str(digest))
        if not path.is_file():
            looked.missing.append(f"{path}: of the model that the run has used")
        elif (found := files.sha256_file(path)) != digest:
            looked.altered[str(path)] = _differs(found, str(digest), "used")
        else:
            looked.same += 1
    return looked


class _Below:
    """The files below some folders by their hash and their name, hashed when first asked for."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = roots
        self._digests: dict[str, Path] | None = None
        self.names: dict[str, Path] = {}

    def with_digest(self, digest: str) -> Path | None:
        if self._digests is None:
            self._digests = {}
            for path in self._all():
                self.names.setdefault(path.name, path)
                for own in digests_of(path):
                    self._digests.setdefault(own, path)
        return self._digests.get(digest)

    def _all(self) -> Iterator[Path]:
        for root in self._roots:
            if root.is_dir():
                yield root
                for path in sorted(root.rglob("*")):
                    # A folder with slices in it may be a series.
                    if path.is_file() or (path.is_dir() and any(own.is_file() for own in path.iterdir())):
                        yield path
            elif root.exists():
                yield root
            else:
                raise DataError(f"{root}: no such file or folder; expected the scans that the run has read")


def _look(looked: Looked, called: str, digest: str, place: Path | None, known: _Below, *, asked: bool) -> None:
    if place is not None and place.exists() and not asked:
        if digest in digests_of(place):
            looked.same += 1
        else:
            looked.altered[called] = f"{place.name} is not what the run read (SHA-256 {digest[:12]}...)"
    elif not asked:
        looked.unseen += 1
    elif known.with_digest(digest) is not None:
        looked.same += 1
    else:
        name = place.name if place is not None else ""
        stem = called.partition(" ")[0]
        like = known.names.get(name) or next(
            (path for own, path in known.names.items() if own == stem or own.startswith(f"{stem}.")), None
        )
        if like is not None:
            looked.altered[called] = f"{like.name} is not what the run read (SHA-256 {digest[:12]}...)"
        else:
            looked.missing.append(f"{called}: no file with SHA-256 {digest[:12]}...")


def _places(out: Path) -> dict[tuple[str, str], list[Path]]:
    """Where the files of the cohort are by the run's manifest: (case, ``image`` or ``mask``) → one for each channel."""
    path = out / "manifest.csv"
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        (files.unescaped(row["id"]), part): [out / files.unescaped(name.strip()) for name in row[part].split(";")]
        for row in rows
        for part in ("image", "mask")
        if row.get("id") and row.get(part)
    }


def _trained_beside(record: RunRecord) -> Path | None:
    """The model folder of the run that trained the model, where it lies beside this run."""
    run, weights = record.model.get("run_id"), record.model.get("weights") or {}
    if not run:
        return None
    for other in records_below(record.out.parent):
        if other.run_id != run:
            continue
        if all(other.files.get(str(name)) == digest for name, digest in weights.items()):
            return other.out
        # The folder of a model may be called otherwise, such as one for scans that lack a contrast.
        names = {name.rpartition("/")[0] for name in other.files if name.endswith("/artifact.json")}
        wanted = {str(digest) for digest in weights.values()}
        for name in sorted(names):
            if wanted <= {digest for own, digest in other.files.items() if own.rpartition("/")[0] == name}:
                return other.out / name
        return other.out
    return None


def weights_in(folder: Path, name: str, digest: str) -> Path:
    """A file of weights below a folder of a model, by as much of its path as the folder has; the right one if several.

    Records name ``model/deform/labels/arrays.safetensors``; the folder may be the run's, ``model`` or ``model/deform``.
    """
    pieces = PurePosixPath(name).parts
    found = [path for start in range(len(pieces)) if (path := folder.joinpath(*pieces[start:])).is_file()]
    return next((path for path in found if files.sha256_file(path) == digest), found[0] if found else folder / name)


def _differs(found: str, expected: str, did: str) -> str:
    return f"SHA-256 is {found[:12]}..., the run {did} {expected[:12]}..."
