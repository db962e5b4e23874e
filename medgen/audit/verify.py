"""What a run wrote, by hash: the record is made at its end, verified later, and every file traced to what made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medgen.errors import AuditError, DataError
from medgen.runs.outputs import FORMAT, RECORD, output_files
from medgen.system import files


@dataclass(frozen=True)
class Problem:
    """A file that is not as the run left it.

    Attributes:
        file: Path below the run folder.
        kind: ``missing``, ``altered`` or ``unlisted`` (there, but not written by the run).
        detail: What was found and expected.
    """

    file: str
    kind: Literal["missing", "altered", "unlisted"]
    detail: str

    def __str__(self) -> str:
        """The problem as the line that is printed: file, kind and detail."""
        return f"{self.file}: {self.kind}: {self.detail}"


def verify(target: str | Path) -> list[Problem]:
    """Compare a run folder, or one file of it, with the record of the run.

    Args:
        target: The run's folder or any file or folder below it.

    Returns:
        Every missing, altered and unlisted file; empty if all is as the run left it.

    Raises:
        AuditError: If there is no record above the target, or the record itself was altered.
    """
    out, record, part = _find(target)
    listed: dict[str, str] = {name: digest for name, digest in record["files"].items() if _below(name, part)}
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
    return problems + extra


def trace(target: str | Path) -> dict[str, Any]:
    """What an output was made from.

    Args:
        target: The run's folder or a file of it.

    Returns:
        ``run_id``, ``config_sha256`` (:func:`medgen.runs.tracking.config_digest`), ``manifest_digest``, ``inputs``
        (case → part → SHA-256; no path), ``model`` (of a run that used one: its hash, run and cases), ``seed``,
        ``commit``, ``dirty``, ``versions``, ``weights`` (file → SHA-256). For a file also ``file``, ``sha256``,
        ``state`` (``as recorded``, ``altered`` or ``unlisted``) and, where its name is that of a case, ``scan``: the
        case.

    Raises:
        AuditError: If there is no record above the target, or the record itself was altered.
    """
    out, record, part = _find(target)
    keys = ("run_id", "config_sha256", "manifest_digest", "inputs", "model", "seed", "commit", "dirty", "versions")
    result: dict[str, Any] = {key: record.get(key) for key in keys}
    own = {name: digest for name, digest in record["files"].items() if name.endswith(".safetensors")}
    used = record.get("model") or {}
    result["weights"] = {**own, **used.get("weights", {})}
    if part and not (out / part).exists() and not any(_below(name, part) for name in record["files"]):
        raise AuditError(f"{target}: no such file; expected a file of the run in {out}; check the name")
    if part and (out / part).is_file():
        digest = files.sha256_file(out / part)
        expected = record["files"].get(part)
        state = "unlisted" if expected is None else "as recorded" if expected == digest else "altered"
        result.update(file=part, sha256=digest, state=state)
        if case := _case_of(part, record.get("inputs") or {}):
            result["scan"] = {"case": case, "sha256": record["inputs"][case]}
    return result


def _case_of(part: str, inputs: Mapping[str, Any]) -> str | None:
    """The case that a file is named after: ``heatmaps/a.nii.gz`` and ``truth/a-implant1-blur.nii.gz`` are of ``a``."""
    name = part.rpartition("/")[2]
    found = [case for case in inputs if name.startswith((f"{case}.", f"{case}-implant"))]
    return max(found, key=len, default=None)


def _find(target: str | Path) -> tuple[Path, dict[str, Any], str]:
    """The run folder, its record, and the target's path below the folder (empty for the folder itself)."""
    path = Path(target).absolute()
    for folder in (path, *path.parents):
        if (folder / RECORD).is_file():
            part = path.relative_to(folder).as_posix()
            return folder, _read(folder / RECORD), "" if part == "." else part
    raise AuditError(f"{target}: no {RECORD} here or above; expected the folder of a finished run or a file in it")


def _read(path: Path) -> dict[str, Any]:
    try:
        record = files.read_json(path)
    except DataError as error:
        raise AuditError(f"{error}; expected the record of a finished run") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT or not isinstance(record.get("files"), dict):
        raise AuditError(f"{path}: not an outputs record of format {FORMAT}; it may be of another medgen version")
    if not all(isinstance(digest, str) for digest in record["files"].values()):
        raise AuditError(f"{path}: lists files without a SHA-256; restore it from a copy")
    if not files.seal_holds(record):
        raise AuditError(f"{path}: the record itself was altered: its SHA-256 differs from what it states")
    return record


def _below(name: str, part: str) -> bool:
    return not part or name == part or name.startswith(part + "/")
