"""Whom synthetic scans were learnt from: the split of the run that made them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from medgen.data.layouts.tables import read_table
from medgen.errors import AuditError, DataError

SPLITS = "splits.csv"
# Parts whose scans generators see; all others are held out.
_LEARNT = ("labelled", "unlabelled")


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
        return self._names(case for case, part in self.part.items() if part in _LEARNT)

    @property
    def held_out(self) -> frozenset[str]:
        """Cases and subjects that were held out, for validation or test."""
        return self._names(case for case, part in self.part.items() if part not in _LEARNT)

    def _names(self, cases: Iterable[str]) -> frozenset[str]:
        return frozenset(name for case in cases for name in (case, self.subject[case]))

    def refuse_training(self, names: Iterable[str]) -> None:
        """Refuse held-out cases or subjects in a training set that synthetic scans are mixed into.

        Raises:
            AuditError: Naming one.
        """
        if shared := sorted(self.held_out & set(names)):
            raise AuditError(
                f"{shared[0]!r} is held out in {self.source}, but is in the data set that synthetic scans "
                f"are mixed into ({len(shared)} such); mix them into training scans only, never into validation or test"
            )

    def refuse_validation(self, names: Iterable[str]) -> None:
        """Refuse a validation or test set with cases or subjects that the generators learnt from.

        Raises:
            AuditError: Naming one.
        """
        if shared := sorted(self.learnt & set(names)):
            raise AuditError(
                f"{shared[0]!r} is to be validated on, but the generators learnt from it ({self.source}, {len(shared)} "
                "such): the result would be too good; hold these subjects out before the augment run"
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
