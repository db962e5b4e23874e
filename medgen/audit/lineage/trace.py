"""Trace a file that medgen wrote to all that it was made from: scans, weights and theirs, settings, code, machine."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medgen.audit.lineage.models import Cases, KnownModel, learnt_from, models_of, provenance_files, used_model
from medgen.audit.record import RunRecord, find_record, records_below
from medgen.errors import AuditError
from medgen.runs.recorded_environment import DIFF, ENVIRONMENT
from medgen.synthesis.export.provenance import LEARNT_FROM, read_record
from medgen.system import files

# Columns and keys by which tables name the case that a row is about.
_CASE_COLUMNS = ("case", "scan", "id", "subject")
_CALIBRATION = ("calibration.csv", "candidates.csv")


@dataclass(frozen=True)
class Node:
    """Something that a file was made from, or the file itself.

    Attributes:
        id: Its place in the lineage; no other node has it.
        kind: ``output``, ``scan``, ``training scan``, ``parent scan``, ``model``, ``weights``, ``calibration``,
            ``settings``, ``code``, ``environment``, ``record`` or ``run``.
        label: What it is called.
        sha256: Its hash; empty where it is no file.
        facts: What else is recorded of it.
    """

    id: str
    kind: str
    label: str
    sha256: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Lineage:
    """A graph of what a file was made from.

    Attributes:
        target: Id of the file, or of the run where a whole run is traced.
        nodes: What it was made from, and itself.
        edges: Pairs of ids: what something was made from, and what was made.
    """

    target: str
    nodes: tuple[Node, ...]
    edges: tuple[tuple[str, str], ...]

    def of_kind(self, *kinds: str) -> list[Node]:
        """The nodes of some kinds, in their order."""
        return [node for node in self.nodes if node.kind in kinds]


def trace(target: str | Path, *, case: str = "", row: int | None = None, runs: Sequence[Path] = ()) -> Lineage:
    """What a file was made from.

    Args:
        target: A run's folder, a file of it, or a copy of such a file elsewhere, which is known by its hash.
        case: Of a table or report that is about many cases, the one that is meant.
        row: Of a CSV table, the row that is meant, the first below the header being 1.
        runs: Folders of runs in which models that the run has used, and copied files, are looked for; default: those
            beside the run.

    Raises:
        AuditError: If no record names the file, a record was altered, or the table has no such case or row.
    """
    record, part = _find(Path(target), runs)
    return _Tracer(record, part, case, row, tuple(runs) or (record.out.parent,)).lineage()


def _find(target: Path, runs: Sequence[Path]) -> tuple[RunRecord, str]:
    """The run that wrote a file, by its place or else by its hash."""
    try:
        return find_record(target)
    except AuditError as error:
        if not target.is_file() or "was altered" in str(error):
            raise
        digest = files.sha256_file(target)
        for record in records_below(*(runs or (target.absolute().parent,))):
            for name, listed in record.files.items():
                if listed == digest:
                    return record, name
        where = ", ".join(map(str, runs)) or str(target.absolute().parent)
        raise AuditError(
            f"{target}: no run below {where} has written a file with its SHA-256 {digest[:12]}...; name the folder of "
            "the runs with --runs"
        ) from None


class _Tracer:
    def __init__(self, record: RunRecord, part: str, case: str, row: int | None, runs: Sequence[Path]) -> None:
        self._record, self._part, self._runs = record, part, runs
        self._nodes: dict[str, Node] = {}
        self._edges: dict[tuple[str, str], None] = {}
        path = record.out / part
        if part and not path.exists() and not any(_below(name, part) for name in record.files):
            raise AuditError(f"{path}: no such file; expected a file of the run in {record.out}; check the name")
        self._case, self._row_facts = _case_meant(path, part, case, row, record)

    def lineage(self) -> Lineage:
        """The graph."""
        record, part = self._record, self._part
        target = self._target()
        run = self._run(record)
        self._made(run, target) if part else None
        synthetic = self._synthetic(target) if part else False
        if not synthetic:
            self._inputs(target)
        return Lineage(target, tuple(self._nodes.values()), tuple(self._edges))

    def _add(self, node: Node) -> str:
        self._nodes.setdefault(node.id, node)
        return node.id

    def _made(self, source: str, made: str) -> None:
        self._edges[source, made] = None

    def _target(self) -> str:
        record, part = self._record, self._part
        if not part:
            return f"run {record.run_id or record.out.name}"
        path = record.out / part
        if not path.is_file():
            count = sum(_below(name, part) for name in record.files)
            return self._add(Node("output", "output", part, "", {"files": count, "run": record.out.name}))
        digest, listed = files.sha256_file(path), record.listed(part)
        state = "unlisted" if listed is None else "as recorded" if listed == digest else "altered"
        facts = {"state": state, "run": record.out.name, **self._row_facts}
        return self._add(Node("output", "output", part, digest, facts))

    def _run(self, record: RunRecord) -> str:
        """A run with its settings, its code and its machine."""
        told = record.content
        facts = {key: told.get(key) for key in ("pipeline", "started", "ended", "seed", "manifest_digest")}
        run = self._add(
            Node(
                f"run {record.run_id or record.out.name}", "run", record.called, "", {**facts, "run_id": record.run_id}
            )
        )
        key = record.run_id or record.out.name
        settings = Node(
            f"settings {key}",
            "settings",
            "config.yaml",
            record.listed("config.yaml") or "",
            {"config_sha256": told.get("config_sha256")},
        )
        versions = told.get("versions") or {}
        code = Node(
            f"code {key}",
            "code",
            f"medgen {versions.get('medgen')}",
            record.listed(DIFF) or "",
            {"commit": told.get("commit"), "dirty": told.get("dirty"), "diff": DIFF if record.listed(DIFF) else None},
        )
        machine = Node(
            f"environment {key}", "environment", ENVIRONMENT, record.listed(ENVIRONMENT) or "", {"versions": versions}
        )
        for node in (settings, code, machine):
            self._made(self._add(node), run)
        return run

    def _inputs(self, target: str) -> None:
        """The scans and models of an output that is no synthetic scan."""
        record, part = self._record, self._part
        own = models_of(record)
        trained = next((model for model in own if _below(part, model.name)), None) if part else None
        if trained is not None:
            self._model(trained, record, target)
            return
        scans: Cases = record.inputs
        if self._case:
            scans = {self._case: record.inputs.get(self._case, {})} if self._case in record.inputs else {}
        elif part == LEARNT_FROM or part.endswith(f"/{LEARNT_FROM}"):
            scans = learnt_from(record.out / part)
        self._scans(scans, "scan", target)
        used = used_model(record)
        for model in [*own, *([used] if used is not None else [])]:
            self._model(model, record, self._add(Node(f"model {model.sha256}", "model", *_called(model))))
            self._made(f"model {model.sha256}", target)
        for name in _CALIBRATION:
            if record.listed(name) and part != name:
                self._made(self._add(Node(name, "calibration", name, str(record.listed(name)))), target)

    def _synthetic(self, target: str) -> bool:
        """A synthetic scan, or the records of one: its parents, its generator and what that learnt from."""
        found = _provenance(self._record, self._part)
        if found is None:
            return False
        name, content = found
        facts = {key: content.get(key) for key in ("id", "backend", "seed", "stamp", "sampling", "facts")}
        told = self._add(Node(name, "record", name, self._record.listed(name) or "", facts))
        self._made(told, target)
        parents = {str(own["case"]): own.get("sha256") or {} for own in content.get("parents") or ()}
        self._scans(parents, "parent scan", target)
        digest = str(content.get("generator_sha256"))
        known = [own for own in models_of(self._record) if own.sha256 == digest]
        learnt = learnt_from((self._record.out / name).parent / LEARNT_FROM)
        model = known[0] if known else self._elsewhere(digest, str(content.get("backend")), learnt)
        self._model(model, self._record, self._add(Node(f"model {digest}", "model", *_called(model))))
        self._made(f"model {digest}", target)
        return True

    def _elsewhere(self, digest: str, backend: str, learnt: Cases) -> KnownModel:
        """A generator that lies in another run."""
        for record in records_below(*self._runs):
            for model in models_of(record):
                if model.sha256 == digest:
                    return model
        told = {
            str(name): str(own)
            for name, own in (self._record.model.get("weights") or {}).items()
            if f"/{backend}/" in f"/{name}"
        }
        return KnownModel(backend, digest, told, learnt, (), str(self._record.model.get("run_id") or ""))

    def _scans(self, scans: Cases, kind: str, made: str) -> None:
        for case, parts in scans.items():
            for part, digest in parts.items() or (("", ""),):
                label = f"{case} {part}".strip()
                self._made(self._add(Node(f"scan {case} {part} {digest[:12]}", kind, label, digest)), made)

    def _model(self, model: KnownModel, record: RunRecord, made: str) -> None:
        """The weights of a model and the scans that it learnt from, and the run that trained it."""
        for name, digest in model.weights.items():
            if name != self._part:
                self._made(self._add(Node(f"weights {name} {digest}", "weights", name, digest)), made)
        self._scans(model.cases, "training scan", made)
        for digest in model.started_from:
            start = self._add(Node(f"model {digest}", "model", "the model that it started from", digest))
            self._made(start, made)
        if model.run_id and model.run_id != record.run_id:
            other = next((own for own in records_below(*self._runs) if own.run_id == model.run_id), None)
            if other is None:
                run = self._add(Node(f"run {model.run_id}", "run", f"run {model.run_id[:8]}", "", {"found": False}))
            else:
                run = self._run(other)
            self._made(run, made)


def _called(model: KnownModel) -> tuple[str, str, dict[str, Any]]:
    """Label, hash and facts of a model's node."""
    facts = {"cases": len(model.cases), "run_id": model.run_id or None}
    return model.name, model.sha256, facts


