"""Where a synthetic scan comes from: one record per scan that suffices to make it again, and who was learnt from."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import medgen
from medgen.errors import AuditError, DataError
from medgen.runs import environment
from medgen.synthesis.backend import Backend
from medgen.synthesis.filtering.pool import Candidate
from medgen.synthesis.privacy.results import Audit
from medgen.synthesis.sources import Sources
from medgen.system import files
from medgen.volume import Grid

FOLDER = "provenance"
LEARNT_FROM = "learnt_from.json"
AUDIT = "audit.json"
_FORMAT = "medgen-synthetic-scan"
_VERSION = 1
_ID = re.compile(r"\w[\w.-]*", re.ASCII)


def provenance(
    candidate: Candidate,
    backend: Backend,
    sources: Sources,
    audit: Audit,
    *,
    grid: Grid,
    layout: str,
    seed: int,
    config_sha256: str,
) -> dict[str, Any]:
    """The record of one scan, as plain data; :func:`sealed` adds the hashes of its files and its own.

    Args:
        candidate: The scan and what the filter said.
        backend: What made it.
        sources: What that learnt from.
        audit: Gives the stamp and the likeness to training scans.
        grid: On which it is written.
        layout: Layout of the folder it is written to.
        seed: Seed of the run, from which every random stream is derived.
        config_sha256: Digest of the run's configuration.

    Raises:
        DataError: If the candidate holds no scan.
    """
    synthetic = candidate.synthetic
    if synthetic is None:
        raise DataError(f"{candidate.id}: was never sampled")
    subjects = dict(zip(sources.ids, sources.owners, strict=True))
    result = audit.backends[backend.name]
    source = environment.commit()
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "id": candidate.id,
        "synthetic": True,
        "stamp": result.stamp,
        "use": f"{result.stamp}: {result.reason}",
        "backend": backend.name,
        "generator_sha256": backend.sha256,
        "seed": candidate.seed,
        # Every draw, the latent code included, comes from the seed; backends may add the code itself to their facts.
        "latent": synthetic.facts.get("latent", {"drawn_from": "seed"}),
        "run_seed": seed,
        "parents": [
            {"case": name, "subject": subjects[name], "sha256": dict(sources.hashes.get(name, {}))}
            for name in synthetic.parents
        ],
        "learnt_from": {"cases": len(sources.ids), "sha256": learnt_from(sources)["sha256"]},
        "sampling": backend.sampling.model_dump(mode="json"),
        "started_from": sorted({start["sha256"] for start in backend.starts.values()}),
        "facts": dict(synthetic.facts),
        "filter": {"scores": dict(candidate.filtered.scores), "nearest_real": candidate.filtered.nearest},
        "audit": {
            "valid": audit.valid,
            "likeness": result.likeness[candidate.id],
            "nearest": result.nearest[candidate.id],
            "bound": audit.bounds.copy,
        },
        "content_sha256": {
            "image": hashlib.sha256(synthetic.image.tobytes()).hexdigest(),
            "labels": hashlib.sha256(synthetic.labels.tobytes()).hexdigest(),
        },
        "grid": {"shape": list(grid.shape), "affine": grid.affine.tolist()},
        "layout": layout,
        "config_sha256": config_sha256,
        "medgen": medgen.__version__,
        "commit": source.id,
        "dirty": source.dirty,
        "versions": environment.versions(),
    }


def sealed(record: Mapping[str, Any], hashes: Mapping[str, str]) -> dict[str, Any]:
    """The record with the SHA-256 of each file (by path below the cohort) and one of the record itself."""
    return files.sealed(files.plain({**record, "files": dict(hashes)}))


def read_record(path: Path) -> dict[str, Any]:
    """Read a record and check its own hash.

    Raises:
        AuditError: If it is missing, no record of this version, was altered, or names files outside of the cohort.
    """
    try:
        record = files.read_json(path)
    except DataError as error:
        raise AuditError(f"{error}; expected the provenance record of a synthetic scan") from None
    if not isinstance(record, dict) or record.get("format") != _FORMAT or record.get("version") != _VERSION:
        raise AuditError(f"{path}: not the provenance record of a synthetic scan (format {_FORMAT} {_VERSION})")
    if not files.seal_holds(record):
        raise AuditError(f"{path}: the record itself was altered: its SHA-256 differs from what it states")
    # Anyone can make a record whose hash is right, and files are named after its id.
    if not isinstance(record.get("id"), str) or not _ID.fullmatch(record["id"]):
        raise AuditError(f"{path}: expected letters, digits, '-', '_' and '.' as id, found {record.get('id')!r:.100}")
    listed = record.get("files")
    if not isinstance(listed, dict) or not all(isinstance(digest, str) for digest in listed.values()):
        raise AuditError(f"{path}: does not list files with their SHA-256; restore it from a copy")
    for name in listed:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise AuditError(f"{path}: lists {name!r:.100}, which is outside of the cohort; it is no record of medgen")
    return record


def learnt_from(sources: Sources, backends: Sequence[Backend] = ()) -> dict[str, Any]:
    """Every case that the generators learnt from, with subject and file hashes, and a hash over all of it.

    Where networks of theirs started from trained models: what each of these networks knows, under ``started_from``,
    with a hash of its own. ``names`` says whether equal names are of the same people.
    """
    labelled = set(sources.labelled.ids)
    cases = [
        {
            "case": name,
            "subject": subject,
            "labelled": name in labelled,
            "sha256": dict(sources.hashes.get(name, {})),
        }
        for name, subject in sorted(zip(sources.ids, sources.owners, strict=True))
    ]
    started = [
        {
            "network": f"{backend.name}: {name}",
            "sha256": start["sha256"],
            "names": not start["other_people"],
            "lineage": None if (known := backend.lineages.get(name)) is None else known.record(),
        }
        for backend in backends
        for name, start in sorted(backend.starts.items())
    ]
    more = {"started_from": started, "started_from_sha256": files.sha256_json(started)} if started else {}
    return {"cases": cases, "sha256": files.sha256_json(cases), **more}
