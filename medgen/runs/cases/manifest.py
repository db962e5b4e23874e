"""What a shard is: which cases, what is known of their files, under which settings, and what it has left."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medgen.errors import ConfigError, DataError
from medgen.runs.chain import Head, head_of
from medgen.runs.journal import NAME as JOURNAL
from medgen.system import files
from medgen.system.modes import make_folder

PLAN, RECORD, RESULTS, FILES = "plan.json", "shard.json", "results.jsonl", "files"
# Held by the command that has shards done: another would sweep away what its workers are at.
LOCK = f"{files.TEMPORARY}lock"


@dataclass(frozen=True)
class Item:
    """A case to be worked on.

    Attributes:
        name: Its id, unique among all.
        task: What the function needs to know of it; can be pickled.
        inputs: What its files are: name → SHA-256, or :func:`stamp` where reading them twice would cost as much as the
            work. A finished case is taken over only where these are the same.
    """

    name: str
    task: Any
    inputs: Mapping[str, str] = field(default_factory=dict)


def stamp(path: Path) -> str:
    """Size and time of change of a file, or of all files of a folder: told without reading them.

    Returns:
        64 hexadecimal digits; empty if there is nothing of that name.
    """
    digest = hashlib.sha256(b"folder" if path.is_dir() else b"file")
    try:
        for own in sorted(path.iterdir()) if path.is_dir() else [path]:
            found = own.stat()
            digest.update(f"{own.name}\0{found.st_size}\0{found.st_mtime_ns}\0".encode("utf-8", "surrogateescape"))
    except OSError:
        return ""
    return digest.hexdigest()


@dataclass(frozen=True)
class Plan:
    """How cases are divided, and what all their results depend on.

    Attributes:
        settings: Plain data.
        cases: How many there are.
        size: Cases of a shard; the last may have fewer.
    """

    settings: Mapping[str, Any]
    cases: int
    size: int

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.cases // self.size)

    def name(self, shard: int) -> str:
        """The folder of a shard.

        >>> Plan({}, 10, 3).shards, Plan({}, 10, 3).name(2)
        (4, 'shard-00002')
        """
        return f"shard-{shard:05d}"

    def digest(self, items: Sequence[Item]) -> str:
        """SHA-256 of all that the results of a shard depend on."""
        return files.sha256_json([dict(self.settings), [[item.name, dict(item.inputs)] for item in items]])


def agreed(folder: Path, settings: Mapping[str, Any], cases: int, shards: int | None, usual: int) -> Plan:
    """The plan of a folder: that of an earlier start, if there was one with the same settings, else a new one, written.

    Args:
        folder: Where the shards lie.
        settings: What results depend on.
        cases: How many there are.
        shards: How many shards are wanted; None for those of an earlier start, else ``usual``.
        usual: How many there are where nobody says.

    Raises:
        ConfigError: If the shards in the folder are of other settings, or another number of them is wanted.
        DataError: If the folder cannot be written.
    """
    settings = files.plain(settings)
    if not (folder / PLAN).is_file() and any(not own.name.startswith(files.TEMPORARY) for own in folder.iterdir()):
        raise ConfigError(f"{folder}: holds something else than shards; choose an empty folder for them")
    wanted = min(max(shards or usual, 1), max(cases, 1))
    size = max(-(-cases // wanted), 1)
    if (folder / PLAN).is_file():
        before = files.read_json(folder / PLAN)
        if not isinstance(before, dict) or not files.seal_holds(before):
            raise DataError(f"{folder / PLAN}: is not as medgen wrote it; remove {folder} to start from the beginning")
        known = before["settings"]
        if changed := sorted(key for key in {*known, *settings} if known.get(key) != settings.get(key)):
            raise ConfigError(
                f"{folder}: holds shards of other settings ({', '.join(changed)}); use the same values, or another "
                "folder"
            )
        if before["cases"] == cases:
            if shards is not None and before["size"] != size:
                there = -(-cases // before["size"])
                raise ConfigError(
                    f"{folder}: its {cases} cases are divided into {there} shard(s), not {shards}; use "
                    f"--shards {there}, or another folder"
                )
            size = before["size"]
    plan = Plan(settings, cases, size)
    files.write_json(folder / PLAN, files.sealed({"settings": settings, "cases": cases, "size": size}))
    return plan


def write_record(place: Path, digest: str, items: Sequence[Item], facts: Mapping[str, Any]) -> None:
    """Write ``shard.json``, the last file of a shard: its cases, the digests of its inputs, of its results, its files.

    Args:
        place: The shard's folder, whose results and journal are written.
        digest: As :meth:`Plan.digest`.
        items: Its cases.
        facts: What else is known of it, such as how long it took.

    Raises:
        DataError: If it cannot be written.
    """
    head = head_of(place / JOURNAL)
    written = {
        path.relative_to(place / FILES).as_posix(): path.stat().st_size
        for path in sorted((place / FILES).rglob("*"))
        if path.is_file()
    }
    body = {
        "digest": digest,
        "cases": [{"name": item.name, "inputs": dict(item.inputs)} for item in items],
        "results": files.sha256_file(place / RESULTS),
        "journal": {"lines": head.lines, "chain": head.chain},
        "files": written,
        **facts,
    }
    files.write_json(place / RECORD, files.sealed(body))


@dataclass(frozen=True)
class Finished:
    """A shard that is done.

    Attributes:
        place: Its folder.
        record: What ``shard.json`` says.
    """

    place: Path
    record: Mapping[str, Any]

    @classmethod
    def find(cls, place: Path, digest: str, out: Path | None) -> Finished | None:
        """A shard of the same cases, inputs and settings, with all that it has left still as it was; else None.

        Args:
            place: Its folder.
            digest: As :meth:`Plan.digest`.
            out: Where its files may have been put already.
        """
        try:
            record = files.read_json(place / RECORD)
            if not isinstance(record, dict) or not files.seal_holds(record) or record["digest"] != digest:
                return None
            if files.sha256_file(place / RESULTS) != record["results"]:
                return None
            if head_of(place / JOURNAL) != Head(**record["journal"]):
                return None
            for name, size in record["files"].items():
                if not any(_has(folder / name, size) for folder in (place / FILES, out) if folder is not None):
                    return None
        except DataError:
            return None
        return cls(place, record)

    def collect(self, out: Path) -> None:
        """Put its files below a folder, each in one step; those that are there stay.

        Raises:
            DataError: If one cannot be put there.
        """
        for name in self.record["files"]:
            source, target = self.place / FILES / name, out / name
            if source.is_file():
                try:
                    make_folder(target.parent)
                    _move(source, target)
                except OSError as error:
                    raise files.unwritable(target, error) from error

    def results(self) -> Iterator[tuple[str, Any]]:
        """Name and result of each case, in their order, one in memory at a time."""
        with files.open_regular(self.place / RESULTS) as file:
            for line in file:
                found = json.loads(line)
                yield found["case"], found["result"]


def _move(source: Path, target: Path) -> None:
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # Another file system: a copy that is whole before it bears the name.
        with files.atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
        source.unlink()


def _has(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size
