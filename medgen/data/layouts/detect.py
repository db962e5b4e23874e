"""From a folder on disk to a manifest: CSV, plain folder, MSD, nnU-Net, BIDS and DICOM layouts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from medgen import io
from medgen.config import Config
from medgen.data.cases import COLUMNS, Case, Manifest, case_files, is_safe_id
from medgen.data.intake import Intake
from medgen.data.layouts.bids import bids
from medgen.data.layouts.by_file_name import Found, by_names, distinct, image_folder, is_mask_word, mask_base, safe_id
from medgen.data.layouts.dataset_json import (
    channel_names,
    description_of,
    label_names,
    listed,
    nnunet,
    regions_of,
    says_listed,
)
from medgen.data.layouts.listing import images_in, left_alone, leftovers, matches_nothing
from medgen.data.layouts.patterns import by_pattern
from medgen.data.layouts.subjects import GROUP, MARK, check_pattern, owned, with_participants
from medgen.data.tables import read_table
from medgen.errors import ConfigError
from medgen.faults import Fault, FaultyDataError, fail
from medgen.system import files
from medgen.system.advice import apart, setting, shown

__all__ = ["CohortConfig", "exists", "load_cohort", "read_table"]

# Of single precision, which images are read as.
_LARGEST = 3.4e38
# How files are read, the same for a cohort and for single scans.
Fill = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST)]
Slices = Annotated[int, Field(ge=1)]


class CohortConfig(Config):
    """How to find the cases of a cohort.

    Attributes:
        layout: Kind of folder; ``auto`` looks at what is there.
        images: Glob for the images of a plain folder or BIDS tree, such as ``"*_T1w.nii.gz"`` or ``"*/*_t1.nii.gz"``;
            what the stars stand for is the case id. Several globs, as a list or by channel name, are channels.
        masks: File of a case's mask relative to the folder, with ``{id}``, such as ``"{id}_labels.nii.gz"``; or a glob
            that varies in the same parts as the images', or names one file in the folder of each image.
        leave_out: Glob, or globs, of files that are no scans of this cohort.
        subjects: CSV beside the data with case id and subject in its first two columns; ``subjects.csv`` is used
            where it is there. Further columns, such as ``age``, ``sex`` and ``scanner``, are kept with the cases.
            Or a pattern for case ids, such as ``"{subject}_V*"`` (``"{subject}"``: each scan shows another subject), or
            a regular expression with a group ``(?P<subject>...)``.
        labels: Name per label value; overrides what the cohort itself declares.
        roots: Further folders that links inside the cohort may lead to; a link to anywhere else is refused.
        fill: Value for image voxels that are NaN or infinite; by default such images are refused.
        unscaled: Take values as stored where the scale (scl_slope) of a NIfTI header is 0 or NaN, as FreeSurfer means
            it; by default such files are refused.
        resample_masks: Bring masks that lie on another grid than their image to its grid (nearest label); by default
            they are refused.
        empty_masks: Take a mask without a labelled voxel as "nothing there"; by default it is a fault.
        slices: How many slices the DICOM series of every case should have; a column ``slices`` of a manifest or
            subject list says it case by case.
    """

    layout: Literal["auto", "csv", "folder", "nnunet", "msd", "bids", "dicom"] = "auto"
    images: str | tuple[str, ...] | dict[str, str] | None = None
    masks: str | None = None
    leave_out: str | tuple[str, ...] = ()
    subjects: str | None = None
    labels: dict[Annotated[int, Field(ge=0, lt=1 << 31)], Annotated[str, Field(min_length=1)]] = Field(
        default_factory=dict
    )
    roots: tuple[Path, ...] = ()
    fill: Fill | None = None
    unscaled: bool = False
    resample_masks: bool = False
    empty_masks: bool = False
    slices: Slices | None = None

    @field_validator("subjects")
    @classmethod
    def _pattern(cls, value: str | None) -> str | None:
        if value and (MARK in value or GROUP in value):
            try:
                check_pattern(value)
            except ConfigError as error:
                raise ValueError(str(error).removeprefix("subjects: ")) from None
        return value

    @property
    def globs(self) -> dict[str, str]:
        """Channel name, or its number, → glob; empty where files are found by their names."""
        if not self.images:
            return {}
        if isinstance(self.images, Mapping):
            return dict(self.images)
        given = (self.images,) if isinstance(self.images, str) else self.images
        return {str(number): glob for number, glob in enumerate(given)}

    @property
    def unwanted(self) -> tuple[str, ...]:
        """The globs of ``leave_out``."""
        return (self.leave_out,) if isinstance(self.leave_out, str) else self.leave_out


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
    if not cases and not faults:
        faults.append(_nothing(source, layout))
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
    moved, empty = config.resample_masks, config.empty_masks
    cases = [
        replace(case, fill=config.fill, unscaled=config.unscaled, resample_mask=moved, empty_mask=empty)
        for case in cases
    ]
    # A manifest names what belongs to it; beside it may lie anything.
    used = [file for case in cases for file in case_files(case)]
    intake = Intake(
        layout=layout,
        chosen=config.layout == "auto",
        subjects=told.source,
        masks=found.masks_by,
        decisions=tuple(decisions),
        left_out=() if layout == "csv" else leftovers(root, used, found.reasons),
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


def _nothing(path: Path, layout: str) -> Fault:
    """Nothing found; where scans lie in folders of their own, the patterns that would find them."""
    action = "check the path"
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
    return _glob(scan, folder), _glob(mask, folder) if mask else ""


def _glob(name: str, folder: str) -> str:
    if name.startswith(folder):
        return f"*/*{name[len(folder) :]}"
    head, separator, tail = name.rpartition("_")
    return f"*/*{separator}{tail}" if separator and any(sign.isdigit() for sign in head) else f"*/{name}"


def exists(path: Path) -> bool:
    """Whether there is anything at a path; no path that the system refuses is an error."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


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