def _provenance(record: RunRecord, part: str) -> tuple[str, Mapping[str, Any]] | None:
    """The provenance record that a file is, or is named in, and where it is below the run."""
    for name, cohort in provenance_files(record):
        if name == part:
            content = files.read_json(record.out / name)
            return (name, read_record(record.out / name)) if "generator_sha256" in content else None
        below = part.removeprefix(f"{cohort}/") if cohort else part
        # Records are named after their scans, so that those of other scans need not be read.
        if _letters(name.rpartition("/")[2].removesuffix(".json")) in _letters(below):
            content = files.read_json(record.out / name)
            if isinstance(content, dict) and below in content.get("files", ()):
                return name, read_record(record.out / name)
    return None


def _letters(text: str) -> str:
    """A name without what layouts change in it: ``syn-0001`` is ``sub-syn0001`` in BIDS."""
    return "".join(sign for sign in text if sign.isalnum())


def _case_meant(path: Path, part: str, case: str, row: int | None, record: RunRecord) -> tuple[str, dict[str, Any]]:
    """The case that a file or a row of it is about, and what the row says."""
    facts: dict[str, Any] = {}
    if row is not None:
        rows = list(_rows(path))
        if not 1 <= row <= len(rows):
            raise AuditError(f"{path}: has no row {row}; expected 1 to {len(rows)}, the first below the header being 1")
        facts["row"] = rows[row - 1]
        case = case or next((own for key in _CASE_COLUMNS if (own := rows[row - 1].get(key))), "")
        facts["row_number"] = row
    if not case:
        return case_of(part, record.inputs), facts
    known = _input_case(case, record.inputs)
    if known is None or not _mentions(path, case):
        names = ", ".join(list(record.inputs)[:5])
        raise AuditError(f"{path}: says nothing of the case {case!r}; expected one of the run's, such as {names}")
    facts.setdefault("case", case)
    return known, facts


