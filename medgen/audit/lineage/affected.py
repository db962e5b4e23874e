"""What was made from a scan, in all runs below some folders: the question of a patient who takes consent back."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medgen.audit.inputs import digests_of
from medgen.audit.lineage.models import KnownModel, models_of, provenance_files, used_model
from medgen.audit.lineage.trace import case_of
from medgen.audit.record import RunRecord, records_below
from medgen.audit.tombstone import hashed, read_tombstones
from medgen.errors import AuditError, DataError
from medgen.system import files

# Tables and records of a larger size are read in no run of medgen.
_LIMIT = 256 << 20


@dataclass(frozen=True)
class AffectedRun:
    """What one run has made from a scan.

    Attributes:
        record: The run.
        cases: What the scan is called there; empty if the run has not read it itself.
        own: Files that are about the scan alone, such as its heatmap.
        mentions: Files that name the scan beside others, such as tables.
        models: Models of the run that have learnt from it, themselves or by a model that they started from.
        copies: Synthetic scans that were made by changing it: id → their files.
        learnt: Synthetic scans of generators that have learnt from it, without those above: id → their files.
        by_model: Why everything in the run depends on it, where the run used a model that had learnt from it; else
            empty.
        forgotten: When the run was made to forget it; empty if it was not.
    """

    record: RunRecord
    cases: tuple[str, ...]
    own: tuple[str, ...] = ()
    mentions: tuple[str, ...] = ()
    models: tuple[KnownModel, ...] = ()
    copies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    learnt: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    by_model: str = ""
    forgotten: tuple[str, ...] = ()

    @property
    def lines(self) -> list[str]:
        """What is affected, a line for each kind, beginning with the run."""
        lines = [f"{self.record.called}, {self.record.out}"]
        if self.cases:
            lines.append(f"  read as {', '.join(self.cases)}")
        lines += [f"  forgotten on {when}; what was learnt from it before was not" for when in self.forgotten]
        lines += [f"  learnt by {model.name}, sha256 {model.sha256}" for model in self.models]
        if self.by_model:
            lines.append(f"  all of its outputs: made with {self.by_model}")
        lines += [f"  made from it alone: {name}" for name in self.own]
        lines += [f"  names it: {name}" for name in self.mentions]
        lines += [f"  its scan in another shape: {name}" for own in self.copies.values() for name in own]
        lines += [f"  made by a generator that learnt from it: {name}" for own in self.learnt.values() for name in own]
        return lines

    def to_plain(self) -> dict[str, Any]:
        """Plain data: the run by folder and id."""
        return {
            "run": self.record.out.as_posix(),
            "run_id": self.record.run_id,
            "pipeline": self.record.content.get("pipeline"),
            "cases": list(self.cases),
            "own": list(self.own),
            "mentions": list(self.mentions),
            "models": {model.name: model.sha256 for model in self.models},
            "copies": {name: list(own) for name, own in self.copies.items()},
            "learnt": {name: list(own) for name, own in self.learnt.items()},
            "by_model": self.by_model,
            "forgotten": list(self.forgotten),
        }


def affected(scan: str | Path, runs: Sequence[Path]) -> list[AffectedRun]:
    """What was made from a scan.

    Args:
        scan: Its file, its folder of slices, or what it is called in the runs.
        runs: Folders with runs below them.

    Returns:
        Every run that has read it, or that used a model that learnt from it, in the order of their folders.

    Raises:
        AuditError: If there is no run, or it is neither a file nor called so in any run.
        DataError: If the file cannot be read.
    """
    records = list(records_below(*runs))
    if not records:
        raise AuditError(f"{', '.join(map(str, runs))}: no finished run here or below; expected the folder of the runs")
    path = Path(scan)
    digests = digests_of(path) if path.exists() else set()
    cases = {record.out: _cases(record, str(scan), digests) for record in records}
    if not digests:
        # What it is called is known; what it was made from under other names is told by its hashes.
        digests = {
            own
            for record in records
            for case in cases[record.out]
            for joined in _images(record.inputs.get(case, {}))
            for own in joined.split(";")
        }
        cases = {record.out: cases[record.out] | _cases(record, "", digests) for record in records}
        if not digests and not any(cases.values()) and not any(_forgotten(own, {str(scan)}) for own in records):
            raise AuditError(f"{scan}: no such file, and no run calls a scan so; expected one or the other")
    trained = {record.out: models_of(record) for record in records}
    forgotten = {record.out: _forgotten(record, {str(scan), *digests}) for record in records}
    knowing = _knowing(trained, cases, digests, _still_knowing(forgotten.values()))
    found = [
        replace(
            _affected(record, cases[record.out], digests, trained[record.out], knowing),
            forgotten=tuple(str(told["when"]) for told in forgotten[record.out]),
        )
        for record in records
    ]
    return [
        own for own in found if own.cases or own.models or own.by_model or own.copies or own.learnt or own.forgotten
    ]


def _forgotten(record: RunRecord, called: set[str]) -> list[Mapping[str, Any]]:
    """The tombstones of a run that are of a scan, by its names and the hashes of its files."""
    return [
        told
        for told in read_tombstones(record.out)
        if any(hashed(str(told["salt"]), name) in told["cases"] for name in called)
    ]


def _still_knowing(forgotten: Iterable[Sequence[Mapping[str, Any]]]) -> dict[str, KnownModel]:
    """Models whose records were made to forget a scan that they have learnt from, by their digests then and now."""
    return {
        str(digest): KnownModel(str(name), str(digest), {}, {})
        for every in forgotten
        for told in every
        for name, digests in told["models"].items()
        for digest in digests
    }


def _cases(record: RunRecord, name: str, digests: set[str]) -> frozenset[str]:
    """What a scan is called in a run."""
    return frozenset(
        case
        for case, parts in record.inputs.items()
        if case == name or any(digests.intersection(joined.split(";")) for joined in _images(parts))
    )


def _images(parts: Mapping[str, str]) -> list[str]:
    """The hashes by which a scan is told: not those of masks, of which one may serve many patients."""
    return [digest for part, digest in parts.items() if part not in ("mask", "person")]


def _knowing(
    trained: Mapping[Path, Sequence[KnownModel]],
    cases: Mapping[Path, frozenset[str]],
    digests: set[str],
    known: dict[str, KnownModel],
) -> dict[str, KnownModel]:
    """The models that have learnt from a scan, by their digest; also those that started from such a model."""
    everything = [(out, model) for out, own in trained.items() for model in own]
    before = -1
    while len(known) > before:
        before = len(known)
        for out, model in everything:
            itself = any(model.knows(digest) for digest in digests) or bool(cases[out] & model.cases.keys())
            if itself or any(digest in known for digest in model.started_from):
                known[model.sha256] = model
    return known


def _affected(
    record: RunRecord,
    cases: frozenset[str],
    digests: set[str],
    models: Sequence[KnownModel],
    knowing: Mapping[str, KnownModel],
) -> AffectedRun:
    own = tuple(name for name in record.files if case_of(name, record.inputs) in cases) if cases else ()
    mentions = tuple(name for name in record.files if name not in own and _names(record.out / name, cases))
    copies, learnt = _synthetic(record, cases, digests, knowing)
    used, why = used_model(record), ""
    if used is not None and used.sha256 in knowing:
        why = f"a model that learnt from it, sha256 {used.sha256}"
    elif used is not None and cases & used.cases.keys():
        why = f"a model whose training scans have its name, sha256 {used.sha256}"
    return AffectedRun(
        record,
        tuple(sorted(cases)),
        own,
        mentions,
        tuple(model for model in models if model.sha256 in knowing),
        copies,
        learnt,
        why,
    )


def _names(path: Path, cases: frozenset[str]) -> bool:
    """Whether a file of text names one of the cases."""
    if not cases or path.suffix not in (".csv", ".json", ".md", ".html", ".yaml", ".txt") or not path.is_file():
        return False
    name = re.compile(r"(?<![\w.-])(" + "|".join(map(re.escape, sorted(cases))) + r")(?!\w)")
    if path.suffix == ".csv":
        return any(name.search(cell) for row in _cells(path) for cell in row)
    try:
        text = files.read_text(path, _LIMIT)
    except DataError:
        return False
    return name.search(text) is not None


def _cells(path: Path) -> Iterator[list[str]]:
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        yield from csv.reader(file)


def _synthetic(
    record: RunRecord, cases: frozenset[str], digests: set[str], knowing: Mapping[str, KnownModel]
) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """Synthetic scans that were made from a scan, and those whose generator has learnt from it."""
    copies: dict[str, tuple[str, ...]] = {}
    learnt: dict[str, tuple[str, ...]] = {}
    for name, cohort in provenance_files(record):
        try:
            content = files.read_json(record.out / name)
        except DataError:
            continue
        if not isinstance(content, dict) or "generator_sha256" not in content:
            continue
        own = tuple(f"{cohort}/{item}" if cohort else item for item in content.get("files", ()))
        parents = content.get("parents") or ()
        if any(own.get("case") in cases or digests & {*(own.get("sha256") or {}).values()} for own in parents):
            copies[str(content["id"])] = own
        elif content["generator_sha256"] in knowing:
            learnt[str(content["id"])] = own
    return copies, learnt
