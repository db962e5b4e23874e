"""DICOM series as volumes: classic slices and enhanced multi-frame objects, through pydicom.

Nothing that could name a patient is kept or quoted: messages hold file names, numbers and modalities.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from medgen.faults import Fault, FaultyDataError, fail
from medgen.io.headers import decode, is_dicom, patient_of, read_header, series_of
from medgen.io.nifti import check_finite
from medgen.io.slices import stack
from medgen.volume import Volume

logger = logging.getLogger(__name__)

T = TypeVar("T")

_EXPECTED = "one DICOM image series"
# Stored values of these modalities are quantities (HU, activity): MONOCHROME1 only says how to display them.
_QUANTITATIVE = ("CT", "PT", "NM")


@dataclass(frozen=True)
class Series:
    """One image series found in a folder.

    Attributes:
        uid: SeriesInstanceUID.
        number: SeriesNumber, or "" where there is none.
        modality: Such as ``"MR"``.
        paths: Its files, sorted by name.
    """

    uid: str
    number: str
    modality: str
    paths: tuple[Path, ...]

    @property
    def files(self) -> int:
        """Number of files."""
        return len(self.paths)

    def __str__(self) -> str:
        return f"series {self.number or '?'} ({self.modality}, {self.files} files, for example {self.paths[0].name})"


def has_dicom(folder: str | Path) -> bool:
    """Whether any file directly in a folder is DICOM."""
    return any(is_dicom(path) for path in _files(Path(folder)))


def list_series(folder: str | Path) -> list[Series]:
    """Find the image series in a folder and its direct subfolders, without reading pixels.

    Returns:
        Series sorted by number, then by the name of their first file; objects without pixels are left out.

    Raises:
        FaultyDataError: If the folder does not exist, or a DICOM file in it cannot be parsed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise fail(folder, "no such folder", _EXPECTED, "check the path")
    paths = _files(folder)
    for child in sorted(folder.iterdir()):
        if child.is_dir() and not child.name.startswith("."):
            paths += _files(child)
    groups: dict[str, list[tuple[str, str, Path]]] = {}
    faults: list[Fault] = []
    for path in paths:
        kind = _collected(series_of, faults, path)
        if kind is not None:
            uid, number, modality = kind
            groups.setdefault(uid, []).append((number, modality, path))
    if faults:
        raise FaultyDataError(faults)
    found = [
        Series(uid, members[0][0], members[0][1], tuple(sorted(path for _, _, path in members)))
        for uid, members in groups.items()
    ]
    return sorted(found, key=lambda item: (int(item.number or 0), item.paths[0].as_posix()))


def read_dicom(path: str | Path) -> Volume:
    """Read one DICOM series as a volume of shape (1, i, j, k): columns, rows, slices along the normal.

    Rescale slope and intercept are applied per slice: integers stay integers where every slope is 1 and every
    intercept whole, else the values are float32. MONOCHROME1 images (dark means high) are inverted, except for CT,
    PT and NM, whose stored values are quantities.

    Args:
        path: A folder (and its direct subfolders) with one series, or one file of a series: its folder is then
            searched for the other files of the same series.

    Raises:
        FaultyDataError: With all that is wrong: no or several series, single or missing slices, irregular spacing,
            gantry tilt, duplicates, mixed orientation, spacing or size, colours, unreadable pixels.
    """
    path = Path(path)
    series = _only_series(path)
    faults: list[Fault] = []
    # One thread: parsing holds the interpreter lock, and two threads take 1.4 times as long as one.
    read = [_collected(read_header, faults, file, str(path)) for file in series.paths]
    headers = [header for header in read if header is not None]
    # What one file of a series lacks, the others lack as a rule: say it once.
    said: dict[str, Fault] = {}
    for header in headers:
        for fault in header.faults:
            said.setdefault(fault.expected, fault)
    faults += said.values()
    if len(kinds := sorted({header.photometric for header in headers})) > 1 and "grey values" not in said:
        faults.append(
            Fault(str(path), f"mixed {' and '.join(kinds)}", "one photometric interpretation", "separate them")
        )
    frames = [frame for header in headers for frame in header.slices]
    result = stack(frames, str(path))
    faults += result.faults if frames else ()
    if result.grid is None or faults:
        raise FaultyDataError(faults or result.faults)
    pixels = [_collected(decode, faults, header) for header in headers]
    if faults:
        raise FaultyDataError(faults)
    order = list(result.order)
    data = np.concatenate([values for values in pixels if values is not None])[order]
    scale = np.array([pair for header in headers for pair in header.scale])[order]
    data = _rescaled(data, scale).transpose(2, 1, 0)
    check_finite(path, data, allow_nan=False)
    if kinds == ["MONOCHROME1"] and series.modality not in _QUANTITATIVE:
        logger.info("%s: MONOCHROME1 image inverted, so that larger values are brighter", path)
        data = data.max() - (data - data.min())
    return Volume(data[None], result.grid)


def _collected(function: Callable[..., T], faults: list[Fault], *arguments: Any) -> T | None:
    """What the function returns; its faults are collected, so that all files are looked at."""
    try:
        return function(*arguments)
    except FaultyDataError as error:
        faults.extend(error.faults)
        return None


def _only_series(path: Path) -> Series:
    """The series a path names, or an error that lists what there is."""
    if path.is_dir():
        found = list_series(path)
        if not found:
            others = sorted(
                item.name for item in path.iterdir() if item.name.endswith((".nii", ".nii.gz", ".nrrd", ".mha"))
            )
            what = f"no DICOM images, but {len(others)} files such as {others[0]}" if others else "no DICOM images"
            action = (
                "give one of these files, or the cohort's folder to a cohort command" if others else "check the path"
            )
            raise fail(path, what, _EXPECTED, action)
        if len(found) > 1:
            listed = "; ".join(str(item) for item in found[:12])
            raise fail(path, f"{len(found)} series: {listed}", _EXPECTED, "give one file of the series you mean")
        return found[0]
    kind = series_of(path)
    if kind is None:
        raise fail(path, "a DICOM object without an image", _EXPECTED, "give a file of an image series")
    uid, number, modality = kind
    mates = tuple(mate for mate in _files(path.parent) if (other := series_of(mate)) and other[0] == uid)
    return Series(uid, number, modality, mates)


def _files(folder: Path) -> list[Path]:
    """Files directly in a folder that start as DICOM, sorted by name."""
    return sorted(
        path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".") and is_dicom(path)
    )


def _rescaled(data: NDArray[Any], scale: NDArray[np.float64]) -> NDArray[Any]:
    """Apply slope and intercept, (slice, 2), to stored values, (slice, row, column)."""
    slope, intercept = scale.T[:, :, None, None]
    if data.dtype.kind in "iu" and (slope == 1).all() and (intercept == np.round(intercept)).all():
        if not intercept.any():
            return data
        wide = data.astype(np.int64 if data.itemsize > 2 else np.int32) + intercept.astype(np.int64)
        small = np.iinfo(np.int16).min <= wide.min() and wide.max() <= np.iinfo(np.int16).max
        return wide.astype(np.int16 if small else np.int32)
    return data.astype(np.float32) * slope.astype(np.float32) + intercept.astype(np.float32)


def patient_key(folder: str | Path) -> str:
    """PatientID of the first DICOM file in a folder, to group series by; never to be stored or shown.

    Returns:
        "" where there is none, or the file is damaged.
    """
    for path in _files(Path(folder))[:1]:
        return _collected(patient_of, [], path) or ""
    return ""