def _rows(path: Path) -> Iterator[dict[str, str]]:
    if path.suffix != ".csv" or not path.is_file():
        raise AuditError(f"{path}: is no CSV table; expected one for --row; name the case with --case")
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield {str(key): files.unescaped(value or "") for key, value in row.items()}


def _mentions(path: Path, case: str) -> bool:
    if path.is_dir():
        return any(case in name.name for name in path.rglob("*"))
    return case in path.name or case.encode() in path.read_bytes()


def _input_case(name: str, inputs: Cases) -> str | None:
    """The input case that a name stands for: itself, or one with an implant in it."""
    found = [case for case in inputs if name == case or name.startswith(f"{case}-implant")]
    return max(found, key=len, default=None)


def case_of(part: str, inputs: Mapping[str, Any]) -> str:
    """The case that a file is about, by a part of its path; empty if it is about none or all.

    >>> inputs = {"a": {}, "a-b": {}}
    >>> [case_of(name, inputs) for name in ("heatmaps/a.nii.gz", "truth/a-b-implant1-blur.nii.gz", "dicom/a/sr.dcm")]
    ['a', 'a-b', 'a']
    """
    found = [
        case
        for piece in part.split("/")
        for case in inputs
        if piece == case or piece.startswith((f"{case}.", f"{case}-implant", f"{case}_")) or _bids(piece, case)
    ]
    return max(found, key=len, default="")


def _bids(piece: str, case: str) -> bool:
    label = _letters(case)
    return bool(label) and (piece == f"sub-{label}" or piece.startswith(f"sub-{label}_"))


def _below(name: str, part: str) -> bool:
    return not part or name == part or name.startswith(part + "/")
