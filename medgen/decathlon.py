"""Medical Segmentation Decathlon and nnU-Net folders, which a ``dataset.json`` describes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medgen import files, io
from medgen.cases import Case
from medgen.faults import Fault, fail
from medgen.naming import Found, images_in, safe_id

_UNLABELLED_FOLDERS = ("imagesTs", "imagesUnlabelled")


def description_of(folder: Path) -> dict[str, Any]:
    """The content of a folder's ``dataset.json``."""
    path = folder / "dataset.json"
    data = files.read_json(path)
    if not isinstance(data, dict):
        raise fail(path, f"a JSON {type(data).__name__}", "an object", "see the layout's description")
    return data


def label_names(declared: Any, path: Path) -> dict[int, str]:
    """Label names of a ``dataset.json``: ``{"1": "name"}`` (MSD) or ``{"name": 1}``, regions as lists (nnU-Net)."""
    labels: dict[int, str] = {}
    if not isinstance(declared, Mapping):
        return labels
    try:
        for key, value in declared.items():
            if isinstance(value, str):
                labels[int(key)] = value
            elif isinstance(value, list):
                for number in value:
                    labels.setdefault(int(number), f"{key}-{number}" if len(value) > 1 else str(key))
            else:
                labels[int(value)] = str(key)
    except (TypeError, ValueError):
        raise fail(path, f"labels {declared}", "numbers and names", "correct dataset.json") from None
    labels.pop(0, None)
    return dict(sorted(labels.items()))


def msd(path: Path) -> Found:
    """Medical Segmentation Decathlon: ``dataset.json`` lists image and label of every training case."""
    description = description_of(path)
    where = path / "dataset.json"
    channels = len(description.get("modality") or {}) or 1
    attributes = {"channels": str(channels)} if channels > 1 else {}
    cases, faults = [], []
    listed: set[Path] = set()
    for number, item in enumerate(description.get("training") or []):
        if not isinstance(item, Mapping) or not isinstance(item.get("image"), str):
            faults.append(Fault(str(where), f"training entry {number}: {item!r}", "image and label", "correct it"))
            continue
        image = path / item["image"]
        mask = path / item["label"] if item.get("label") else None
        listed.add(image.resolve())
        absent = [file for file in (image, mask) if file is not None and not file.is_file()]
        faults += [Fault(str(file), "is not there", "every file of dataset.json", "restore it") for file in absent]
        if not absent:
            cases.append(Case(safe_id(io.stem(image)), "", (image,), mask, attributes))
    for folder in ("imagesTr", *_UNLABELLED_FOLDERS):
        extra = [file for file in images_in(path / folder) if file.resolve() not in listed]
        if folder == "imagesTr" and extra and listed:
            found = f"{len(extra)} files that dataset.json does not list, such as {extra[0].name}"
            faults.append(Fault(str(path / folder), found, "every training image listed", "list or remove them"))
        elif folder != "imagesTr":
            cases += [Case(safe_id(io.stem(file)), "", (file,), None, attributes) for file in extra]
    return Found(cases, label_names(description.get("labels"), where), faults, str(description.get("name") or ""))


def nnunet(path: Path) -> Found:
    """nnU-Net v2 raw data: ``imagesTr/<case>_0000<ending>`` per channel and ``labelsTr/<case><ending>``."""
    description = description_of(path)
    where = path / "dataset.json"
    ending = str(description.get("file_ending") or ".nii.gz")
    names = description.get("channel_names") or description.get("modality") or {"0": "image"}
    wanted = [f"{int(number):04d}" for number in sorted(names, key=int)]
    cases, faults = [], []
    for images, labels in (("imagesTr", "labelsTr"), ("imagesTs", "labelsTs"), ("imagesUnlabelled", "")):
        groups: dict[str, dict[str, Path]] = defaultdict(dict)
        for file in images_in(path / images):
            match = re.fullmatch(rf"(.+)_(\d{{4}}){re.escape(ending)}", file.name)
            if match is None:
                expected = f"<case>_0000{ending}, _0001, ..."
                faults.append(Fault(str(file), "a name without channel number", expected, "rename it"))
            else:
                groups[match[1]][match[2]] = file
        for case, channels in sorted(groups.items()):
            if sorted(channels) != wanted:
                found = f"channels {', '.join(sorted(channels))} of case {case}"
                faults.append(Fault(str(path / images), found, ", ".join(wanted), "add or remove files"))
                continue
            mask: Path | None = path / labels / f"{case}{ending}"
            if not labels or not (path / labels / f"{case}{ending}").is_file():
                mask = None
                if labels == "labelsTr":
                    faults.append(Fault(str(path / labels), f"no mask of case {case}", f"{case}{ending}", "restore it"))
            cases.append(Case(safe_id(case), "", tuple(channels[number] for number in wanted), mask))
    known = {image.name.rsplit("_", 1)[0] for case in cases for image in case.images}
    for file in images_in(path / "labelsTr"):
        if io.stem(file) not in known and not any(file.name in fault.expected for fault in faults):
            faults.append(Fault(str(file), "a mask without image", "an image for every mask", "add or remove files"))
    return Found(cases, label_names(description.get("labels"), where), faults, str(description.get("name") or ""))
