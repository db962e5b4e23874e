"""Make synthetic scans again from their records alone, and compare them byte for byte."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import medgen
from medgen.errors import ArtifactError, AuditError, ConfigError
from medgen.models.sampling import overridden
from medgen.progress import Progress
from medgen.runs import environment
from medgen.synthesis.backend import Backend
from medgen.synthesis.backends import load_backend
from medgen.synthesis.export.layouts import check_layout, scan_files, write_scan
from medgen.synthesis.export.provenance import FOLDER, read_record
from medgen.system import files
from medgen.volume import Grid

# What of a record a scan is made from.
_NEEDED: dict[str, type] = {
    "backend": str,
    "generator_sha256": str,
    "seed": int,
    "grid": dict,
    "layout": str,
    "modality": str,
    "stamp": str,
    "medgen": str,
    "commit": str,
    "versions": dict,
}


@dataclass(frozen=True)
class Replay:
    """What came of making one scan again.

    Attributes:
        id: Id of the scan.
        differences: What differs, one line each; empty if every byte is the same.
        origin: Which medgen made the scan, where it is not this one; else empty.
    """

    id: str
    differences: tuple[str, ...]
    origin: str

    @property
    def identical(self) -> bool:
        """Whether every byte is the same."""
        return not self.differences

    def __str__(self) -> str:
        if self.identical:
            return f"{self.id}: identical"
        return f"{self.id}: differs: {'; '.join(self.differences)}{f' ({self.origin})' if self.origin else ''}"


def replay(
    target: str | Path,
    out: Path,
    *,
    model: Path | None = None,
    device: str = "auto",
    tick: Progress | None = None,
) -> list[Replay]:
    """Make one scan, or every scan of a synthetic cohort, again.

    Args:
        target: ``provenance/<id>.json``, an image or label file of the scan, or the folder of the cohort.
        out: Folder for the files made again, laid out like the cohort.
        model: The generator: ``model`` or ``model/<backend>`` of the run that trained it. By default the ``model``
            folder beside the cohort or above it.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        tick: Called with (scans made, all).

    Raises:
        AuditError: If there is no record, a record was altered or cannot be used, or the generator is not the one that
            made the scan.
        ArtifactError: If the generator is missing, incomplete or altered.
    """
    records = find_records(Path(target))
    loaded: dict[str, Backend] = {}
    results = []
    for path in records:
        record = read_record(path)
        wrong = [key for key, kind in _NEEDED.items() if not isinstance(record.get(key), kind)]
        if wrong:
            raise AuditError(f"{path}: {wrong[0]!r} is missing or of the wrong kind; restore the record from a copy")
        check_layout(record["layout"], channels=1)
        name = record["backend"]
        if name not in loaded:
            loaded[name] = load_backend(_generator(path, name, model), device)
        results.append(_again(record, path.parent.parent, loaded[name], out))
        if tick is not None:
            tick(len(results), len(records))
    return results


def find_records(target: Path) -> list[Path]:
    """The provenance records that a target stands for.

    Raises:
        AuditError: If there are none.
    """
    if target.is_dir():
        folder = target if target.name == FOLDER else target / FOLDER
        found = [path for path in sorted(folder.glob("*.json")) if _is_record(path)]
        if not found:
            raise AuditError(f"{target}: no records in {FOLDER}/; expected the folder of a synthetic cohort")
        return found
    if not target.is_file():
        raise AuditError(f"{target}: no such file; expected a record, a synthetic scan or the folder of a cohort")
    if target.suffix == ".json":
        return [target]
    for folder in target.absolute().parents:
        for path in sorted((folder / FOLDER).glob("*.json")):
            if _is_record(path) and target.absolute().relative_to(folder).as_posix() in read_record(path)["files"]:
                return [path]
    raise AuditError(f"{target}: no record names this file; expected a scan of a synthetic cohort with {FOLDER}/")


def _is_record(path: Path) -> bool:
    content = files.read_json(path)
    return isinstance(content, dict) and "generator_sha256" in content


def _generator(record: Path, backend: str, model: Path | None) -> Path:
    """The generator's folder, given or found."""
    if model is not None:
        return model / backend if (model / backend).is_dir() else model
    for folder in record.absolute().parents:
        if (folder / "model" / backend).is_dir():
            return folder / "model" / backend
    raise ArtifactError(
        f"{record}: no model/{backend} beside the cohort or above it; name the model folder of the run with --model"
    )


def _again(record: dict[str, Any], cohort: Path, backend: Backend, out: Path) -> Replay:
    if backend.name != record["backend"] or backend.sha256 != record["generator_sha256"]:
        raise AuditError(
            f"{record['id']}: made by the {record['backend']} generator {record['generator_sha256'][:12]}..., "
            f"found the {backend.name} generator {backend.sha256[:12]}...; give the model of the run that made it"
        )
    synthetic = _as_recorded(backend, record).sample(int(record["seed"]))
    try:
        grid = Grid(tuple(record["grid"]["shape"]), np.array(record["grid"]["affine"], dtype=np.float64))
    except (LookupError, TypeError, ValueError, OverflowError):
        raise AuditError(f"{record['id']}: its record has no usable grid; restore it from a copy") from None
    content = scan_files(synthetic, record["id"], grid, record["layout"], record["modality"])
    made = write_scan(content, out, backend.name, record["stamp"])
    differences = []
    for name, digest in record["files"].items():
        if made.get(name) != digest:
            found = "is not made" if name not in made else f"SHA-256 {made[name][:12]}..."
            differences.append(f"{name} made again {found}, recorded {digest[:12]}...")
        if not (cohort / name).is_file():
            differences.append(f"{name} is missing in the cohort")
        elif (present := files.sha256_file(cohort / name)) != digest:
            differences.append(f"{name} was altered: SHA-256 {present[:12]}..., recorded {digest[:12]}...")
    return Replay(record["id"], tuple(differences), _origin(record))


def _as_recorded(backend: Backend, record: dict[str, Any]) -> Backend:
    """The generator with the options that the scan was sampled by; records of earlier versions name none."""
    given = record.get("sampling", {})
    try:
        if not isinstance(given, dict):
            raise ConfigError(f"expected options by name, found {given!r:.100}")
        return backend.sampled_by(overridden(backend.sampling, given, "sampling"))
    except ConfigError as error:
        raise AuditError(f"{record['id']}: its record names options that its generator has not: {error}") from None


def _origin(record: dict[str, Any]) -> str:
    """Which version made a scan, where that is not this one."""
    here, made = environment.commit(), (record["medgen"], record["commit"], record["versions"])
    now = (medgen.__version__, here.id, files.plain(environment.versions()))
    if made == now and not here.dirty and not record["dirty"]:
        return ""
    changed = [
        f"{name} {made[2].get(name)} then, {now[2].get(name)} now"
        for name in sorted({*made[2], *now[2]})
        if made[2].get(name) != now[2].get(name)
    ]
    state = " with uncommitted changes" if record["dirty"] else ""
    text = f"made by medgen {made[0]} at commit {made[1][:12]}{state}, this is {now[0]} at {now[1][:12]}"
    return "; ".join([text, *changed])
