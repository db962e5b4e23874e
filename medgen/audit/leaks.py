"""Is anybody that a synthetic cohort was learnt from among the cases kept for validation or test?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medgen.audit.replay import find_records
from medgen.data.layouts.detect import load_cohort
from medgen.data.layouts.tables import read_table
from medgen.errors import AuditError, DataError
from medgen.synthesis.export.provenance import FOLDER, LEARNT_FROM, read_record
from medgen.system import files
from medgen.training.transfer.source import Lineage

# Parts of a splits file that are not for training.
_HELD_OUT = re.compile(r"test|val|hold|held|calib", re.IGNORECASE)


@dataclass(frozen=True)
class Leak:
    """A held-out case that the synthetic cohort knows.

    Attributes:
        case: The held-out case.
        part: Where it is held out, such as ``test`` or ``fold 0``.
        reason: One line.
        scans: Synthetic scans made directly from its subject; empty if generators have learnt from it only.
    """

    case: str
    part: str
    reason: str
    scans: tuple[str, ...] = ()

    def __str__(self) -> str:
        made = f"; parent of {', '.join(self.scans[:3])}" if self.scans else ""
        more = f" and {len(self.scans) - 3} more" if len(self.scans) > 3 else ""
        return f"{self.part}: case {self.case}: {self.reason}{made}{more}"


@dataclass(frozen=True)
class _HeldOut:
    case: str
    part: str
    subject: str = ""
    sha256: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True)
class _Started:
    """A network of a generator that started from a trained model."""

    network: str
    sha256: str
    names: bool
    lineage: Lineage

    def knows(self, item: _HeldOut) -> bool:
        """By content in any case, by names where equal ones are of the same people."""
        named = item.case in self.lineage.cases or item.subject in self.lineage.subjects
        return bool(item.sha256 & self.lineage.files) or (self.names and named)


def find_leaks(cohort: Path, held_out: Path) -> tuple[list[Leak], int]:
    """Compare a synthetic cohort with the cases of validation and test.

    Args:
        cohort: Folder of a synthetic cohort.
        held_out: ``splits.csv`` (columns case and part, subject if there is one; parts named as test, validation,
            held-out or calibration count), nnU-Net's ``splits_final.json`` (``val`` of every fold), a text file with
            one case id per line, or a folder or manifest of the held-out scans, whose files are compared by content
            as well.

    Returns:
        The leaks, and the number of held-out cases that were looked at. Models that generators started from count with
        all that they have learnt from.

    Raises:
        AuditError: If the cohort has no list of whom it was learnt from, or that or a record was altered; or if a
            generator started from a model that does not say from whom it has learnt.
        DataError: If the held-out cases cannot be read, or there are none.
    """
    learnt, started = _learnt(cohort)
    digests = {own.sha256 for own in started}
    cases = {item["case"]: item["subject"] for item in learnt}
    subjects = {item["subject"]: item["case"] for item in learnt}
    hashes = {digest: item["case"] for item in learnt for digest in item["sha256"].values()}
    made: dict[str, list[str]] = {}
    synthetic = set()
    for path in find_records(cohort):
        record = read_record(path)
        synthetic.add(record["id"])
        if not digests.issuperset(record.get("started_from", ())):
            raise AuditError(
                f"{path}: its generator started from a model that {FOLDER}/{LEARNT_FROM} does not list; restore that "
                "file from a copy"
            )
        for parent in record["parents"]:
            made.setdefault(parent["subject"], []).append(record["id"])
    wanted = list(_held_out(held_out))
    if not wanted:
        raise DataError(f"{held_out}: names no case of validation or test; expected at least one")
    leaks = []
    for item in wanted:
        twin = next((hashes[digest] for digest in item.sha256 if digest in hashes), None)
        if item.case in synthetic:
            leaks.append(Leak(item.case, item.part, "is a synthetic scan; these are for training only"))
        elif item.case in cases:
            leaks.append(_leak(item, cases[item.case], "was learnt from", made))
        elif item.subject in subjects:
            text = f"its subject {item.subject} was learnt from (case {subjects[item.subject]})"
            leaks.append(_leak(item, item.subject, text, made))
        elif twin is not None:
            leaks.append(_leak(item, cases[twin], f"has the same file content as case {twin}, learnt from", made))
        elif before := next((own for own in started if own.knows(item)), None):
            text = f"was learnt from by artifact {before.sha256[:12]}, which {before.network} started from"
            leaks.append(_leak(item, item.subject, text, made))
    return leaks, len(wanted)


def _leak(item: _HeldOut, subject: str, reason: str, made: dict[str, list[str]]) -> Leak:
    return Leak(item.case, item.part, reason, tuple(made.get(subject, ())))


def _learnt(cohort: Path) -> tuple[list[dict[str, Any]], list[_Started]]:
    path = cohort / FOLDER / LEARNT_FROM
    try:
        content = files.read_json(path)
        cases: list[dict[str, Any]] = content["cases"]
        given = content.get("started_from", [])
        sealed = [(cases, content["sha256"]), *([(given, content["started_from_sha256"])] if given else [])]
        if any(files.sha256_json(part) != digest for part, digest in sealed):
            raise AuditError(f"{path}: was altered: its SHA-256 differs from what it states")
    except (DataError, KeyError, TypeError) as error:
        raise AuditError(
            f"{cohort}: cannot say whom it was learnt from ({error}); expected {FOLDER}/{LEARNT_FROM}"
        ) from None
    return cases, [_started(cohort, own) for own in given]


def _started(cohort: Path, given: dict[str, Any]) -> _Started:
    lineage = Lineage.of(given["lineage"])
    # Whoever said that it knows other people has answered for a model that says nothing.
    if lineage is None and given["names"]:
        raise AuditError(
            f"{cohort}: {given['network']} started from artifact {given['sha256'][:12]}, which does not say from whom "
            "it has learnt; nobody can tell whether held-out cases are among them"
        )
    return _Started(given["network"], given["sha256"], bool(given["names"]), lineage or Lineage())


def _held_out(path: Path) -> Iterator[_HeldOut]:
    if path.is_file() and path.suffix == ".json" and path.name != "dataset.json":
        yield from _folds(path)
    elif path.is_file() and path.suffix == ".csv" and "part" in read_table(path)[0]:
        yield from _splits(path)
    elif path.is_file() and path.suffix in (".txt", ".lst", ""):
        yield from _listed(path, path.read_text(encoding="utf-8").splitlines())
    else:
        for case in load_cohort(path, ask=False).with_hashes():
            yield _HeldOut(case.id, path.name, case.subject, frozenset(case.sha256.values()))


def _splits(path: Path) -> Iterator[_HeldOut]:
    columns, rows = read_table(path)
    if "case" not in columns:
        raise DataError(f"{path}: columns {', '.join(columns)}; expected case and part")
    for _, row in rows:
        if _HELD_OUT.search(row["part"]):
            yield _HeldOut(row["case"], row["part"], row.get("subject", ""))


def _folds(path: Path) -> Iterator[_HeldOut]:
    content = files.read_json(path)
    if isinstance(content, list) and all(isinstance(item, str) for item in content):
        yield from _listed(path, content)
        return
    if not isinstance(content, list) or not all(isinstance(fold, dict) and "val" in fold for fold in content):
        raise DataError(f"{path}: expected nnU-Net's list of folds with train and val, or a list of case ids")
    for number, fold in enumerate(content):
        for case in fold["val"]:
            yield _HeldOut(str(case), f"fold {number} val")


def _listed(path: Path, lines: Iterable[str]) -> Iterator[_HeldOut]:
    for line in lines:
        if line.strip():
            yield _HeldOut(line.strip(), path.name)