def _csv(path: Path, config: CohortConfig) -> Found:
    """A manifest as :meth:`Manifest.write_csv` writes it."""
    if path.is_dir():
        path = path / "manifest.csv"
    columns, rows = read_table(path)
    missing = [name for name in ("id", "image") if name not in columns]
    if missing:
        found = f"columns {', '.join(columns) or 'none'}"
        raise fail(path, found, f"at least id and image, of {', '.join(COLUMNS)}", "correct the header line")
    cases, faults = [], []
    some_subjects = any(row.get("subject") for _, row in rows)
    for line, row in rows:
        where = f"{path}:{line}"
        names = [name.strip() for name in row["image"].split(";")]
        images = tuple(_named(path.parent, name) for name in names)
        mask = _named(path.parent, row["mask"]) if row.get("mask") else None
        if not row["id"] or not all(names):
            faults.append(Fault(where, "an empty id or image", "both in every line", "complete the line"))
            continue
        if some_subjects and not row["subject"]:
            faults.append(Fault(where, "no subject", "one in every line, or in none", "complete the line"))
        if len({Path(os.path.normpath(image)) for image in images}) < len(images):
            faults.append(Fault(where, "one file for two channels", "a file for each", "correct the line"))
        absent = [file for file in (*images, *([] if mask is None else [mask])) if not os.path.lexists(_quiet(file))]
        faults += [
            Fault(where, f"{_below(file, path.parent)} is not there", "every file of the manifest", "restore it")
            for file in absent
        ]
        if not absent:
            hashes = [text.strip() for text in (row.get("sha256_image") or "").split(";") if text.strip()]
            if hashes and len(hashes) != len(images):
                faults.append(Fault(where, f"{len(hashes)} hashes", f"{len(images)}", "write the manifest again"))
                continue
            base = Manifest("", path.parent, ())
            sha256 = {base.key(file): value for file, value in zip(images, hashes, strict=False)}
            if mask is not None and row.get("sha256_mask"):
                sha256[base.key(mask)] = row["sha256_mask"]
            extra = {name: row[name] for name in columns if name not in COLUMNS and row[name]}
            cases.append(Case(row["id"], row.get("subject") or "", images, mask, extra, sha256))
    sidecar = path.with_suffix(".json")
    about = files.read_json(sidecar) if os.path.lexists(sidecar) else {}
    if not isinstance(about, dict) or not isinstance(about.get("name", ""), str):
        raise fail(sidecar, str(about)[:80], "an object with name and labels", "correct it, or rename what it is not")
    name = about.get("name") or path.parent.resolve().name
    regions = about.get("regions")
    try:
        told = regions_of(regions)
    except (TypeError, ValueError):
        raise fail(sidecar, f"regions {str(regions)[:80]}", "names and lists of numbers", "correct it") from None
    labels = label_names(about.get("labels"), sidecar)
    if not os.path.lexists(sidecar) and (path.parent / "dataset.json").is_file():
        # A manifest that somebody wrote into such a folder; the numbers in its masks mean what they meant before.
        described = description_of(path.parent).get("labels")
        labels, told = label_names(described, path.parent / "dataset.json"), regions_of(described)
    return Found(
        cases,
        labels,
        faults,
        name,
        channels=channel_names({"channel_names": about.get("channels")}),
        regions=told,
        class_order=tuple(about.get("class_order") or ()) if told else (),
        masks_by="the column mask",
        subjects_by="from the column subject" if some_subjects else "",
    )


def _below(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else str(file)


def _named(folder: Path, name: str) -> Path:
    """A file of a manifest; one that was written on Windows has other slashes."""
    path = folder / name
    if "\\" in name and not os.path.lexists(_quiet(path)):
        other = folder / name.replace("\\", "/")
        return other if os.path.lexists(_quiet(other)) else path
    return path


def _quiet(path: Path) -> Path:
    """The path, or one that exists nowhere instead of one that the system would not even look at."""
    too_long = any(len(os.fsencode(part)) > 255 for part in path.parts)
    return Path(os.devnull) / "absent" if "\0" in str(path) or too_long else path


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
    lost = f"; {unnamed} without one count as another subject each" if unnamed else ""
    return Found(cases, {}, [], subjects_by=f"from the PatientID of the DICOM headers{lost}")


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
        use = setting("images", "*_T1w.nii.gz")
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
            faults.append(Fault(str(path), f"case id {case.id!r}", expected, "rename the case"))
        elif other := seen.get(case.id.lower()):
            one, two = apart(other.images[0], case.images[0])
            files_of = f" ({one} and {two})" if one != two else ""
            faults.append(Fault(str(path), f"case id {case.id!r} twice{files_of}", "unique ids", "rename one of them"))
        seen.setdefault(case.id.lower(), case)
    return faults


_LAYOUTS: dict[str, Callable[[Path, CohortConfig], Found]] = {
    "csv": _csv,
    "folder": _folder,
    "msd": lambda path, config: listed(path, config.unwanted),
    "nnunet": lambda path, config: nnunet(path, config.unwanted),
    "bids": _bids,
    "dicom": _dicom,
}
