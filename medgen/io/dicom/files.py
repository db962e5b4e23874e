"""Which files of a folder belong to its DICOM content, and which only look as if they did."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from medgen.faults import Fault

_SUFFIXES = (".dcm", ".dicom", ".ima")
_PACKED = (".gz", ".bz2", ".xz", ".zip")
_READABLE = "a complete DICOM file"
# Groups that a data set without file header begins with: identification, in ACR-NEMA as in DICOM.
_HEADLESS = (b"\x08\x00", b"\x02\x00")
_NO_HEADER = "DICOM data without its file header (128 bytes and DICM), so how its pixels are stored is unknown"


@dataclass(frozen=True)
class Listing:
    """What a folder holds.

    Attributes:
        files: DICOM files, sorted.
        headless: Files named as images that hold DICOM data without its file header.
        faults: Entries that should be DICOM files and are not, or cannot be looked at.
    """

    files: tuple[Path, ...]
    headless: tuple[Path, ...]
    faults: tuple[Fault, ...]


def is_dicom(path: str | Path) -> bool:
    """Whether a file starts as DICOM files do (128 bytes, then ``DICM``)."""
    return _head(Path(path))[128:] == b"DICM"


def is_headless(path: str | Path) -> bool:
    """Whether a file starts as a DICOM data set does, without the file header that must come before it."""
    head = _head(Path(path))
    if head[128:] == b"DICM" or head[:2] not in _HEADLESS or len(head) < 32:
        return False
    explicit = head[4:6] in (b"UL", b"UI", b"CS", b"DA", b"TM", b"LO", b"SH", b"OB")
    implicit = int.from_bytes(head[4:8], "little") < 128 and int.from_bytes(head[2:4], "little") < 0x1000
    return explicit or implicit


def has_dicom(folder: str | Path) -> bool:
    """Whether any file directly in a folder is DICOM, with its file header or without."""
    try:
        paths = sorted(path for path in Path(folder).iterdir() if not path.name.startswith("."))
    except OSError:
        return False
    return any(is_dicom(path) or is_headless(path) for path in paths if path.is_file())


def dicom_folders(path: str | Path) -> Iterator[Path]:
    """Folders of a tree, itself included, that hold DICOM files directly; links to folders are not followed."""
    waiting = [Path(path)]
    while waiting:
        folder = waiting.pop()
        if has_dicom(folder):
            yield folder
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name, reverse=True)
        except OSError:
            continue
        waiting += [
            Path(entry.path)
            for entry in entries
            if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
        ]


def list_files(folder: str | Path, *, deep: bool = True) -> Listing:
    """Look at every entry of a folder and of the folders below it, hidden ones apart.

    A link counts as the file it leads to as long as that lies in the folder.

    Args:
        folder: An existing folder.
        deep: Whether to look into the folders below it.
    """
    root = Path(folder).resolve()
    files: list[Path] = []
    others: list[Path] = []
    faults: list[Fault] = []
    waiting = [Path(folder)]
    while waiting:
        place = waiting.pop()
        try:
            paths = sorted(place.iterdir())
        except OSError as error:
            faults.append(_unreadable(place, error))
            continue
        for path in paths:
            if path.name.startswith("."):
                continue
            found = _kind(path, root)
            if isinstance(found, Fault):
                faults.append(found)
            elif found == "folder":
                waiting += [path] if deep else []
                if path.name.lower().endswith(_SUFFIXES) and not any(path.iterdir()):
                    faults.append(Fault(str(path), "an empty folder named as an image", _READABLE, "copy it again"))
            elif found == "dicom":
                files.append(path)
            elif found == "other":
                others.append(path)
    headless, wrong = _pretenders(files, others)
    return Listing(tuple(sorted(files)), tuple(headless), tuple(faults + wrong))


def without_header(path: Path) -> Fault:
    """The fault of an image without its file header."""
    action = "write it again as a DICOM file, for example with dcmconv"
    return Fault(str(path), _NO_HEADER, _READABLE, action)


def _kind(path: Path, root: Path) -> str | Fault:
    """``folder``, ``dicom``, ``other`` or ``nothing`` (a link to what is looked at anyway), or what is wrong."""
    try:
        info = path.stat()
        if path.is_symlink():
            target = path.resolve(strict=True)
            inside = target.is_relative_to(root)
            if stat.S_ISDIR(info.st_mode):
                return "nothing" if inside else _leads_out(path)
            if not inside and (is_dicom(path) or path.name.lower().endswith(_SUFFIXES)):
                return _leads_out(path)
        if stat.S_ISDIR(info.st_mode):
            return "folder"
        if not stat.S_ISREG(info.st_mode):
            return Fault(str(path), "a pipe, socket or device, not a file", _READABLE, "remove it")
        with path.open("rb") as file:
            return "dicom" if file.read(132)[128:] == b"DICM" else "other"
    except (OSError, RuntimeError) as error:  # a circle of links is a RuntimeError in Python 3.11
        if path.is_symlink():
            found = "a link that leads nowhere or in a circle"
            return Fault(str(path), found, _READABLE, "restore the file it stands for, or remove it")
        return _unreadable(path, error)


def _leads_out(path: Path) -> Fault:
    action = "put the file itself there (of a DataLad set: datalad unlock)"
    return Fault(str(path), "a link that leads out of the folder", "files in the folder itself", action)


def _unreadable(path: Path, error: Exception) -> Fault:
    reason = getattr(error, "strerror", None) or type(error).__name__
    return Fault(str(path), f"cannot be read ({reason})", _READABLE, "check permissions")


def _pretenders(files: list[Path], others: list[Path]) -> tuple[list[Path], list[Fault]]:
    """Files that are named as DICOM files, or as the DICOM files beside them, but have no header; and their faults."""
    patterns = {_pattern(path) for path in files}
    faults, headless = [], []
    for path in others:
        packed = path.suffix.lower() in _PACKED
        bare = path.with_suffix("") if packed else path
        named = bare.name.lower().endswith(_SUFFIXES) or _pattern(bare) in patterns
        if is_headless(path) and (named or path.suffix in ("", ".bin") or path.suffix[1:].isdigit()):
            headless.append(path)
        elif named and packed:
            found = "a packed file that is named as an image of this folder"
            faults.append(Fault(str(path), found, _READABLE, "unpack it, or remove it"))
        elif named:
            found = "an empty file" if path.stat().st_size == 0 else "named as an image, but not a DICOM file"
            faults.append(Fault(str(path), found, _READABLE, "copy or export it again"))
    return headless, faults


def _pattern(path: Path) -> tuple[Path, str]:
    """Folder and name with every number replaced: the files of a series differ in numbers."""
    return path.parent, re.sub(r"\d+", "#", path.name)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(132)
    except OSError:
        return b""
