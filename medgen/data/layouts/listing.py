"""The one way in which the files of a cohort are found: what is left alone is left alone whoever looks."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from medgen import io
from medgen.data.intake import LeftOut, grouped
from medgen.system.advice import setting

MAC, HIDDEN = "._* of macOS", "hidden"
# Scans in formats that medgen does not read, and pictures; other files are named by their suffix alone.
_OTHER_IMAGES = (".mnc", ".mnc.gz", ".par", ".rec", ".img", ".img.gz", ".tif", ".tiff", ".v", ".ecat")
_IMAGES = (".nii", ".nii.gz", ".mgz", ".mgh", ".hdr", ".nrrd", ".nhdr", ".mha", ".mhd")
# What belongs to a layout and is read, or describes the data for people.
_OF_THE_LAYOUT = re.compile(
    r"manifest\.(csv|json)|subjects\.csv|dataset\.json|dataset_description\.json|participants\.(tsv|json)|card\.md"
)
_ABOUT = re.compile(r"(readme|changes|license|licence|citation)(\..*)?", re.IGNORECASE)
# Files in a tree that are looked at to say what was left out; of larger ones the rest is not said.
_MOST = 200_000


def left_alone(relative: Path) -> str:
    """Why a path below a cohort is never taken for a scan; empty if it may be one.

    >>> left_alone(Path("__MACOSX/a.nii")), left_alone(Path(".git/a.nii")), left_alone(Path("a.nii"))
    ('._* of macOS', 'hidden', '')
    """
    if "__MACOSX" in relative.parts or relative.name.startswith("._"):
        return MAC
    return HIDDEN if any(part.startswith(".") for part in relative.parts if part not in (".", "..")) else ""


def found(root: Path, glob: str, leave_out: Sequence[str] = ()) -> list[Path]:
    """Files and DICOM folders below a folder that match a glob, sorted; not those that are left alone or out.

    A link that leads nowhere counts as the file it stands for: whoever reads it says what is wrong with it.
    """
    if glob and not re.search(r"[*?\[\]/]$", glob) and not glob.endswith(".."):
        # Where the last part of a pattern is plain, glob() leaves links out that lead nowhere.
        glob = f"{glob[:-1]}[{glob[-1]}]"
    matches = (path for path in root.glob(glob) if not left_alone(path.relative_to(root)))
    return sorted(
        path for path in matches if (is_there(path) or io.has_dicom(path)) and not is_left_out(path, root, leave_out)
    )


def stored(folder: Path, name: str) -> Path:
    """A file by the name that a list gives it, however its accents are stored: as signs of their own or not."""
    ways = (name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name))
    return folder / next((way for way in ways if os.path.lexists(folder / way)), name)


def is_there(path: Path) -> bool:
    """Whether a path is a file, or a link that leads nowhere and stands for one."""
    return path.is_file() or _leads_nowhere(path)


def _leads_nowhere(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def lost_folders(root: Path, used: Collection[Path], leave_out: Sequence[str] = ()) -> list[Path]:
    """Links that lead nowhere and are named as folders are, without suffix: what lay behind them would vanish unsaid.

    Args:
        root: Folder of the cohort.
        used: Files and folders that are read; whoever reads them says what is wrong in them.
        leave_out: Globs of what is no scan.
    """
    links = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if Path(folder) / name not in used)
        for path in (Path(folder) / name for name in sorted(names) if "." not in name):
            if Path(folder) not in used and _leads_nowhere(path) and not is_left_out(path, root, leave_out):
                links.append(path)
    return links


def images_in(folder: Path, leave_out: Sequence[str] = ()) -> list[Path]:
    """Image files directly in a folder, sorted by name; empty if there is no such folder."""
    if not folder.is_dir():
        return []
    here = (path for path in folder.iterdir() if not left_alone(Path(path.name)) and io.is_image(path))
    return sorted(path for path in here if not is_left_out(path, folder.parent, leave_out))


def is_dicom_file(path: Path) -> bool:
    """Whether a file is DICOM: by its name where this says so, else by its content."""
    name = path.name.lower()
    if name.endswith((*_IMAGES, *_OTHER_IMAGES)):
        return False
    return name.endswith((".dcm", ".ima")) or (
        (path.suffix == "" or path.suffix[1:].isdigit()) and path.is_file() and io.is_dicom(path)
    )


def is_left_out(path: Path, root: Path, patterns: Sequence[str]) -> bool:
    """Whether a pattern of ``cohort.leave_out`` names a file: by its name, or by its path below the cohort.

    >>> is_left_out(Path("d/a/x_brain.nii"), Path("d"), ["*_brain.nii"])
    True
    """
    relative = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    return any(fnmatchcase(path.name, pattern) or fnmatchcase(relative, pattern) for pattern in patterns)


def matches_nothing(root: Path, patterns: Sequence[str]) -> str:
    """The first pattern of ``cohort.leave_out`` that names no file or folder below a cohort; empty if there is none."""
    below = [Path(folder) / name for folder, folders, names in os.walk(root) for name in (*folders, *names)]
    return next((own for own in patterns if not any(is_left_out(path, root, [own]) for path in below)), "")


def leftovers(
    root: Path, used: Collection[Path], why: Mapping[Path, str], leave_out: Sequence[str] = (), images: str = ""
) -> tuple[LeftOut, ...]:
    """Every file below a cohort that is no case and does not describe it, by reason.

    Args:
        root: Folder of the cohort.
        used: Files, and folders with a DICOM series, that are read.
        why: Reasons that whoever found the cases gave.
        leave_out: Globs of files that the user does not want.
        images: The user's pattern of images, if there is one.
    """
    outside = f"images that your pattern does not name ({setting('images', images)})" if images else ""
    taken = {os.path.normpath(path) for path in used}
    known = {os.path.normpath(path): reason for path, reason in why.items()}
    reasons: list[tuple[str, str]] = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if os.path.normpath(Path(folder) / name) not in taken)
        series = os.path.normpath(folder) in taken
        for name in names:
            # What else lies in the folder of a DICOM series is told by its name.
            if series and not name.lower().endswith(_IMAGES):
                continue
            path = Path(folder) / name
            place = os.path.normpath(path)
            if place in taken or _companion(path, taken):
                continue
            relative = path.relative_to(root)
            said = next((own for own in leave_out if is_left_out(path, root, [own])), "")
            if said and not left_alone(relative):
                reason = f"left out as you said ({setting('leave_out', said)})"
            else:
                reason = known.get(place) or _reason(path, relative, outside)
            if reason:
                reasons.append((relative.as_posix(), reason))
        if len(reasons) > _MOST:
            break
    return grouped(reasons)


def _companion(path: Path, taken: Collection[str]) -> bool:
    """Whether a file is the half of a pair (.hdr and .img, .mhd and .raw) whose other half is read."""
    base = str(path)
    for end in (".img.gz", ".img", ".raw", ".zraw"):
        if base.lower().endswith(end):
            stem = os.path.normpath(base[: -len(end)])
            return any(f"{stem}{other}" in taken for other in (".hdr", ".hdr.gz", ".HDR", ".mhd", ".nhdr"))
    return False


def _reason(path: Path, relative: Path, outside: str) -> str:
    if alone := left_alone(relative):
        # A version store or a cache below the cohort is nothing that anybody takes for scans.
        return alone if alone == MAC or len(relative.parts) == 1 else ""
    if _OF_THE_LAYOUT.fullmatch(path.name) or _ABOUT.fullmatch(path.name):
        return ""
    name = path.name.lower()
    if name.endswith(_OTHER_IMAGES) and not io.is_image(path):
        end = next(end for end in _OTHER_IMAGES if name.endswith(end))
        return f"*{end}, a format that is not read"
    if is_dicom_file(path):
        alone = setting("layout", "dicom")
        return f"DICOM, not read beside other images (these alone: {alone}, with which medgen data import makes NIfTI)"
    if io.is_image(path):
        return outside or "images that are neither a scan nor a mask here"
    return f"*{path.suffix.lower()}" if path.suffix else "without suffix"
