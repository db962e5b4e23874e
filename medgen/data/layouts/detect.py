"""From a folder on disk to a manifest: CSV, plain folder, MSD, nnU-Net, BIDS and DICOM layouts."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medgen import io
from medgen.data.cases import Case, Manifest, case_files, is_safe_id
from medgen.data.intake import Intake
from medgen.data.layouts.bids import bids
from medgen.data.layouts.by_file_name import Found, by_names, distinct, image_folder, is_mask_word, mask_base, safe_id
from medgen.data.layouts.cohort_config import CohortConfig
from medgen.data.layouts.dataset_json import description_of, listed, nnunet, says_listed
from medgen.data.layouts.listing import images_in, left_alone, leftovers, lost_folders, matches_nothing
from medgen.data.layouts.manifest_csv import from_csv
from medgen.data.layouts.patterns import by_pattern
from medgen.data.layouts.subjects import owned, with_participants
from medgen.faults import Fault, FaultyDataError, fail
from medgen.system.advice import apart, glob_like, setting, shown
from medgen.system.files import exists

__all__ = ["CohortConfig", "load_cohort"]

_DEFAULT = CohortConfig()


def load_cohort(path: str | Path, config: CohortConfig = _DEFAULT, *, ask: bool = True) -> Manifest:
    """Find the cases of a cohort and whom they belong to; images are opened only where names leave a choice.

    Args:
        path: A folder, a manifest CSV, or a ``dataset.json``.
        config: Layout and patterns.
        ask: Refuse names that look like several scans of one subject where nothing says whose they are. False where
            nothing depends on it, as for synthetic scans, which show nobody.

    Returns:
        The manifest, sorted by case id except for a CSV, which keeps its order. Cases of MSD and nnU-Net folders
        without labels (``imagesTs``, ``imagesUnlabelled``) have no mask. Without a subject list each case is its own
        subject, except in BIDS (``sub-...``) and DICOM (grouped by PatientID, which itself is not kept).

    Raises:
        FaultyDataError: A :class:`medgen.errors.DataError` with everything that is wrong with the layout: nothing
            found, missing files, ambiguous names, unknown or unclear subjects, unsafe or double ids.
    """
    path = Path(path)
    if not exists(path):
        raise fail(path, "no such file or folder", "a cohort folder or manifest CSV", "check the path")
    if path.name == "dataset.json":
        path = path.parent
    if lost := next((folder for folder in config.roots if not folder.is_dir()), None):
        raise fail(lost, "no such folder", "a folder that links may lead to", "correct cohort.roots, or leave it out")
    layout: str = config.layout
    if layout == "auto" and (path.is_file() or not config.images):
        layout = _detect(path)
    if layout == "auto":
        layout = "bids" if _is_bids(path) else "folder"
    if config.masks and not config.images and layout not in ("folder", "bids"):
        text = f"masks for layout {layout!r}, which says itself where they are"
        raise fail(path, text, "a pattern for plain folders only", "leave it out, or set cohort.images too")
    try:
        found = _LAYOUTS[layout](path, config)
    except (OSError, ValueError, NotImplementedError) as error:
        # A pattern that is no pattern, names that are too long, folders that may not be opened.
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        raise fail(
            path, f"cannot be searched ({reason[:120]})", "a cohort folder", "correct the path or pattern"
        ) from None
    root = path if path.is_dir() else path.parent
    _check_left_out(root, config)
    source = path / "manifest.csv" if layout == "csv" and path.is_dir() else path
    cases = found.cases if layout == "csv" else distinct(found.cases)
    faults = [*found.faults, *_links_out(cases, root, config.roots)]
    faults += [] if layout == "csv" else _links_nowhere(cases, root, config.unwanted)
    if not cases and not faults:
        faults.append(_nothing(source, layout, tuple(config.globs.values())))
    decisions = list(found.decisions)
    if layout == "bids":
        cases, more = with_participants(cases, root)
        decisions += more
    faults += _bad_ids(cases, source)
    told = owned(cases, root, config.subjects, layout, found.subjects_by, ask=ask and not faults)
    cases, faults, decisions = told.cases, [*faults, *told.faults], [*decisions, *told.decisions]
    if config.slices is not None:
        declared = {"slices": str(config.slices)}
        cases = [replace(case, attributes={**declared, **case.attributes}) for case in cases]
    if faults:
        raise FaultyDataError(faults)
    if layout != "csv":
        cases = sorted(cases, key=lambda case: case.id)
    reading: dict[str, Any] = {
        "fill": config.fill,
        "unscaled": config.unscaled,
        "resample_mask": config.resample_masks,
        "empty_mask": config.empty_masks,
        "resample_channels": config.resample_channels,
    }
    cases = [replace(case, **reading) for case in cases]
    pattern = next(iter(config.globs.values()), "")
    # A manifest names what belongs to it; beside it may lie anything.
    used = [file for case in cases for file in case_files(case)]
    intake = Intake(
        layout=layout,
        chosen=config.layout == "auto",
        subjects=told.source,
        masks=found.masks_by,
        decisions=tuple(decisions),
        left_out=() if layout == "csv" else leftovers(root, used, found.reasons, config.unwanted, pattern),
        channels=found.channels,
        regions=found.regions,
        class_order=found.class_order,
    )
    named = dict(config.labels) or dict(found.labels)
    name = found.name or root.resolve().name
    return Manifest(name, root, tuple(cases), named, named_by_folders=layout == "dicom", intake=intake)


def _check_left_out(root: Path, config: CohortConfig) -> None:
    """Refuse patterns of files to leave out that stand for none: a slip would count these files as scans."""
    if idle := matches_nothing(root, config.unwanted):
        action = "correct cohort.leave_out; its patterns stand for names of files, with their suffix"
        raise fail(root, f"no file that {idle!r} stands for", "patterns of files to leave out", action)


def _nothing(path: Path, layout: str, globs: Sequence[str]) -> Fault:
    """Nothing found; where scans lie in folders of their own, the patterns that would find them."""
    action = "check the path"
    if globs:
        some = next(([file.name for file in files] for folder in _walked(path) if (files := images_in(folder))), [])
        action = "correct cohort.images" + (f"; there are {shown(some)}" if some else ": there are no images at all")
        return Fault(str(path), f"no images: no file matches {globs[0]!r}", "at least one file", action)
    if path.is_dir() and layout == "folder":
        first = next((file for folder in _walked(path) for file in images_in(folder)), None)
        if first is not None and first.parent.parent == path:
            names = [file.name for file in images_in(first.parent)]
            images, masks = _patterns(names, first.parent.name)
            patterns = " ".join([setting("images", images), *([setting("masks", masks)] if masks else [])])
            listed = f"{first.parent.name} holds {shown(names, 5)}"
            action = f"say which files are scans and which are masks ({listed}), for example {patterns}"
        elif first is not None:
            below = first.relative_to(path).as_posix()
            action = f"give the folder that holds the cohort: the first image below this one is {below}"
    return Fault(str(path), "no images", f"a cohort of layout {layout!r}", action)


def _walked(path: Path) -> Iterator[Path]:
    """The folders below one, itself first, without those that are left alone."""
    for folder, folders, _ in os.walk(path):
        folders[:] = sorted(name for name in folders if not left_alone(Path(name)))
        yield Path(folder)


def _patterns(names: Sequence[str], folder: str) -> tuple[str, str]:
    """Globs for the scan and for its mask, "" if there is none, where every case has a folder with such names."""
    marked = [name for name in names if mask_base(io.stem(name)) or is_mask_word(io.stem(name))]
    scans = [name for name in names if name not in marked] or list(names)
    bases = [mask_base(io.stem(name)) for name in marked]
    # One that a mask is named after, if there is one.
    scan = next((name for name in scans if io.stem(name) in bases), scans[0])
    mask = next((name for name in marked if mask_base(io.stem(name)) == io.stem(scan)), marked[0] if marked else "")
    if sum(glob_like(name) == glob_like(scan) for name in scans) > 1:
        # Several scans lie together: a folder is no case of its own.
        return f"*/{glob_like(scan)}", f"*/{glob_like(mask)}" if mask else ""
    return _glob(scan, folder), _glob(mask, folder) if mask else ""


def _glob(name: str, folder: str) -> str:
    if name.startswith(folder):
        return f"*/*{name[len(folder) :]}"
    head, separator, tail = name.rpartition("_")
    return f"*/*{separator}{tail}" if separator and any(sign.isdigit() for sign in head) else f"*/{name}"


def _links_out(cases: Iterable[Case], root: Path, roots: Sequence[Path]) -> list[Fault]:
    """Links inside the cohort that lead out of it and of the declared roots: others' files under a harmless name."""
    home = root.resolve()
    allowed = [home, *(folder.resolve() for folder in roots)]
    faults = []
    for file in (file for case in cases for file in case_files(case)):
        # A manifest may name files elsewhere in so many words; then their own folder is their home.
        named = Path(os.path.normpath(file.absolute()))
        at = Path(os.path.normpath(root.absolute()))
        homes = allowed if named.is_relative_to(at) else [*allowed, named.parent.resolve()]
        try:
            real = file.resolve(strict=True)
        except (OSError, RuntimeError, ValueError):
            continue  # whoever reads it says what is wrong
        if not any(real.is_relative_to(folder) for folder in homes):
            declared = setting("roots", json.dumps([str(real.parent)], ensure_ascii=False))
            action = f"copy the file, or declare where links may lead: {declared}"
            faults.append(Fault(str(file), "a link that leaves the cohort", f"files in {root}", action))
    return faults


