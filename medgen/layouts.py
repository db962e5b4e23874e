"""From a folder on disk to a manifest: CSV, plain folder, MSD, nnU-Net, BIDS and DICOM layouts."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from medgen import files, io
from medgen.cases import COLUMNS, Case, Manifest, case_files, is_safe_id
from medgen.config import Config
from medgen.decathlon import description_of, label_names, msd, nnunet
from medgen.errors import DataError
from medgen.faults import Fault, FaultyDataError, fail
from medgen.naming import Found, bids, by_names, by_pattern, image_folder, safe_id

# Of single precision, which images are read as.
_LARGEST = 3.4e38
# How files are read, the same for a cohort and for single scans.
Fill = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST)]
Slices = Annotated[int, Field(ge=1)]


class CohortConfig(Config):
    """How to find the cases of a cohort.

    Attributes:
        layout: Kind of folder; ``auto`` looks at what is there.
        images: Glob for the images of a plain folder or BIDS tree, such as ``"*_T1w.nii.gz"``; what ``*`` stands
            for is the case id.
        masks: File of a case's mask relative to the folder, with ``{id}``, such as ``"{id}_labels.nii.gz"``.
        subjects: CSV beside the data with case id and subject in its first two columns; ``subjects.csv`` is used
            where it is there. Further columns, such as ``age``, ``sex`` and ``scanner``, are kept with the cases.
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
    images: str | None = None
    masks: str | None = None
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


_DEFAULT = CohortConfig()
_LARGEST_TABLE = 64 << 20


