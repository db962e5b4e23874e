"""Cases of a manifest: a CSV that names the files of each case, and a JSON beside it with what else is known."""

from __future__ import annotations

import os
from pathlib import Path

from medgen.data.cases import COLUMNS, Case, Manifest
from medgen.data.layouts.by_file_name import Found
from medgen.data.layouts.dataset_json import channel_names, description_of, label_names, regions_of
from medgen.data.layouts.listing import stored
from medgen.data.layouts.tables import read_table
from medgen.faults import Fault, fail
from medgen.system import files


def from_csv(path: Path) -> Found:
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
    if not os.path.lexists(sidecar) and os.path.lexists(path.parent / "dataset.json"):
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
    if os.path.lexists(_quiet(path)) or _quiet(path) != path:
        return path
    ways = (name, name.replace("\\", "/"))
    return next((found for way in ways if os.path.lexists(found := stored(folder, way))), path)


def _quiet(path: Path) -> Path:
    """The path, or one that exists nowhere instead of one that the system would not even look at."""
    too_long = any(len(os.fsencode(part)) > 255 for part in path.parts)
    return Path(os.devnull) / "absent" if "\0" in str(path) or too_long else path
