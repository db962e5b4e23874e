"""Medical Segmentation Decathlon and nnU-Net folders, which a ``dataset.json`` describes."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medgen import io
from medgen.data.annotation import IGNORE
from medgen.data.cases import Case
from medgen.data.layouts.by_file_name import Found, safe_id
from medgen.data.layouts.listing import images_in, is_left_out, stored
from medgen.faults import Fault, fail
from medgen.system import files

_UNLABELLED_FOLDERS = ("imagesTs", "imagesUnlabelled")


def description_of(folder: Path) -> dict[str, Any]:
    """The content of a folder's ``dataset.json``."""
    path = folder / "dataset.json"
    data = files.read_json(path)
    if not isinstance(data, dict):
        raise fail(path, f"a JSON {type(data).__name__}", "an object", "see the layout's description")
    return data


def label_names(declared: Any, path: Path) -> dict[int, str]:
    """Label names of a ``dataset.json``: ``{"1": "name"}`` (MSD) or ``{"name": 1}``, regions as lists (nnU-Net).

    A number of several regions has the name of the smallest; where this holds further regions, the number is its rest.
    """
    labels: dict[int, str] = {}
    named: set[int] = set()
    if declared is None:
        return labels
    if not isinstance(declared, Mapping):
        raise fail(path, f"labels {str(declared)[:120]}", "numbers and names", "correct them")
    try:
        for key, value in declared.items():
            if isinstance(value, list):
                continue
            number, name = (_label(key), value) if isinstance(value, str) else (_label(value), str(key))
            if number in named:
                raise ValueError
            named.add(number)
            labels[number] = name
        regions = regions_of(declared)
    except (TypeError, ValueError):
        raise fail(path, f"labels {str(declared)[:120]}", "numbers and names", "correct dataset.json") from None
    owner: dict[int, str] = {}
    for name, numbers in sorted(regions.items(), key=lambda item: -len(item[1])):
        owner |= dict.fromkeys(numbers, name)
    for number, name in owner.items():
        own = [other for other, region in owner.items() if region == name]
        rest = name if len(own) == len(regions[name]) else f"rest of {name}"
        labels.setdefault(number, rest if len(own) == 1 else f"{rest}-{number}")
    labels.pop(0, None)
    return dict(sorted(labels.items()))


def regions_of(declared: Any) -> dict[str, tuple[int, ...]]:
    """Name → label numbers of every region, where labels are regions; empty where each name is one number.

    Raises:
        ValueError: If a number is none.

    >>> regions_of({"background": 0, "whole": [1, 2], "core": 2}), regions_of({"background": 0, "a": 1})
    ({'whole': (1, 2), 'core': (2,)}, {})
    """
    if not isinstance(declared, Mapping) or not any(isinstance(value, list) for value in declared.values()):
        return {}
    regions = {
        str(name): tuple(_label(number) for number in (value if isinstance(value, list) else [value]))
        for name, value in declared.items()
        if not isinstance(value, str)
    }
    return {name: numbers for name, numbers in regions.items() if set(numbers) - {0} and name.lower() != IGNORE}


