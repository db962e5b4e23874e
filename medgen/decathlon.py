"""Medical Segmentation Decathlon and nnU-Net folders, which a ``dataset.json`` describes."""

from __future__ import annotations

import os
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
    named: set[int] = set()
    if declared is None:
        return labels
    if not isinstance(declared, Mapping):
        raise fail(path, f"labels {str(declared)[:120]}", "numbers and names", "correct them")
    try:
        for key, value in declared.items():
            if isinstance(value, list):
                for number in value:
                    labels.setdefault(_label(number), f"{key}-{number}" if len(value) > 1 else str(key))
                continue
            number, name = (_label(key), value) if isinstance(value, str) else (_label(value), str(key))
            if number in named:
                raise ValueError
            named.add(number)
            labels[number] = name
    except (TypeError, ValueError):
        raise fail(path, f"labels {str(declared)[:120]}", "numbers and names", "correct dataset.json") from None
    labels.pop(0, None)
    return dict(sorted(labels.items()))


def _label(value: Any) -> int:
    number = int(value)
    if isinstance(value, bool) or number != float(value) or not 0 <= number < 1 << 31:
        raise ValueError
    return number


def _counted(description: Mapping[str, Any], where: Path, found: int) -> list[Fault]:
    """A fault where ``numTraining`` is not the number of training cases there are."""
    declared = description.get("numTraining")
    if declared is None or (declared == found and not isinstance(declared, bool)):
        return []
    fault = Fault(str(where), f"numTraining {str(declared)[:40]}", f"{found} as there are", "add cases, or correct it")
    return [fault]


def msd(path: Path) -> Found:
    """Medical Segmentation Decathlon: ``dataset.json`` lists image and label of every training case."""
    description = description_of(path)
    where = path / "dataset.json"
    modality, training = description.get("modality") or {}, description.get("training") or []
    if not isinstance(modality, Mapping | list) or not isinstance(training, list):
        raise fail(where, "modality or training of a wrong type", "a mapping and a list", "correct dataset.json")
    channels = len(modality) or 1
    attributes = {"channels": str(channels)} if channels > 1 else {}
    cases, faults = [], []
    listed: set[Path] = set()
    for number, item in enumerate(training):
        names = (
            [item.get("image"), None if item.get("label") == "" else item.get("label")]
            if isinstance(item, Mapping)
            else [None]
        )
        if not isinstance(names[0], str) or not isinstance(names[1], str | None):
            shown = str(item)[:80]
            faults.append(Fault(str(where), f"training entry {number}: {shown!r}", "image and label", "correct it"))
            continue
        if outside := next((name for name in names if name is not None and not _inside(name)), None):
            found = f"training entry {number}: the path {outside[:80]!r}"
            faults.append(Fault(str(where), found, "a path inside the folder", "correct it"))
            continue
        image = path / names[0]
        mask = None if names[1] is None else path / names[1]
        listed.add(Path(os.path.normpath(image)))
        absent = [file for file in (image, mask) if file is not None and not os.path.lexists(file)]
        faults += [Fault(str(file), "is not there", "every file of dataset.json", "restore it") for file in absent]
        if not absent:
            cases.append(Case(safe_id(io.stem(image)), "", (image,), mask, attributes))
    for folder in ("imagesTr", *_UNLABELLED_FOLDERS):
        extra = [file for file in images_in(path / folder) if Path(os.path.normpath(file)) not in listed]
        if folder == "imagesTr" and extra and listed:
            found = f"{len(extra)} files that dataset.json does not list, such as {extra[0].name}"
            faults.append(Fault(str(path / folder), found, "every training image listed", "list or remove them"))
        elif folder != "imagesTr":
            cases += [Case(safe_id(io.stem(file)), "", (file,), None, attributes) for file in extra]
    faults += _counted(description, where, len(training))
    return Found(cases, label_names(description.get("labels"), where), faults, str(description.get("name") or ""))


def _inside(name: str) -> bool:
    """Whether a path of a ``dataset.json`` stays in its folder."""
    parts = Path(name).parts
    long = any(len(os.fsencode(part)) > 255 for part in parts)
    return not (Path(name).is_absolute() or ".." in parts or "\0" in name or long or not parts)


def nnunet(path: Path) -> Found:
    """nnU-Net v2 raw data: ``imagesTr/<case>_0000<ending>`` per channel and ``labelsTr/<case><ending>``."""
    description = description_of(path)
    where = path / "dataset.json"
    ending = str(description.get("file_ending", ".nii.gz"))
    names = description.get("channel_names") or description.get("modality") or {"0": "image"}
    try:
        numbers = sorted(int(number) for number in names)
    except (TypeError, ValueError):
        numbers = []
    if not isinstance(names, Mapping) or numbers != list(range(len(names))) or "/" in ending or not ending:
        found = f"channel_names {str(names)[:80]} and file_ending {ending[:20]!r}"
        raise fail(where, found, "names of channels 0, 1, ...", "correct dataset.json")
    wanted = [f"{number:04d}" for number in numbers]
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
            if not labels or not os.path.lexists(path / labels / f"{case}{ending}"):
                mask = None
                if labels == "labelsTr":
                    faults.append(Fault(str(path / labels), f"no mask of case {case}", f"{case}{ending}", "restore it"))
            cases.append(Case(safe_id(case), "", tuple(channels[number] for number in wanted), mask))
    training = {file.name.rpartition("_")[0] for file in images_in(path / "imagesTr")}
    faults += _counted(description, where, len(training))
    known = {image.name.rsplit("_", 1)[0] for case in cases for image in case.images}
    for file in images_in(path / "labelsTr"):
        if io.stem(file) not in known and not any(file.name in fault.expected for fault in faults):
            faults.append(Fault(str(file), "a mask without image", "an image for every mask", "add or remove files"))
    return Found(cases, label_names(description.get("labels"), where), faults, str(description.get("name") or ""))