def load_cohort(path: str | Path, config: CohortConfig = _DEFAULT) -> Manifest:
    """Find the cases of a cohort and whom they belong to, without opening any image.

    Args:
        path: A folder, a manifest CSV, or a ``dataset.json``.
        config: Layout and patterns.

    Returns:
        The manifest, sorted by case id except for a CSV, which keeps its order. Cases of MSD and nnU-Net folders
        without labels (``imagesTs``, ``imagesUnlabelled``) have no mask. Without a subject list each case is its own
        subject, except in BIDS (``sub-...``) and DICOM (grouped by PatientID, which itself is not kept).

    Raises:
        FaultyDataError: A :class:`medgen.errors.DataError` with everything that is wrong with the layout: nothing
            found, missing files, ambiguous names, unknown subjects, unsafe or double ids.
    """
    path = Path(path)
    if not exists(path):
        raise fail(path, "no such file or folder", "a cohort folder or manifest CSV", "check the path")
    if path.name == "dataset.json":
        path = path.parent
    if lost := next((folder for folder in config.roots if not folder.is_dir()), None):
        raise fail(lost, "no such folder", "a folder that links may lead to", "correct cohort.roots (--root)")
    layout: str = config.layout
    if layout == "auto" and (path.is_file() or not config.images):
        layout = _detect(path)
    if layout == "auto":
        layout = "bids" if (path / "dataset_description.json").is_file() else "folder"
    if config.masks and not config.images and layout not in ("folder", "bids"):
        found = f"cohort.masks (--masks) for layout {layout!r}, which says itself where masks are"
        raise fail(path, found, "a pattern for plain folders only", "leave it out, or set cohort.images too")
    try:
        cases, labels, faults, name = _LAYOUTS[layout](path, config)
    except (OSError, ValueError, NotImplementedError) as error:
        # A pattern that is no pattern, names that are too long, folders that may not be opened.
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        raise fail(
            path, f"cannot be searched ({reason[:120]})", "a cohort folder", "correct the path or pattern"
        ) from None
    root = path if path.is_dir() else path.parent
    source = path / "manifest.csv" if layout == "csv" and path.is_dir() else path
    faults += _links_out(cases, root, config.roots)
    if not cases and not faults:
        action = "check the path, or set cohort.layout and cohort.images"
        faults.append(Fault(str(source), "no images found", f"a cohort of layout {layout!r}", action))
    if layout == "bids":
        cases = _with_participants(cases, root)
    cases, wrong = _with_subjects(cases, root, config, layout)
    faults += wrong + _bad_ids(cases, source)
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
    named = dict(config.labels) or labels
    return Manifest(name or root.resolve().name, root, tuple(cases), named, named_by_folders=layout == "dicom")


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
            action = "copy the file, or declare where links may lead (cohort.roots, --root)"
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
        description = description_of(path)
        return "nnunet" if "channel_names" in description or "file_ending" in description else "msd"
    if (path / "dataset_description.json").is_file() or next(path.glob("sub-*/**/*.nii*"), None):
        return "bids"
    if any(io.is_image(child) and not _is_dicom_file(child) for child in path.iterdir()) or image_folder(path):
        return "folder"
    if next(io.dicom_folders(path), None) is not None:
        return "dicom"
    return "folder"


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
        images = tuple(path.parent / name for name in names)
        mask = path.parent / row["mask"] if row.get("mask") else None
        if not row["id"] or not all(names):
            faults.append(Fault(where, "an empty id or image", "both in every line", "complete the line"))
            continue
        if some_subjects and not row["subject"]:
            faults.append(Fault(where, "no subject", "one in every line, or in none", "complete the line"))
        if len({Path(os.path.normpath(image)) for image in images}) < len(images):
            faults.append(Fault(where, "one file for two channels", "a file for each", "correct the line"))
        absent = [file for file in (*images, *([] if mask is None else [mask])) if not os.path.lexists(_quiet(file))]
        faults += [
            Fault(where, f"{file.name} is not there", "every file of the manifest", "restore it") for file in absent
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
            cases.append(Case(row["id"], row.get("subject") or row["id"], images, mask, extra, sha256))
    sidecar = path.with_suffix(".json")
    about = files.read_json(sidecar) if os.path.lexists(sidecar) else {}
    if not isinstance(about, dict) or not isinstance(about.get("name", ""), str):
        raise fail(sidecar, str(about)[:80], "an object with name and labels", "correct it, or rename what it is not")
    name = about.get("name") or path.parent.resolve().name
    return Found(cases, label_names(about.get("labels"), sidecar), faults, name)


def read_table(path: Path, delimiter: str = ",") -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Header and (line number, cells by column) of a CSV or TSV file; empty lines are left out.

    Raises:
        FaultyDataError: If it is no such UTF-8 file, a line has another number of cells, or a column occurs twice.
    """
    kind = "CSV" if delimiter == "," else "TSV"
    expected, action = f"a UTF-8 {kind} file with a header", "check the file"
    try:
        text = files.read_text(path, _LARGEST_TABLE)
        # Line ends inside of quotes stay as they are.
        reader = csv.reader(StringIO(text.removeprefix("\ufeff"), newline=""), delimiter=delimiter, strict=True)
        header = [name.strip() for name in next(reader, [])]
        rows = []
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                found, wanted = f"{len(cells)} cells", f"{len(header)} as in the header"
                raise fail(f"{path}:{reader.line_num}", found, wanted, "correct the line")
            values = [cell.strip() for cell in cells]
            if wrong := next((cell for cell in values if not _plain_cell(cell)), None):
                raise fail(f"{path}:{reader.line_num}", f"the cell {wrong[:60]!r}", "plain text", "correct the line")
            plain = (files.unescaped(cell) for cell in values)
            rows.append((reader.line_num, dict(zip(header, plain, strict=True))))
    except csv.Error as error:
        raise fail(path, f"cannot be read ({error})", expected, action) from None
    except FaultyDataError:
        raise
    except DataError as error:
        raise fail(path, str(error).removeprefix(f"{path}: "), expected, action) from None
    if len(set(header)) != len(header):
        raise fail(path, f"columns {', '.join(header)}", "each column once", "correct the header line")
    return header, rows


def _plain_cell(cell: str) -> bool:
    """Whether a cell is text alone: no control characters, and nothing that a spreadsheet would run as a formula."""
    if not cell.isprintable():
        return False
    return not cell or cell[0] not in "=+-@" or not (cell[0] == "=" or any(sign in cell for sign in "(|!"))


def _quiet(path: Path) -> Path:
    """The path, or one that exists nowhere instead of one that the system would not even look at."""
    too_long = any(len(os.fsencode(part)) > 255 for part in path.parts)
    return Path(os.devnull) / "absent" if "\0" in str(path) or too_long else path


def _dicom(path: Path, config: CohortConfig) -> Found:
    """A tree of folders with one series each, such as patient/study/series; or a folder that is itself one series."""
    patients: dict[str, str] = {}
    cases = []
    for folder in _whole_series(path):
        patient = io.patient_key(folder)
        name = safe_id("-".join(folder.relative_to(path).parts) or folder.resolve().name)
        # Two series of one patient must not be parted by a split, but the patient's own number stays in the file.
        cases.append(Case(name, patients.setdefault(patient, name) if patient else name, (folder,)))
    return Found(cases, {}, [])


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
    if config.images:
        return by_pattern(path, config.images, config.masks)
    if config.masks:
        raise fail(path, "cohort.masks without cohort.images", "both patterns or none", "set cohort.images too")
    return by_names(path)


def _with_subjects(cases: list[Case], root: Path, config: CohortConfig, layout: str) -> tuple[list[Case], list[Fault]]:
    """Fill in the subjects from the list beside the data; each case is its own subject where there is none."""
    path = root / (config.subjects or "subjects.csv")
    own = [replace(case, subject=case.subject or case.id) for case in cases]
    # A link that leads nowhere or a pipe is refused when it is read, not taken for no list.
    if not os.path.lexists(path):
        if config.subjects:
            return own, [Fault(str(path), "no such file", "the subject list", "correct cohort.subjects")]
        return own, []
    if layout == "csv" and not config.subjects:
        return own, []  # the manifest itself says
    columns, rows = read_table(path)
    if len(columns) < 2:
        return own, [Fault(str(path), f"{len(columns)} columns", "case id and subject", "correct the file")]
    owners: dict[str, str] = {}
    about: dict[str, dict[str, str]] = {}
    faults = []
    for line, row in rows:
        case, subject = row[columns[0]], row[columns[1]]
        if not case or not subject or owners.setdefault(case, subject) != subject:
            found = f"case {case!r} with subject {subject!r}" + (" as well" if case in owners else "")
            faults.append(Fault(f"{path}:{line}", found, "one subject for each case", "correct the line"))
        about[case] = {name: row[name] for name in columns[2:] if name and name not in COLUMNS and row[name]}
    absent = [case.id for case in cases if case.id not in owners]
    if absent:
        found = f"no subject for {len(absent)} of {len(cases)} cases, such as {absent[0]}"
        faults.append(Fault(str(path), found, "a line for every case", "add them, in the first column as the case id"))
    return [
        replace(
            case,
            subject=owners.get(case.id, case.id),
            attributes={**about.get(case.id, {}), **case.attributes},
        )
        for case in cases
    ], faults


def _with_participants(cases: list[Case], root: Path) -> list[Case]:
    """What the ``participants.tsv`` of a BIDS cohort, where there is one, says of each subject.

    Raises:
        FaultyDataError: If it is no such table, or lists a participant twice.
    """
    path = root / "participants.tsv"
    if not path.is_file():
        return cases
    columns, rows = read_table(path, "\t")
    if columns[:1] != ["participant_id"]:
        raise fail(path, f"first column {columns[0] if columns else ''!r}", "participant_id", "correct the header line")
    about: dict[str, dict[str, str]] = {}
    for line, row in rows:
        name = row["participant_id"]
        if name in about:
            raise fail(f"{path}:{line}", f"participant {name!r} twice", "one line for each", "remove one of them")
        known = {key: value for key, value in row.items() if value and value.lower() != "n/a"}
        about[name] = {key: value for key, value in known.items() if key and key not in ("participant_id", *COLUMNS)}
    return [replace(case, attributes={**about.get(case.subject, {}), **case.attributes}) for case in cases]


def _bad_ids(cases: Iterable[Case], path: Path) -> list[Fault]:
    faults, seen = [], set()
    for case in cases:
        if not is_safe_id(case.id):
            expected = "letters, digits, '.', '_' and '-'"
            faults.append(Fault(str(path), f"case id {case.id!r}", expected, "rename the case"))
        elif case.id.lower() in seen:
            faults.append(Fault(str(path), f"case id {case.id!r} twice", "unique ids", "rename one of the files"))
        seen.add(case.id.lower())
    return faults


_LAYOUTS: dict[str, Callable[[Path, CohortConfig], Found]] = {
    "csv": _csv,
    "folder": _folder,
    "msd": lambda path, _: msd(path),
    "nnunet": lambda path, _: nnunet(path),
    "bids": lambda path, config: bids(path, config.images, config.masks),
    "dicom": _dicom,
}