def _links_nowhere(cases: Sequence[Case], root: Path, leave_out: Sequence[str]) -> list[Fault]:
    """Links in the place of folders that lead nowhere; those of files are refused by whoever reads them."""
    used = {file for case in cases for file in case_files(case)}
    return [
        Fault(str(link), "a link to what is not there", "a file or folder", "restore it, or remove the link")
        for link in lost_folders(root, used, leave_out)
    ]


def _detect(path: Path) -> str:
    """The layout a path looks like."""
    if not path.is_dir():
        if path.suffix.lower() == ".csv":
            return "csv"
        raise fail(path, "a single file", "a cohort folder or manifest CSV", "give the folder that holds it")
    if os.path.lexists(path / "manifest.csv"):
        return "csv"
    if os.path.lexists(path / "dataset.json"):
        return "msd" if says_listed(path, description_of(path)) else "nnunet"
    if _is_bids(path):
        return "bids"
    if any(io.is_image(child) and not _is_dicom_file(child) for child in path.iterdir()) or image_folder(path):
        return "folder"
    if next(io.dicom_folders(path), None) is not None:
        return "dicom"
    return "folder"


def _is_bids(path: Path) -> bool:
    return (path / "dataset_description.json").is_file() or next(path.glob("sub-*/**/*.nii*"), None) is not None


