"""Cases from file names: plain folders, with patterns or without, and BIDS trees."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from medgen import io
from medgen.cases import Case
from medgen.faults import Fault, fail

_MASK_WORDS = ("mask", "seg", "label", "labels", "dseg", "lesion")
_MASK_FOLDERS = ("masks", "labels", "segmentations", "labelsTr")
_IMAGE_FOLDERS = ("images", "imagesTr")
_SET_PATTERNS = 'set the patterns, for example cohort.images="*_T1w.nii.gz" and cohort.masks="{id}_labels.nii.gz"'


class Found(NamedTuple):
    """What a layout holds: cases (subject "" where the layout does not say), label names, faults, cohort name."""

    cases: list[Case]
    labels: dict[int, str]
    faults: list[Fault]
    name: str = ""


def images_in(folder: Path) -> list[Path]:
    """Image files directly in a folder, sorted by name; empty if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if io.is_image(path))


def safe_id(name: str) -> str:
    """A case id from a file name: what cannot be in a file name everywhere becomes ``-``."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:100] or "case"


def image_folder(path: Path) -> Path | None:
    """The subfolder that holds the images, where its name says so."""
    return next((path / name for name in _IMAGE_FOLDERS if images_in(path / name)), None)


def by_pattern(path: Path, glob: str, masks: str | None) -> Found:
    """Images that match a glob; what each ``*`` stands for makes the id, which fills ``{id}`` of the masks' pattern."""
    pattern = _pattern(glob)
    cases = []
    for image in sorted(file for file in path.glob(glob) if file.is_file() or io.has_dicom(file)):
        match = pattern.fullmatch(image.relative_to(path).as_posix())
        name = "-".join(group for group in match.groups() if group) if match and match.groups() else io.stem(image)
        mask = path / masks.replace("{id}", name) if masks else None
        cases.append(Case(safe_id(name), "", (image,), mask if mask is not None and mask.is_file() else None))
    return Found(cases, {}, _no_masks(cases, path, masks))


def _pattern(glob: str) -> re.Pattern[str]:
    """A glob as a regular expression with one group per ``*``."""
    parts = re.split(r"(\*\*/|\*|\?)", glob)
    table = {"**/": r"(?:.*/)?", "*": r"([^/]*)", "?": r"[^/]"}
    return re.compile("".join(table.get(part, re.escape(part)) for part in parts))


def _no_masks(cases: Sequence[Case], path: Path, masks: str | None) -> list[Fault]:
    if masks and cases and all(case.mask is None for case in cases):
        found = f"no file matches cohort.masks={masks!r}, for example for case {cases[0].id}"
        return [Fault(str(path), found, "a mask for at least one case", "correct the pattern, or leave it out")]
    return []


def by_names(path: Path) -> Found:
    """Every image is a case; masks are ``<id>_mask`` and the like beside it, or files in a sibling folder of masks."""
    images_folder = image_folder(path) or path
    found = images_in(images_folder)
    masks = {base: file for file in found if (base := _mask_base(io.stem(file)))}
    images = [file for file in found if file not in masks.values()]
    if not images:  # a cohort of masks only is a cohort of images
        images, masks = found, {}
    for name in _MASK_FOLDERS:
        for file in images_in(path / name):
            masks[_mask_base(io.stem(file)) or io.stem(file)] = file
    if kinds := _several_kinds([io.stem(file) for file in images]):
        shown = f"several files per case: {', '.join(kinds)}"
        raise fail(path, shown, "one image per case, or patterns that say which", _SET_PATTERNS)
    cases, used = [], set()
    for image in images:
        name = io.stem(image)
        base = next((key for key in (name, name.rsplit("_", 1)[0]) if key in masks), None)
        used.add(base)
        cases.append(Case(safe_id(name), "", (image,), None if base is None else masks[base]))
    action = f"add or remove files, or {_SET_PATTERNS}"
    faults = [
        Fault(str(file), "a mask without image", "an image for every mask", action)
        for base, file in sorted(masks.items())
        if base not in used
    ]
    return Found(cases, {}, faults)


def _mask_base(name: str) -> str | None:
    """``x`` of ``x_mask``, ``x_labels`` and so on; None for other names."""
    base, separator, word = name.rpartition("_")
    return base if separator and word.lower() in _MASK_WORDS else None


def _several_kinds(names: Iterable[str]) -> list[str]:
    """Endings such as T1w and tissues that recur for several cases, one of which has at least two of them."""
    endings: dict[str, list[str]] = defaultdict(list)
    owners: dict[str, set[str]] = defaultdict(set)
    for name in names:
        base, separator, ending = name.rpartition("_")
        if separator:
            endings[base].append(ending)
            owners[ending].add(base)
    recurring = {ending for ending, bases in owners.items() if len(bases) > 1}
    several = [kinds for kinds in endings.values() if len(recurring & set(kinds)) > 1]
    return sorted({kind for kinds in several for kind in kinds})[:6]


def bids(path: Path, glob: str | None, masks: str | None) -> Found:
    """BIDS: ``sub-<subject>/[ses-<session>/]anat/*_<suffix>.nii.gz``; masks from the same tree or ``derivatives``.

    Args:
        path: The data set.
        glob: Which file names are images, such as ``"*_T2w.nii.gz"``; None takes T1w, or the only kind there is.
        masks: Path or file name of a mask, with ``{id}``; None takes ``<id>_mask``, ``<id>_dseg`` and the like.
    """
    pattern = _pattern(glob) if glob else None
    everything = sorted(file for file in path.glob("sub-*/**/*.nii*") if io.is_image(file))
    if pattern is not None:
        images = [file for file in everything if pattern.fullmatch(file.name)]
    else:
        images = _anatomical(path, everything)
    known = {file.name: file for file in [*path.glob("derivatives/**/sub-*.nii*"), *everything]}
    cases = []
    for image in images:
        name = io.stem(image)
        match = pattern.fullmatch(image.name) if pattern else None
        base = match[1] if match and match.groups() else name.rpartition("_")[0] or name
        if masks:
            wanted = masks.replace("{id}", base)
            mask = path / wanted if (path / wanted).is_file() else known.get(Path(wanted).name)
        else:
            options = [file for key, file in known.items() if _mask_base(io.stem(key)) in (base, name)]
            mask = options[0] if len(options) == 1 else None
        subject = next(part for part in image.relative_to(path).parts if part.startswith("sub-"))
        cases.append(Case(safe_id(name), subject, (image,), mask))
    return Found(cases, {}, _no_masks(cases, path, masks))


def _anatomical(path: Path, everything: Sequence[Path]) -> list[Path]:
    """The T1w images of ``anat`` folders, or the only other kind there is."""
    images = [file for file in everything if file.parent.name == "anat" and not _mask_base(io.stem(file))]
    suffixes = sorted({io.stem(file).rsplit("_", 1)[-1] for file in images})
    if images and "T1w" not in suffixes and len(suffixes) > 1:
        found = f"images of several kinds: {', '.join(suffixes)}"
        raise fail(path, found, "one kind of image", 'say which, for example cohort.images="*_T2w.nii.gz"')
    chosen = "T1w" if "T1w" in suffixes else suffixes[0] if suffixes else ""
    return [file for file in images if io.stem(file).endswith(f"_{chosen}")]
