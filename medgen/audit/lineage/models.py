"""The models in a run's folder: their digests, their weights, and the scans that they learnt from."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from medgen.audit.record import RunRecord
from medgen.errors import DataError
from medgen.models.artifact import MANIFEST as ARTIFACT
from medgen.models.stored_arrays import RECORD as STORED
from medgen.synthesis.export.provenance import FOLDER, LEARNT_FROM
from medgen.system import files

Cases = Mapping[str, Mapping[str, str]]
# Parts of a cohort that generators learn from.
_LEARNT = ("labelled", "unlabelled", "train")


@dataclass(frozen=True)
class KnownModel:
    """A model, as far as records tell of it.

    Attributes:
        name: Its folder below the run, such as ``model`` or ``model/deform``.
        sha256: Its own digest, which covers all its files.
        weights: SHA-256 of its files with numbers, by path below the run.
        cases: The scans that it learnt from: case → part → SHA-256; a hash that is not known is empty.
        started_from: Digests of the models that its networks started from.
        run_id: The run that trained it; empty if not known.
        files: SHA-256 of every file that it or a model before it has learnt from, where that is recorded.
    """

    name: str
    sha256: str
    weights: Mapping[str, str]
    cases: Cases
    started_from: tuple[str, ...] = ()
    run_id: str = ""
    files: frozenset[str] = frozenset()

    def knows(self, digest: str) -> bool:
        """Whether it has learnt from a file, itself or by a model that it started from."""
        return digest in self.files or any(digest in parts.values() for parts in self.cases.values())


def models_of(record: RunRecord) -> list[KnownModel]:
    """The models that a run has trained, a generator of several networks being one; in the order of their folders."""
    found: list[KnownModel] = []
    for folder in _folders(record):
        content = _content(record.out / folder)
        if content is None:
            continue
        below = {name: digest for name, digest in record.files.items() if name.startswith(f"{folder}/")}
        metas = [content[0], *(own[0] for name in below if (own := _content((record.out / name).parent, name)))]
        weights = {name: digest for name, digest in below.items() if name.endswith(".safetensors")}
        started = {str(own["sha256"]) for meta in metas for own in _starts(meta)}
        known = {str(item) for meta in metas for item in _listed(_mapping(meta.get("lineage")).get("files"))}
        cases = _learnt(record, folder, metas)
        run = str(content[0].get("run_id") or record.run_id)
        found.append(KnownModel(folder, content[1], weights, cases, tuple(sorted(started)), run, frozenset(known)))
    return found


def used_model(record: RunRecord) -> KnownModel | None:
    """The model that a run has used without training it, such as a scoring; None if there is none."""
    told = record.model
    if not told.get("sha256"):
        return None
    cases = told.get("inputs") or {name: {} for name in told.get("cases") or ()}
    weights = {str(name): str(digest) for name, digest in (told.get("weights") or {}).items()}
    return KnownModel("model", str(told["sha256"]), weights, cases, (), str(told.get("run_id") or ""))


def provenance_files(record: RunRecord) -> Iterator[tuple[str, str]]:
    """Every file among the records of synthetic scans, and the folder of its cohort, both below the run."""
    for name in record.files:
        folder, _, file = name.rpartition("/")
        if folder.rpartition("/")[2] == FOLDER and file.endswith(".json"):
            yield name, folder.rpartition("/")[0]


def _folders(record: RunRecord) -> Iterator[str]:
    """Folders of models that lie in no other model's folder, without the filter of an augment run."""
    names = {str(PurePosixPath(name).parent) for name in record.files if name.endswith((f"/{ARTIFACT}", f"/{STORED}"))}
    for name in sorted(names):
        if not any(name.startswith(f"{other}/") for other in names) and name.rpartition("/")[2] != "filter":
            yield name


def _content(folder: Path, name: str = "") -> tuple[Mapping[str, Any], str] | None:
    """The facts that a model's own record has, and its digest; None if there is no such record."""
    for file in (ARTIFACT, STORED) if not name else (name.rpartition("/")[2],):
        if file in (ARTIFACT, STORED) and (folder / file).is_file():
            try:
                content = files.read_json(folder / file)
            except DataError:
                return None
            meta = content.get("meta") if isinstance(content, dict) else None
            return (meta, str(content.get("sha256"))) if isinstance(meta, dict) else None
    return None


def _starts(meta: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    start = meta.get("init")
    if isinstance(start, dict):
        starts = [start] if "sha256" in start else [own for own in start.values() if isinstance(own, dict)]
        yield from (own for own in starts if "sha256" in own)


def _learnt(record: RunRecord, folder: str, metas: list[Mapping[str, Any]]) -> Cases:
    """Case → part → SHA-256 of what a model learnt from, by the best record that there is."""
    if own := {case: _mapping(parts) for case, parts in _mapping(metas[0].get("inputs")).items()}:
        return own
    for name in record.files:
        if name.endswith(f"{FOLDER}/{LEARNT_FROM}") and folder.startswith("model"):
            return learnt_from(record.out / name)
    named = {str(case) for meta in metas for case in _listed(_mapping(meta.get("lineage")).get("cases"))}
    named |= {str(case) for meta in metas for case in _listed(meta.get("learnt_from")) if isinstance(case, str)}
    if not named and (record.out / "splits.csv").is_file():
        with (record.out / "splits.csv").open(encoding="utf-8", newline="") as file:
            named = {row.get("case", "") for row in csv.DictReader(file) if row.get("part") in _LEARNT}
    return {case: parts for case, parts in record.inputs.items() if not named or case in named}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def learnt_from(path: Path) -> Cases:
    """The scans that ``learnt_from.json`` of a synthetic cohort names; none if it cannot be read."""
    try:
        content = files.read_json(path)
        return {str(own["case"]): dict(own["sha256"]) for own in content["cases"]}
    except (DataError, LookupError, TypeError, ValueError):
        return {}
