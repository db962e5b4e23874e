"""Compare a run with its record: outputs, journal, inputs, weights and signature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medgen.audit.chain import Checked, Kind, check_journal
from medgen.audit.inputs import check_inputs, check_weights
from medgen.audit.record import RunRecord, find_record
from medgen.audit.signature import Signed, check_signature
from medgen.audit.tombstone import read_tombstones
from medgen.errors import AuditError, DataError
from medgen.runs.journal import NAME as JOURNAL
from medgen.runs.outputs import RECORD, output_files
from medgen.system import files


@dataclass(frozen=True)
class Problem:
    """A file that is not as the run left or found it.

    Attributes:
        file: Path below the run folder; of an input the case, of weights the file.
        kind: ``missing``, ``altered``, ``moved`` (a line of the journal) or ``unlisted`` (there, but not of the run).
        detail: What was found and expected.
    """

    file: str
    kind: Kind
    detail: str

    def __str__(self) -> str:
        """The problem as the line that is printed: file, kind and detail."""
        return f"{self.file}: {self.kind}: {self.detail}"


@dataclass(frozen=True)
class Verified:
    """What came of verifying a run.

    Attributes:
        problems: Every file that is not as the run left or found it.
        outputs: Number of outputs that were compared.
        inputs: Number of input files that are as the run read them.
        unseen_inputs: Number of input files that were not compared, since their place is not known.
        weights: Number of files of the model that the run used and that are as it used them.
        unseen_weights: Number of those that were not compared.
        journal: What came of following the chain of the journal; None if only a part of the run was verified, or
            nothing was tracked.
        signed: Who signed the record; None if nobody has, or only a part was verified.
        forgotten: When the run was made to forget a case, for each.
    """

    problems: tuple[Problem, ...]
    outputs: int
    inputs: int = 0
    unseen_inputs: int = 0
    weights: int = 0
    unseen_weights: int = 0
    journal: Checked | None = None
    signed: Signed | None = None
    forgotten: tuple[str, ...] = ()

    @property
    def apart_from(self) -> str:
        """What is not as the run left it since it was made to forget cases, in words; empty if nothing is."""
        if not self.forgotten:
            return ""
        return f", except for {len(self.forgotten)} case(s) forgotten, the last on {max(self.forgotten)[:10]}"

    @property
    def lines(self) -> list[str]:
        """What was compared, in words, a line each."""
        lines = [f"{self.outputs} output(s) compared"]
        if self.inputs or self.unseen_inputs:
            more = f", {self.unseen_inputs} not looked at: say where they are with --data" if self.unseen_inputs else ""
            lines.append(f"{self.inputs} input file(s) as the run read them{more}")
        if self.weights or self.unseen_weights:
            more = f", {self.unseen_weights} not looked at: say where with --model" if self.unseen_weights else ""
            lines.append(f"{self.weights} file(s) of the model as the run used them{more}")
        if self.journal is not None and self.journal.chained:
            gone = f", {self.journal.forgotten} of them forgotten" if self.journal.forgotten else ""
            state = "broken" if self.journal.faults else "whole"
            lines.append(f"journal: {self.journal.lines} line(s){gone}, its chain is {state}")
        elif self.journal is not None:
            lines.append("journal: of an earlier medgen, without a chain: a change in it would not be seen")
        if self.signed is not None:
            lines.append(f"signed {self.signed.signed} with the key {self.signed.key}")
        return lines


def verify(target: str | Path) -> list[Problem]:
    """Compare the outputs of a run folder, or one file of it, with the record of the run.

    Args:
        target: The run's folder or any file or folder below it.

    Returns:
        Every missing, altered and unlisted file; empty if all is as the run left it.

    Raises:
        AuditError: If there is no record above the target, or the record itself was altered.
    """
    record, part = find_record(target)
    return _outputs(record, part, target)[0]


def verify_run(
    target: str | Path, *, data: Sequence[Path] = (), model: Path | None = None, key: Path | None = None
) -> Verified:
    """Compare outputs, journal, inputs, weights and signature of a run with its record.

    Args:
        target: The run's folder, or any file or folder below it, whose hashes alone are compared then.
        data: Files and folders in which the scans are that the run has read; default: where its manifest says.
        model: Folder of the model that the run has used; default: in the run beside this one that trained it.
        key: Public key of who should have signed.

    Raises:
        AuditError: If there is no record above the target, the record or its signature was altered, or it is not signed
            with the key.
        DataError: If a file cannot be read.
    """
    record, part = find_record(target)
    signed = check_signature(record.out, key)
    if part:
        problems, count = _outputs(record, part, target)
        return Verified(tuple(problems), count)
    problems, count, journal = as_left(record)
    inputs, weights = check_inputs(record, data), check_weights(record, model)
    problems += [Problem(case, "altered", detail) for case, detail in inputs.altered.items()]
    problems += [Problem("input", "missing", detail) for detail in inputs.missing]
    problems += [Problem(name, "altered", detail) for name, detail in weights.altered.items()]
    problems += [Problem("weights", "missing", detail) for detail in weights.missing]
    forgotten = tuple(str(told["when"]) for told in read_tombstones(record.out))
    return Verified(
        tuple(problems), count, inputs.same, inputs.unseen, weights.same, weights.unseen, journal, signed, forgotten
    )


def as_left(record: RunRecord) -> tuple[list[Problem], int, Checked | None]:
    """What of a run's own outputs and journal is not as it left them; how many were compared, and the journal's chain.

    Raises:
        AuditError: If the journal cannot be read, or nothing is listed.
        DataError: If an output cannot be read.
    """
    problems, count = _outputs(record, "", record.out)
    journal = _journal(record)
    if journal is not None:
        problems += [Problem(JOURNAL, fault.kind, fault.detail) for fault in journal.faults]
    return problems, count, journal


def _outputs(record: RunRecord, part: str, target: str | Path) -> tuple[list[Problem], int]:
    out = record.out
    listed = {name: digest for name, digest in record.files.items() if _below(name, part)}
    present = {name for name in output_files(out) if _below(name, part)}
    problems = []
    for name, digest in listed.items():
        if name not in present:
            problems.append(Problem(name, "missing", "written by the run, but no longer there"))
        elif (out / name).is_symlink():
            problems.append(Problem(name, "altered", "a link, where the run wrote a file"))
        elif (found := files.sha256_file(out / name)) != digest:
            problems.append(Problem(name, "altered", f"SHA-256 is {found[:12]}..., the run wrote {digest[:12]}..."))
    extra = [Problem(name, "unlisted", "not written by the run") for name in sorted(present - listed.keys())]
    if not listed and not extra:
        raise AuditError(f"{target}: not among the run's outputs; expected a file listed in {out / RECORD}")
    return problems + extra, len(listed)


def _journal(record: RunRecord) -> Checked | None:
    """The chain of a run's journal; one that is gone, of a run that had one, is a fault of the record."""
    recorded = record.content.get("journal")
    if recorded is None and not (record.out / JOURNAL).is_file():
        return None
    try:
        return check_journal(record.out / JOURNAL, recorded)
    except DataError as error:
        raise AuditError(str(error)) from None


def _below(name: str, part: str) -> bool:
    return not part or name == part or name.startswith(part + "/")
