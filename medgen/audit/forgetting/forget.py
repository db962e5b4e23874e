"""Make finished runs forget a case: its scans and what was made from them go, and each run says so and verifies.

In each run, in this order: its files, the local MLflow store, its journal, ``forgotten.json``, and last its record, so
that one that was interrupted is found again by the record, and done again.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medgen.audit.forgetting.cohorts import forget_prepared, prepared_with
from medgen.audit.forgetting.content import named_in, take_out, without
from medgen.audit.forgetting.journal import forget_in_journal
from medgen.audit.forgetting.models import restated, stated
from medgen.audit.forgetting.names import Names
from medgen.audit.forgetting.store import forget_in_database
from medgen.audit.lineage.affected import AffectedRun, affected
from medgen.audit.lineage.models import used_model
from medgen.audit.lineage.trace import case_of
from medgen.audit.record import RunRecord, read_record, records_below
from medgen.audit.tombstone import FILE, Tombstone, add_tombstone, hashed, hashes_of, read_tombstones
from medgen.audit.verify import as_left
from medgen.config import read_yaml
from medgen.data.layouts.by_file_name import safe_id
from medgen.errors import AuditError, ConfigError, DataError
from medgen.io import stem
from medgen.runs.folder import in_use, sweep
from medgen.runs.journal import CURSOR, LOCK, NAME, locked
from medgen.runs.outputs import CONFIG, RECORD, SIGNATURE, output_files
from medgen.system import files

# Of these a run's folder takes care itself.
_OWN = (NAME, CURSOR, LOCK, RECORD, SIGNATURE, FILE, ".medgen-lock")
_DATABASE, _ARTIFACTS = "mlflow.db", "mlartifacts"
# While a run is made to forget: what the case is called there, for a second try after an interruption.
_UNDER_WAY = ".medgen-forgetting"


@dataclass
class Forgotten:
    """What one run has forgotten.

    Attributes:
        out: The run.
        removed: Files that are gone: path → SHA-256.
        edited: Files without the case: path → SHA-256 before and after.
        lines: Lines of the journal that are tombstones now.
        rows: Rows of the local MLflow store that were removed or changed.
        remains: What cannot be undone here, or has to be done elsewhere; a line each.
    """

    out: Path
    removed: dict[str, str] = field(default_factory=dict)
    edited: dict[str, tuple[str, str]] = field(default_factory=dict)
    lines: int = 0
    rows: int = 0
    remains: list[str] = field(default_factory=list)

    @property
    def said(self) -> list[str]:
        """In words, beginning with the run."""
        counts = f"{len(self.removed)} file(s) removed, {len(self.edited)} edited"
        more = f", {self.lines} line(s) of the journal and {self.rows} row(s) of the MLflow store"
        return [f"{self.out}: {counts}{more}", *(f"  remains: {line}" for line in self.remains)]


def plan(case: str, runs: Sequence[Path]) -> list[AffectedRun]:
    """The runs that have read a case, or hold its scan in another shape, or a model that learnt from it.

    Args:
        case: What it is called in the runs, or its file.
        runs: Folders with runs below them.

    Returns:
        Every such run; none if all have forgotten it already.

    Raises:
        AuditError: If no run knows it, nor has forgotten it.
    """
    found: dict[Path, AffectedRun] = {}
    for name in (case, *left_off(runs)):
        try:
            known = affected(name, runs)
        except AuditError:
            known_elsewhere = forgotten_already(case, runs) or left_off(runs) or _prepared(case, runs)
            if name == case and not known_elsewhere:
                raise
            continue
        found |= {own.record.out: own for own in known if own.record.out not in found or own.cases}
    # What was forgotten there and has not come back needs no second time.
    return [own for own in found.values() if own.cases or own.copies or not own.forgotten]


def forgotten_already(case: str, runs: Sequence[Path]) -> list[str]:
    """When runs were made to forget a case, by their tombstones; none if no run was."""
    return sorted(
        {
            str(told["when"])
            for record in records_below(*runs)
            for told in read_tombstones(record.out)
            if hashed(str(told["salt"]), case) in told["cases"]
        }
    )


def unfinished(case: str, runs: Sequence[Path]) -> list[Path]:
    """Runs that have not ended and name the case: they have no record, and are to be finished or deleted."""
    names = Names([case], "")
    found = []
    for root in runs:
        for config in sorted(root.rglob(CONFIG)):
            folder = config.parent
            listed = (folder / "manifest.csv", folder / "inputs.json", folder / "splits.csv")
            if _ARTIFACTS in folder.parts or (folder / RECORD).exists():
                continue
            if any(path.is_file() and named_in(path, names) for path in listed):
                found.append(folder)
    return found


def forget(case: str, runs: Sequence[Path]) -> list[Forgotten]:
    """Make all runs below some folders forget a case; a second time changes nothing.

    Args:
        case: What it is called in the runs, or its file.
        runs: Folders with runs below them.

    Returns:
        What each run has forgotten.

    Raises:
        AuditError: If no run knows it, or a run is in use.
        DataError: If a file cannot be changed.
    """
    alias = f"forgotten-{secrets.token_hex(4)}"
    found = plan(case, runs)
    everywhere = {name for own in found for name in own.cases}
    called = {}
    for own in found:
        # What other runs call it, models that were used here do, too; a name that another case has here is not meant.
        others = everywhere - own.record.inputs.keys()
        every = [*own.cases, *_as_given(own), *others, *_under_way(own.record.out).get("names", ()), *own.copies]
        called[own.record.out] = Names(every, alias)
    with ExitStack() as held:
        for own in found:
            held.enter_context(_held(own.record.out))
            check_unaltered(own.record)
        for out, names in called.items():
            # A run may call the case otherwise and be known by its hash, which goes with the run that is done first.
            digests = {**stated(out), **_under_way(out).get("models", {})}
            files.write_json(out / _UNDER_WAY, {"names": names.called, "models": digests})
        prepared = [
            _forget_prepared(folder, Names({case, *everywhere}, alias)) for folder in _prepared(case, runs, everywhere)
        ]
        return [*prepared, *(_forget(own, called[own.record.out]) for own in found)]


def check_unaltered(record: RunRecord) -> None:
    """Refuse a run that is not as its record says: made to forget, it would be sealed as it is now.

    One that an interrupted command has left is as that left it.

    Raises:
        AuditError: Naming the first file that differs.
    """
    if (record.out / _UNDER_WAY).exists():
        return
    if read_record(record.out).content != record.content:
        raise AuditError(f"{record.out}: was changed by another command meanwhile; run this one again")
    found, _, _ = as_left(record)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise AuditError(
            f"{record.out}: is not as its record says, so that nothing is forgotten: {found[0]}{more}; restore what "
            "differs from a copy, or delete the run"
        )


def _prepared(case: str, runs: Sequence[Path], others: Collection[str] = ()) -> list[Path]:
    called = {*others} if Path(case).exists() else {case, *others}
    return prepared_with(Names(called, ""), runs) if called else []


def _forget_prepared(folder: Path, names: Names) -> Forgotten:
    removed, edited = forget_prepared(folder, names)
    return Forgotten(folder, dict.fromkeys(map(str, range(removed)), ""), dict.fromkeys(edited, ("", "")))


def still_named(done: Sequence[Forgotten], case: str, runs: Sequence[Path]) -> list[Path]:
    """Files of other runs that name a case, which these call otherwise and which is another file to them."""
    names = Names([case], "") if not Path(case).exists() else None
    own = {one.out for one in done}
    others = [record.out for record in records_below(*runs) if record.out not in own]
    return [
        path
        for out in others
        for path in sorted(out.rglob("*"))
        if names is not None and path.is_file() and (names.about(path.name) or named_in(path, names))
    ]


def left_off(runs: Sequence[Path]) -> list[str]:
    """What cases are called that an interrupted command has not taken out of all runs."""
    names: set[str] = set()
    for root in runs:
        for path in root.rglob(_UNDER_WAY):
            names |= set(_under_way(path.parent).get("names", ()))
    return sorted(names)


def _under_way(out: Path) -> dict[str, Any]:
    """What an interrupted command has left: ``names`` of the case, and ``models``, their digests before it."""
    try:
        told = files.read_json(out / _UNDER_WAY)
        return {"names": [str(name) for name in told["names"]], "models": dict(told["models"])}
    except (DataError, LookupError, TypeError):
        return {}


@contextmanager
def _held(out: Path) -> Iterator[None]:
    with locked(out / LOCK, wait=False) as free:
        if not free or in_use(out):
            raise AuditError(f"{out}: a run is writing or sending there now; wait until it has ended, and try again")
        yield


def _forget(own: AffectedRun, names: Names) -> Forgotten:
    out = own.record.out
    done = Forgotten(out)
    sweep(out)
    before: dict[str, str] = _under_way(out)["models"]
    digests_of_files = _digests(own, names)
    _files(own, names, done)
    # Records state each other's digests: of models first, then of what names them.
    for name, (old, new) in restated(out, before).items():
        done.edited[name] = (done.edited.get(name, (old, ""))[0], new)
    now = stated(out)
    digests = {old: now[name] for name, old in before.items() if now.get(name, old) != old}
    _store(own, names, done, digests)
    done.lines = forget_in_journal(out, names)
    done.remains += _remains(own)
    known = {model.name for model in own.models}
    named = {model for model in before if any(name.startswith(f"{model}/") for name in done.edited)}
    done.remains += [
        f"numbers of {model}, whose record named it"
        for model in sorted(named)
        if not any(model == other or model.startswith(f"{other}/") for other in known)
    ]
    models = {model.name: (before[model.name], now[model.name]) for model in own.models if model.name in now}
    if (out / SIGNATURE).exists():
        (out / SIGNATURE).unlink()
        done.remains.append("the signature was of the former record and is gone: medgen audit sign signs it again")
    salt, cases = hashes_of([*(name for name in names.called if name not in own.copies), *digests_of_files])
    when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    removed, edited = tuple(sorted(done.removed.values())), tuple(sorted(done.edited))
    add_tombstone(
        out, Tombstone(when, names.alias, cases, salt, removed, edited, done.lines, tuple(done.remains), models)
    )
    _write_record(own, names, done)
    (out / _UNDER_WAY).unlink()
    return done


def _as_given(own: AffectedRun) -> list[str]:
    """What a scoring was given as files of the case, where its id is another, such as ``a b`` as ``a-b``."""
    try:
        given = read_yaml(own.record.out / CONFIG).get("scans") or ()
    except ConfigError:
        return []
    stems = [stem(Path(part.rpartition("=")[2])) for text in given for part in str(text).split(",")]
    return [name for name in stems if name not in own.cases and safe_id(name) in own.cases]


def _digests(own: AffectedRun, names: Names) -> set[str]:
    """SHA-256 of the files of the case, as the run and its models know them."""
    used = used_model(own.record)
    known = [own.record.inputs, *(model.cases for model in [*own.models, *([] if used is None else [used])])]
    parts = [cases[name] for cases in known for name in names.called if name in cases]
    return {digest for item in parts for joined in item.values() for digest in joined.split(";") if digest}


def _files(own: AffectedRun, names: Names, done: Forgotten) -> None:
    record, out = own.record, own.record.out
    copied = {name for paths in own.copies.values() for name in paths}
    models = tuple(f"{model}/" for model in stated(out))
    for path in sorted(path for path in out.rglob("*") if path.is_file() or path.is_symlink()):
        name = path.relative_to(out).as_posix()
        if name in _OWN or path.name in (_UNDER_WAY, ".medgen-lock"):
            continue
        before = record.listed(name) or files.sha256_file(path)
        if name in copied:
            path.unlink()
            done.removed[name] = before
            continue
        model = name.startswith(models) if models else False
        what = take_out(path, name, names, model=model, others=_about_another(name, own))
        if what == "removed":
            done.removed[name] = before
        elif what == "edited":
            done.edited[name] = (before, files.sha256_file(path))
        elif what == "left":
            done.remains.append(f"{name} names the case in a file of numbers: delete the model if it must not")
    # Of what an interrupted command has done already, the record still has the former hashes.
    for name, listed in record.files.items():
        if not (out / name).exists():
            done.removed.setdefault(name, listed)
        elif name not in done.edited and (now := files.sha256_file(out / name)) != listed:
            done.edited[name] = (listed, now)
    # Folders that held nothing else bear its name.
    for folder in sorted((path for path in out.rglob("*") if path.is_dir()), reverse=True):
        if names.about(folder.relative_to(out).as_posix()) and not any(folder.iterdir()):
            folder.rmdir()


def _about_another(name: str, own: AffectedRun) -> bool:
    """Whether a picture or page cannot show the case: it is about another one, or the case was not read at all."""
    known = case_of(name, own.record.inputs)
    return (bool(known) and known not in own.cases) or not (own.cases or own.copies)


def _store(own: AffectedRun, names: Names, done: Forgotten, digests: Mapping[str, str]) -> None:
    """The MLflow store beside the run; of another one it is told that it has to be done there.

    Runs of other folders there are these folders' own affair; those without a folder, such as overwritten ones, forget.
    """
    out = own.record.out
    database, artifacts = out.parent / _DATABASE, out.parent / _ARTIFACTS
    stored = _stored(out)
    others = [path.parent for path in out.parent.glob(f"*/{CURSOR}") if path.parent != out]
    kept = {run for other in others for run in _stored(other)}
    changed = {**dict.fromkeys(done.removed.values(), ""), **dict(done.edited.values()), **digests}
    folders = [folder for folder in sorted(artifacts.glob("*")) if folder.is_dir() and folder.name not in kept]
    for folder in folders:
        within = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        if folder.name not in stored and not any(names.about(path.name) or named_in(path, names) for path in within):
            continue
        models = stated(folder)
        for path in within:
            before = files.sha256_file(path)
            name = path.relative_to(folder).as_posix()
            if changed.get(before) == "":
                path.unlink()
                continue
            model = any(name.startswith(f"{above}/") for above in models)
            what = take_out(path, name, names, model=model, others=_about_another(name, own))
            if what != "kept":
                changed[before] = files.sha256_file(path) if what == "edited" else ""
        changed |= dict(restated(folder, models).values())
    if database.is_file():
        changed = {before: after for before, after in changed.items() if before != after}
        done.rows = forget_in_database(database, names, changed, kept)
    elif stored:
        done.remains.append(
            f"the MLflow store is not beside the run: delete the runs {', '.join(stored)} there, and run mlflow gc"
        )


def _stored(out: Path) -> list[str]:
    """What a run and its stages are called in the store, as far as they were sent."""
    try:
        return [str(run) for run in files.read_json(out / CURSOR)["runs"].values()]
    except (DataError, LookupError, TypeError, AttributeError):
        return []


def _remains(own: AffectedRun) -> list[str]:
    lines = [f"weights that learnt from it: {model.name}, SHA-256 {model.sha256}" for model in own.models]
    if own.learnt:
        lines.append(f"{len(own.learnt)} synthetic scan(s) of generators that learnt from it")
    if own.by_model:
        lines.append(f"outputs that were made with {own.by_model}")
    lines.append("numbers over all cases (means, thresholds, calibration) in which it was counted")
    return lines


def _write_record(own: AffectedRun, names: Names, done: Forgotten) -> None:
    out, content = own.record.out, dict(own.record.content)
    listed = {name for name in output_files(out) if name in content["files"] or name == FILE}
    content = {key: value for key, value in content.items() if key not in ("files", "sha256")}
    body = without(content, names)
    body["files"] = {name: files.sha256_file(out / name) for name in sorted(listed)}
    files.write_json(out / RECORD, files.sealed(body))
