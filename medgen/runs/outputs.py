"""The record of a run's outputs: each file with its hash, what they were made from, and where the journal ends."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medgen.config import read_yaml
from medgen.errors import AuditError, DataError, MedgenError
from medgen.runs import environment, tracking
from medgen.runs.chain import head_of
from medgen.runs.journal import CURSOR, NAME, entries
from medgen.runs.recorded_environment import DIFF, ENVIRONMENT
from medgen.system import files

CONFIG = "config.yaml"
RECORD = "outputs.json"
# Who has signed the record.
SIGNATURE = "outputs.json.sig"
# What a run has read, where no manifest.csv says so.
INPUTS = "inputs.json"
# Everything that tells of a run itself, where a cohort shares its folder.
RECORDS = (CONFIG, INPUTS, RECORD, SIGNATURE, NAME, CURSOR, ENVIRONMENT, DIFF)
FORMAT = 2
# Records of these forms can be read; the first had no times, no name of the run and no end of the journal.
READABLE = (1, FORMAT)

# The journal grows while it is sent to the store after the end of the run, checkpoints go after the record.
_NOT_OUTPUTS = re.compile(r"(^|/)\.|^checkpoints/|^outputs\.json(\.sig)?$|^journal\.(jsonl|cursor|lock)$")


def write_outputs_record(
    out: str | Path,
    *,
    run_id: str | None = None,
    manifest_digest: str | None = None,
    strangers: Mapping[str, str] | None = None,
) -> Path:
    """Write ``out/outputs.json``, the last step of a run: SHA-256 of every file, and of what they were made from.

    Args:
        out: The run's folder.
        run_id: The tracked run; default: the newest in the folder's journal.
        manifest_digest: SHA-256 of the cohort; default: what the journal says, else the hash of ``manifest.csv``.
        strangers: Files that were in the folder and not the run's (:func:`strangers_of`); what the run has not
            written anew of these is not among its outputs.

    Returns:
        Path of the record.

    Raises:
        DataError: If a file cannot be read or the record not written.
    """
    out = Path(out)
    run = tracking.last_run(out) or {}
    known = strangers or {}
    hashes = {name: files.sha256_file(out / name) for name in output_files(out)}
    hashes = {name: digest for name, digest in hashes.items() if known.get(name) != digest}
    source = environment.commit()
    body: dict[str, Any] = {
        "format": FORMAT,
        "pipeline": run.get("name"),
        "run_id": run_id or run.get("medgen.run"),
        **_times(out, run.get("medgen.run")),
        "config_sha256": _config(out) or run.get("medgen.config.sha256"),
        "manifest_digest": manifest_digest or run.get("medgen.manifest.sha256") or hashes.get("manifest.csv"),
        **inputs_of(out),
        "seed": int(run["medgen.seed"]) if "medgen.seed" in run else None,
        "commit": source.id,
        "dirty": source.dirty,
        "versions": environment.versions(),
        "journal": _journal_end(out),
        "files": hashes,
    }
    files.write_json(out / RECORD, files.sealed(body))
    return out / RECORD


def strangers_of(out: Path) -> dict[str, str]:
    """Files in a finished run's folder that its record does not list, with their SHA-256; none without a record."""
    listed = _listed(out)
    if listed is None:
        return {}
    return {name: files.sha256_file(out / name) for name in output_files(out) if name not in listed}


def check_unaltered(out: Path, name: str) -> None:
    """Refuse a file of a finished run that is not as the run wrote it, before what it says is believed.

    Raises:
        AuditError: If the run's record lists another content.
    """
    listed = _listed(out)
    if listed is not None and listed.get(name) != files.sha256_file(out / name):
        raise AuditError(
            f"{out / name}: is not as the run wrote it; expected the content that {RECORD} lists; restore the file "
            f"(medgen audit verify {out} names all that changed)"
        )


def _listed(out: Path) -> dict[str, str] | None:
    """The files of a run's record; None if there is none that can be read."""
    try:
        record = files.read_json(out / RECORD) if (out / RECORD).is_file() else None
    except DataError:
        return None
    listed = record.get("files") if isinstance(record, dict) else None
    return listed if isinstance(listed, dict) else None


def write_inputs(
    out: str | Path, inputs: Mapping[str, Mapping[str, str]], model: Mapping[str, Any] | None = None
) -> None:
    """Keep what a run without a manifest has read, ``out/inputs.json``, before its record is written.

    Args:
        out: The run's folder.
        inputs: Case → part, such as ``image`` → SHA-256.
        model: Facts about the model that was used: ``sha256``, ``weights`` (file → SHA-256), and where it came from.

    Raises:
        DataError: If it cannot be written.
    """
    files.write_json(Path(out) / INPUTS, {"inputs": inputs, "model": model})


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file, or of the sorted hashes of all files below a folder, whatever they are called.

    Raises:
        DataError: If a file cannot be read.
    """
    path = Path(path)
    if not path.is_dir():
        return files.sha256_file(path)
    return files.sha256_json(sorted(files.sha256_file(item) for item in path.rglob("*") if item.is_file()))


def _journal_end(out: Path) -> dict[str, Any] | None:
    """Number of lines and head of the chain of the journal; None where nothing was tracked."""
    head = head_of(out / NAME)
    return {"lines": head.lines, "chain": head.chain} if head.lines else None


def _times(out: Path, run: str | None) -> dict[str, str | None]:
    """When a run began and ended, UTC, by its journal."""
    own = [entry["time"] for entry, _ in entries(out / NAME) if entry["run"] == run] if run else []
    return {"started": _moment(own[0]), "ended": _moment(own[-1])} if own else {"started": None, "ended": None}


def _moment(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _config(out: Path) -> str | None:
    try:
        return tracking.config_digest(read_yaml(out / CONFIG))
    except MedgenError:
        return None


def output_files(out: Path) -> Iterator[str]:
    """Names of a run's outputs, below its folder, sorted: checkpoints, journal and hidden files are none."""
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.is_file() and not _NOT_OUTPUTS.search(name):
            yield name


def inputs_of(out: Path) -> dict[str, Any]:
    """Input files by case, from ``inputs.json`` or the columns ``sha256_*`` of ``manifest.csv``."""
    if (out / INPUTS).is_file():
        told = files.read_json(out / INPUTS)
        return {"inputs": told["inputs"], "model": told["model"]}
    if not (out / "manifest.csv").is_file():
        return {"inputs": None, "model": None}
    with (out / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    parts = [name for name in (rows[0] if rows else {}) if name.startswith("sha256_")]
    inputs = {row["id"]: {part.removeprefix("sha256_"): row[part] for part in parts if row[part]} for row in rows}
    return {"inputs": inputs, "model": None}