def _is_dicom_file(path: Path) -> bool:
    return path.is_file() and io.is_dicom(path)


def _dicom(path: Path, config: CohortConfig) -> Found:
    """A tree of folders with one series each, such as patient/study/series; or a folder that is itself one series."""
    patients: dict[str, str] = {}
    cases, unnamed = [], 0
    for folder in _whole_series(path):
        patient = io.patient_key(folder)
        unnamed += not patient
        name = safe_id("-".join(folder.relative_to(path).parts) or folder.resolve().name)
        # Two series of one patient must not be parted by a split, but the patient's own number stays in the file.
        cases.append(Case(name, patients.setdefault(patient, name) if patient else name, (folder,)))
    series: dict[str, list[str]] = {}
    for case in cases:
        series.setdefault(case.subject, []).append(case.images[0].relative_to(path).as_posix())
    several = [names for names in series.values() if len(names) > 1]
    decisions = (
        [
            f"{len(several)} of {len(series)} patients have several series each, such as {shown(several[0])}, and each "
            "counts as a scan; if they show different things, give a folder that holds one kind only"
        ]
        if several
        else []
    )
    lost = f"; {unnamed} without one count as another subject each" if unnamed else ""
    by = f"from the PatientID of the DICOM headers{lost}"
    return Found(cases, {}, [], subjects_by=by, decisions=tuple(decisions))


def _whole_series(path: Path) -> list[Path]:
    """Folders that hold one series each: where several parts of a tree hold one, the folder that holds them all."""
    parts: dict[str, list[Path]] = {}
    for folder in io.dicom_folders(path):
        parts.setdefault(io.series_key(folder) or str(folder), []).append(folder)
    tops = {Path(os.path.commonpath(folders)) for folders in parts.values()}
    # A folder below another one belongs to it: reading looks into the folders below.
    return sorted(folder for folder in tops if not any(other in tops for other in folder.parents))


def _folder(path: Path, config: CohortConfig) -> Found:
    """Any folder of images: with patterns, or by what the names suggest."""
    if not path.is_dir():
        raise fail(path, "a single file", "a folder", "give the folder that holds it")
    if config.globs:
        return by_pattern(path, config.globs, config.masks, config.unwanted)
    if config.masks:
        first = next(iter(images_in(path, config.unwanted)), None)
        use = setting("images", glob_like(first.name) if first else "*.nii.gz")
        raise fail(path, "cohort.masks without cohort.images", "both patterns or none", f"set both, for example {use}")
    return by_names(path, config.unwanted)


def _bids(path: Path, config: CohortConfig) -> Found:
    if len(config.globs) > 1:
        found = by_pattern(path, config.globs, config.masks, config.unwanted)
        cases = [replace(case, subject=_participant(case, path)) for case in found.cases]
        return replace(found, cases=cases, subjects_by="from the sub-... of the names")
    return bids(path, next(iter(config.globs.values()), None), config.masks, config.unwanted)


def _participant(case: Case, root: Path) -> str:
    parts = case.images[0].relative_to(root).parts
    return next((part for part in parts if part.startswith("sub-")), case.id)


def _bad_ids(cases: Iterable[Case], path: Path) -> list[Fault]:
    faults: list[Fault] = []
    seen: dict[str, Case] = {}
    for case in cases:
        if not is_safe_id(case.id):
            expected = "letters, digits, '.', '_' and '-'"
            action = f"rename the case, for example {safe_id(case.id)}"
            faults.append(Fault(str(path), f"case id {case.id!r}", expected, action))
        elif other := seen.get(case.id.lower()):
            one, two = map(str, apart(other.images[0], case.images[0]))
            if one != two and unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", two):
                # The same letters, stored as one sign and as two: printed as they are nobody could tell them apart.
                one, two = ascii(one)[1:-1], ascii(two)[1:-1]
            files_of = f" ({one} and {two})" if one != two else ""
            faults.append(Fault(str(path), f"case id {case.id!r} twice{files_of}", "unique ids", "rename one of them"))
        seen.setdefault(case.id.lower(), case)
    return faults


_LAYOUTS: dict[str, Callable[[Path, CohortConfig], Found]] = {
    "csv": lambda path, config: from_csv(path),
    "folder": _folder,
    "msd": lambda path, config: listed(path, config.unwanted),
    "nnunet": lambda path, config: nnunet(path, config.unwanted),
    "bids": _bids,
    "dicom": _dicom,
}
