"""Records that state the digest of a model whose own record was changed, stated anew."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medgen.audit.forgetting.content import write_again
from medgen.errors import DataError
from medgen.models.artifact import MANIFEST
from medgen.models.stored_arrays import RECORD as STORED
from medgen.runs.outputs import RECORD
from medgen.system import files


def restated(out: Path, models: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Put the new digests of models where the former ones are stated below a run, as in records of synthetic scans.

    Args:
        out: The run's folder.
        models: Folder → digest of each model, before its record was changed.

    Returns:
        Records that were changed: path → SHA-256 before and after.

    Raises:
        DataError: If one cannot be written.
    """
    changed: dict[str, tuple[str, str]] = {}
    known = stated(out)
    new = {before: known[name] for name, before in models.items() if known.get(name, before) != before}
    while new:
        following: dict[str, str] = {}
        for path in sorted(out.rglob("*.json")):
            name = path.relative_to(out).as_posix()
            if name == RECORD:
                continue
            try:
                before = files.read_json(path)
            except DataError:
                continue
            after = _replaced(before, new)
            if after == before:
                continue
            digest = files.sha256_file(path)
            write_again(path, before, after)
            changed[name] = (changed.get(name, (digest, ""))[0], files.sha256_file(path))
            if path.name in (MANIFEST, STORED) and isinstance(before, dict) and "sha256" in before:
                following[str(before["sha256"])] = str(files.read_json(path)["sha256"])
        new = following
    return changed


def stated(out: Path) -> dict[str, str]:
    """Folder → digest of every model below a run, by its own record."""
    found = {}
    for path in (*out.rglob(MANIFEST), *out.rglob(STORED)):
        content = files.read_json(path)
        if isinstance(content, dict) and "sha256" in content:
            found[path.parent.relative_to(out).as_posix()] = str(content["sha256"])
    return found


def _replaced(value: Any, new: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(item, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, new) for item in value]
    return new.get(value, value) if isinstance(value, str) else value