def channel_names(description: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the image channels in their order; empty where the file does not say.

    >>> channel_names({"channel_names": {"1": "T2", "0": "T1"}}), channel_names({"modality": {"0": "CT"}})
    (('T1', 'T2'), ('CT',))
    """
    names = description.get("channel_names") or description.get("modality")
    if isinstance(names, list):
        return tuple(map(str, names))
    if not isinstance(names, Mapping):
        return ()
    try:
        return tuple(str(names[key]) for key in sorted(names, key=int))
    except (TypeError, ValueError):
        return ()


def says_listed(path: Path, description: Mapping[str, Any]) -> bool:
    """Whether a ``dataset.json`` names every file itself; else files are found by nnU-Net's rules for names."""
    if isinstance(description.get("dataset"), Mapping):
        return True
    training = description.get("training")
    items = [item for item in training if isinstance(item, Mapping)] if isinstance(training, list) else []
    named = [item["image"] for item in items if isinstance(item.get("image"), str | list)]
    for name in named:
        first = name[0] if isinstance(name, list) and name else name
        if not isinstance(first, str) or not _inside(first):
            return True
        # Version 1 of nnU-Net lists names without the number of the channel.
        if os.path.lexists(stored(path, first)):
            return True
        stem = io.stem(first)
        if os.path.lexists((path / first).with_name(f"{stem}_0000{Path(first).name[len(stem) :]}")):
            return False
    if "channel_names" in description or "file_ending" in description:
        return False
    files_there = images_in(path / "imagesTr")
    return bool(named) or not files_there or not all(re.search(r"_\d{4}$", io.stem(file)) for file in files_there)


def _about(description: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """What a ``dataset.json`` says beside the files, as :class:`Found` takes it."""
    labels = description.get("labels")
    names = label_names(labels, where)
    regions = regions_of(labels)
    order = description.get("regions_class_order")
    order = tuple(order) if isinstance(order, list) and all(isinstance(number, int) for number in order) else ()
    made = description.get("medgen")
    return {
        "labels": names,
        "name": str(description.get("name") or ""),
        "channels": channel_names(description),
        "regions": regions,
        "class_order": order if len(order) == len(regions) else (),
        "subjects_by": "medgen: each synthetic scan stands alone"
        if isinstance(made, Mapping) and made.get("synthetic")
        else "",
    }


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


def listed(path: Path, leave_out: Sequence[str] = ()) -> Found:
    """Medical Segmentation Decathlon, and every other ``dataset.json`` that lists image and label of each case.

    Entries are ``training: [{"image": ..., "label": ...}]``, with a list of images for several channels, or
    ``dataset: {case: {"images": [...], "label": ...}}``.
    """
    description = description_of(path)
    where = path / "dataset.json"
    modality = description.get("modality") or description.get("channel_names") or {}
    training = description.get("training") or []
    own = description.get("dataset")
    if isinstance(own, Mapping):
        training = [
            {**item, "image": item.get("images"), "id": str(name)} if isinstance(item, Mapping) else item
            for name, item in own.items()
        ]
    if not isinstance(modality, Mapping | list) or not isinstance(training, list):
        raise fail(where, "modality or training of a wrong type", "a mapping and a list", "correct dataset.json")
    channels = len(modality) or 1
    cases, faults = [], []
    seen: set[Path] = set()
    for number, item in enumerate(training):
        given = item if isinstance(item, Mapping) else {}
        images = given.get("image")
        wanted = images if isinstance(images, list) and images else [images]
        names = [name for name in wanted if isinstance(name, str)]
        label = None if given.get("label") == "" else given.get("label")
        if len(names) < len(wanted) or not isinstance(label, str | None):
            shown = str(item)[:80]
            faults.append(Fault(str(where), f"training entry {number}: {shown!r}", "image and label", "correct it"))
            continue
        if outside := next((name for name in (*names, label) if name is not None and not _inside(name)), None):
            found = f"training entry {number}: the path {outside[:80]!r}"
            faults.append(Fault(str(where), found, "a path inside the folder", "correct it"))
            continue
        files_of = tuple(stored(path, name) for name in names)
        mask = None if label is None else stored(path, label)
        seen |= {Path(os.path.normpath(image)) for image in files_of}
        absent = [file for file in (*files_of, mask) if file is not None and not os.path.lexists(file)]
        faults += [Fault(str(file), "is not there", "every file of dataset.json", "restore it") for file in absent]
        if absent or is_left_out(files_of[0], path, leave_out):
            continue
        attributes = {"channels": str(channels)} if channels > 1 and len(files_of) == 1 else {}
        cases.append(Case(safe_id(given.get("id") or io.stem(files_of[0])), "", files_of, mask, attributes))
    alone = {"channels": str(channels)} if channels > 1 else {}
    for folder in ("imagesTr", *_UNLABELLED_FOLDERS):
        extra = [file for file in images_in(path / folder, leave_out) if Path(os.path.normpath(file)) not in seen]
        if folder == "imagesTr" and extra and seen:
            found = f"{len(extra)} files that dataset.json does not list, such as {extra[0].name}"
            faults.append(Fault(str(path / folder), found, "every training image listed", "list or remove them"))
        elif folder != "imagesTr" and all(len(case.images) == 1 for case in cases):
            cases += [Case(safe_id(io.stem(file)), "", (file,), None, alone) for file in extra]
    faults += _counted(description, where, len(training))
    return Found(cases=cases, faults=faults, masks_by="dataset.json", **_about(description, where))


def _inside(name: str) -> bool:
    """Whether a path of a ``dataset.json`` stays in its folder."""
    parts = Path(name).parts
    try:
        long = any(len(os.fsencode(part)) > 255 for part in parts)
    except UnicodeEncodeError:
        return False
    return not (Path(name).is_absolute() or ".." in parts or "\0" in name or long or not parts)


def nnunet(path: Path, leave_out: Sequence[str] = ()) -> Found:
    """nnU-Net raw data, version 1 or 2: ``imagesTr/<case>_0000<ending>`` per channel, ``labelsTr/<case><ending>``."""
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
    # Also cases whose channels are wrong: their masks are not alone.
    known: set[str] = set()
    for images, labels in (("imagesTr", "labelsTr"), ("imagesTs", "labelsTs"), ("imagesUnlabelled", "")):
        groups: dict[str, dict[str, Path]] = defaultdict(dict)
        there = images_in(path / images, leave_out)
        if other := _other_ending(there, ending):
            found = f"file_ending {ending!r}, but files in {images} end with {other!r}"
            fault = Fault(str(where), found, "the ending of all files", f"write {other!r}, or convert the files")
            return Found(cases=[], faults=[fault], **_about(description, where))
        for file in there:
            match = re.fullmatch(rf"(.+)_(\d{{4}}){re.escape(ending)}", file.name)
            if match is None:
                expected = f"<case>_0000{ending}, _0001, ..."
                faults.append(Fault(str(file), "a name without channel number", expected, "rename it"))
            else:
                groups[match[1]][match[2]] = file
        known |= {unicodedata.normalize("NFC", case) for case in groups}
        for case, channels in sorted(groups.items()):
            if sorted(channels) != wanted:
                found = f"channels {', '.join(sorted(channels))} of case {case}"
                faults.append(Fault(str(path / images), found, ", ".join(wanted), "add or remove files"))
                continue
            mask: Path | None = stored(path / labels, f"{case}{ending}")
            if not labels or not os.path.lexists(mask or path):
                mask = None
                if labels == "labelsTr":
                    faults.append(Fault(str(path / labels), f"no mask of case {case}", f"{case}{ending}", "restore it"))
            cases.append(Case(safe_id(case), "", tuple(channels[number] for number in wanted), mask))
    training = {file.name.rpartition("_")[0] for file in images_in(path / "imagesTr")}
    faults += _counted(description, where, len(training))
    said = {fault.expected for fault in faults}
    faults += [
        Fault(str(file), "a mask without image", "an image for every mask", "add or remove files")
        for file in images_in(path / "labelsTr", leave_out)
        if unicodedata.normalize("NFC", io.stem(file)) not in known and file.name not in said
    ]
    return Found(cases=cases, faults=faults, masks_by="the folder labelsTr", **_about(description, where))


def _other_ending(there: Sequence[Path], ending: str) -> str:
    """The ending that all images have instead of the declared one; empty where some have that, or theirs differ."""
    endings = {match[1] for file in there if (match := re.fullmatch(r".+_\d{4}(\..+)", file.name))}
    return next(iter(endings)) if len(endings) == 1 and ending not in endings else ""
