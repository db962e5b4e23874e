"""Who was learnt from and who is held out: every rule that nobody stands on both sides.

Names are those of cases or of subjects; what is refused raises an error that names the first, in order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from medgen.data.cases import Case, Manifest
from medgen.data.layouts.tables import read_table
from medgen.errors import AuditError, DataError

SPLITS = "splits.csv"
# Parts whose scans generators see; all others are held out.
LEARNT = ("labelled", "unlabelled")


def guard(parents: Iterable[str], learnt: Iterable[str]) -> None:
    """Raise AuditError for a synthetic scan whose parents are not all among the cases that were learnt from."""
    if strangers := sorted(set(parents) - set(learnt)):
        raise AuditError(
            f"synthetic scan with the parent {strangers[0]!r}, which is not a training case: "
            "held-out data would leak into training; the scan is refused"
        )


def guard_split(learnt: Iterable[str], held_out: Iterable[str]) -> None:
    """Raise AuditError for a subject that is learnt from and held out."""
    if both := set(learnt) & set(held_out):
        raise AuditError(f"subject {min(both)!r} is both learnt from and held out for testing; split by subject")


def guard_reference(learnt: Iterable[str], held_out: Iterable[str]) -> None:
    """Raise DataError for a subject that is learnt from, where held-out scans are what others are measured by."""
    if both := set(learnt) & set(held_out):
        raise DataError(f"subject {min(both)!r} is both learnt from and held out; the audit needs disjoint subjects")


def guard_parts(name: str, subjects: Iterable[str], other: str, more: Iterable[str]) -> None:
    """Raise AuditError for a subject in two parts of a study, which are called ``name`` and ``other``."""
    if both := set(subjects) & set(more):
        raise AuditError(f"subject {min(both)!r} is in the {name} and in the {other} part of the study")


def guard_masks(name: str, seen: Collection[str], labelled: Collection[str]) -> None:
    """Raise AuditError if the generator ``name`` has seen masks of subjects whose masks the segmenters do not have."""
    if more := sorted(set(seen) - set(labelled)):
        raise AuditError(
            f"{name}: its generator saw the masks of {len(seen)} subjects, {more[0]!r} among "
            f"them, and the segmenters here have {len(set(labelled))}: such scans would bring labels in by the "
            "back door; set value.subjects and labelled_subjects to that number of subjects"
        )


class HeldOut:
    """The cases of test and validation by all that may give them away: id, subject and content.

    Args:
        parts: The cases of each part, with hashes.
    """

    def __init__(self, parts: Mapping[str, Manifest]) -> None:
        held_out = [(part, case) for part in ("test", "validation") for case in parts.get(part, ())]
        self._cases = {case.id: part for part, case in held_out}
        self._subjects = {case.subject: part for part, case in held_out}
        self._hashes = {value: (case.id, part) for part, case in held_out for value in case.sha256.values()}
        self._owners = {case.id: case.subject for part in parts.values() for case in part}

    def refuse(self, case: Case, parents: Iterable[str], where: str) -> None:
        """Refuse a synthetic case that is known to be made from a held-out one, bears its name, or holds its file.

        Args:
            case: With hashes.
            parents: Cases or subjects that it was made from, as far as they are known.
            where: The case in words, for the message.

        Raises:
            AuditError: Naming the held-out case or subject.
        """
        for parent in parents:
            part = self._cases.get(parent) or self._subjects.get(self._owners.get(parent, parent))
            if part is not None:
                raise AuditError(f"{where} was made from {parent}, which is in the {part} part; remove the scan")
        for own in (case.id, case.subject):
            if part := self._subjects.get(own) or self._cases.get(own):
                raise AuditError(f"{where} bears the name of {own!r} of the {part} part; rename or remove the scan")
        for value in case.sha256.values():
            if value in self._hashes:
                original, part = self._hashes[value]
                raise AuditError(f"{where} holds a file of {original} of the {part} part; remove the scan")


@dataclass(frozen=True)
class RunSplits:
    """Cases and subjects of a run.

    Attributes:
        source: The file that says so.
        part: Part (``labelled``, ``unlabelled``, ``test``, ...) of each case.
        subject: Subject of each case.
    """

    source: Path
    part: dict[str, str]
    subject: dict[str, str]

    @property
    def learnt(self) -> frozenset[str]:
        """Cases and subjects that the generators learnt from, labelled or not."""
        return self._names(case for case, part in self.part.items() if part in LEARNT)

    @property
    def held_out(self) -> frozenset[str]:
        """Cases and subjects that were held out, for validation or test."""
        return self._names(case for case, part in self.part.items() if part not in LEARNT)

    @property
    def taught(self) -> dict[str, str]:
        """Subject → part, of the subjects that the generators learnt from."""
        return {self.subject[case]: part for case, part in self.part.items() if part in LEARNT}

    def _names(self, cases: Iterable[str]) -> frozenset[str]:
        return frozenset(name for case in cases for name in (case, self.subject[case]))

    def refuse_training(self, names: Iterable[str]) -> None:
        """Raise AuditError for a held-out case or subject in a training set that synthetic scans are mixed into."""
        if shared := sorted(self.held_out & set(names)):
            raise AuditError(
                f"{shared[0]!r} is held out in {self.source}, but is in the data set that synthetic scans "
                f"are mixed into ({len(shared)} such); mix them into training scans only, never into validation or test"
            )

    def refuse_validation(self, names: Iterable[str]) -> None:
        """Raise AuditError for a case or subject in validation or test that the generators learnt from."""
        if shared := sorted(self.learnt & set(names)):
            raise AuditError(
                f"{shared[0]!r} is to be validated on, but the generators learnt from it ({self.source}, {len(shared)} "
                "such): the result would be too good; hold these subjects out before the augment run"
            )

    def refuse_study(self, held_out: Iterable[str]) -> None:
        """Raise AuditError for a subject that the generators learnt from, and a study of their scans holds out."""
        if both := sorted(set(self.taught) & set(held_out)):
            raise AuditError(
                f"{self.source.parent}: its generators learnt from subject {both[0]!r}, which this study holds out; "
                "use the same data, seed, test and validation as that run"
            )

    def refuse_parents(self, scan: str, parents: Iterable[str]) -> None:
        """Raise AuditError for a synthetic scan of the run with a parent that the run held out."""
        if strangers := sorted(set(parents) - self.learnt):
            raise AuditError(
                f"{self.source.parent}: synthetic scan {scan} has the parent {strangers[0]!r}, which the run held out: "
                "held-out data would leak into training; the data set is refused"
            )


def read_origin(path: str | Path) -> RunSplits:
    """Read the ``splits.csv`` of an augment run.

    Raises:
        DataError: If it is not there, lacks a column, or names no case.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; give the {SPLITS} of the augment run that made the synthetic scans")
    columns, rows = read_table(path)
    if not {"case", "subject", "part"} <= set(columns):
        raise DataError(f"{path}: columns {', '.join(columns)}; expected case, subject and part")
    part = {row["case"]: row["part"] for _, row in rows}
    if not part:
        raise DataError(f"{path}: names no case; expected the {SPLITS} of an augment run")
    return RunSplits(path, part, {row["case"]: row["subject"] for _, row in rows})
