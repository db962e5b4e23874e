"""Voxels in a file of their own, beside the header that was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from medgen.faults import FaultyDataError, fail

_REEXPORT = "export it again"


@contextmanager
def named(path: Path, voxels: Path) -> Iterator[None]:
    """Faults of a separate file of voxels are those of its header, which is the file that was asked for."""
    try:
        yield
    except FaultyDataError as error:
        if voxels == path:
            raise
        raise FaultyDataError(
            [replace(fault, file=str(path), found=f"voxels in {voxels.name}: {fault.found}") for fault in error.faults]
        ) from None


def beside(path: Path, name: str) -> Path:
    """The file of voxels that a header names: one file in the header's own folder or below, and nowhere else.

    Raises:
        FaultyDataError: If it is anything else.
    """
    if not name or name.upper().split()[0] in ("LIST", "PATTERN") or "%" in name:
        raise fail(path, f"voxels in {name[:60]!r}", "the name of one file", "export it as one .nrrd or .mha file")
    parts = Path(name.replace("\\", "/")).parts
    target = path.parent / name
    if Path(name).is_absolute() or ".." in parts or name != name.replace("\0", "") or ":" in parts[0]:
        raise fail(path, f"voxels in {name[:80]!r}", "a file in the same folder", _REEXPORT)
    check_inside(path, target)
    return target


def check_inside(path: Path, voxels: Path) -> None:
    """Refuse a file of voxels that is a link to somewhere outside of its header's folder.

    Raises:
        FaultyDataError: If it is.
    """
    if not voxels.resolve().is_relative_to(path.parent.resolve()):
        raise fail(path, f"voxels in {voxels.name[:80]!r}, a link to elsewhere", "a file in the same folder", _REEXPORT)
