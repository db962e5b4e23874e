"""DICOM series as volumes: classic slices and enhanced multi-frame objects, through pydicom.

Nothing that could name a patient is kept or quoted: messages hold file names, numbers and modalities.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil
from numpy.typing import NDArray

from medgen.faults import Fault, FaultyDataError, fail
from medgen.io.dicom.consistency import copies, counted, grouped, mixed
from medgen.io.dicom.files import list_files, without_header
from medgen.io.dicom.header import patient_of, read_header
from medgen.io.dicom.identity import Identity, identify, identify_headless
from medgen.io.dicom.pixels import decode
from medgen.io.dicom.slices import stacked
from medgen.io.grids import far
from medgen.io.hounsfield import AIR
from medgen.io.nifti import check_finite
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


def list_series(folder: str | Path) -> list[Series]:
    """Find the scans in a folder and the folders below it, without reading pixels.

    Returns:
        Series sorted by number, then by the name of their first file; objects that are no scan are left out, see
        :func:`dicom_notes`.

    Raises:
        FaultyDataError: If the folder does not exist, or holds files that should be DICOM and cannot be parsed.
    """
    found, faults = _survey(Path(folder))
    if faults:
        raise FaultyDataError(faults)
    return _series(found)


def series_files(path: Path) -> tuple[Path, ...]:
    """The files of the only series in a folder, or of the series that one file belongs to.

    Raises:
        FaultyDataError: If there is no image series, or several.
    """
    return _only_series(path, []).paths


def dicom_notes(path: str | Path) -> list[str]:
    """What a user should know of a folder (or the folder of a file) that can be read: left out, or to be looked at.

    Returns:
        Sentences: objects beside the scan that are no scan, and signs of text or faces in the pixels.
    """
    path = Path(path)
    found, _ = _survey(path) if path.is_dir() else _survey(path.parent, deep=False)
    others = Counter(item.other for _, item in found if item.other)
    flags = Counter(flag for _, item in found for flag in item.flags)
    notes = [f"left out {count} {kind} object(s), which are no scan" for kind, count in sorted(others.items())]
    return notes + [
        f"{count} file(s) with {flag}: look at them before sharing" for flag, count in sorted(flags.items())
    ]


def _survey(folder: Path, *, deep: bool = True) -> tuple[list[tuple[Path, Identity]], list[Fault]]:
    if not folder.is_dir():
        raise fail(folder, "no such folder", _EXPECTED, "check the path")
    listing = list_files(folder, deep=deep)
    faults = list(listing.faults)
    named = [(path, _collected(identify, faults, path)) for path in listing.files]
    found = [(path, item) for path, item in named if item is not None]
    for path in listing.headless:
        # What is no scan is left aside with its file header or without.
        if (item := identify_headless(path)) is not None:
            found.append((path, item))
        else:
            faults.append(without_header(path))
    return found, faults


def _series(found: list[tuple[Path, Identity]]) -> list[Series]:
    groups: dict[str, list[tuple[Path, Identity]]] = {}
    for path, item in found:
        if not item.other:
            groups.setdefault(item.uid, []).append((path, item))
    series = [
        Series(uid, members[0][1].number, members[0][1].modality, tuple(sorted(path for path, _ in members)))
        for uid, members in groups.items()
    ]
    return sorted(series, key=lambda item: (int(item.number or 0), item.paths[0].as_posix()))


def read_dicom(path: str | Path, *, slices: int | None = None) -> Volume:
    """Read one DICOM series as a volume of shape (1, i, j, k): columns, rows, slices along the normal.

    Rescale slope and intercept are applied per slice: integers stay integers where every slope is 1 and every
    intercept whole, else the values are float32. MONOCHROME1 images (dark means high) are inverted, except for CT,
    PT and NM, whose stored values are quantities.

    Args:
        path: A folder (and the folders below it) with one series, or one file of a series: its folder is then
            searched for the other files of the same series.
        slices: How many slices there should be, where that is known.

    Raises:
        FaultyDataError: With all that is wrong: no or several series, single, missing or too many slices, irregular
            spacing, gantry tilt, copies, several volumes in one series, mixed orientation, spacing, size or pixel
            format, colours, truncated or unreadable pixels, files that are not what their names say.
    """
    path = Path(path)
    source = str(path)
    faults: list[Fault] = []
    series = _only_series(path, faults)
    _check_memory(series, source)
    # One thread: parsing holds the interpreter lock, and two threads take 1.4 times as long as one.
    read = [_collected(read_header, faults, file) for file in series.paths]
    headers = [header for header in read if header is not None]
    faults += grouped(headers, source)
    complete = not faults and all(header.slices for header in headers)
    differing, hint = mixed(headers, source)
    faults += differing + copies(headers, source)
    frames = [frame for header in headers for frame in header.slices]
    result = stacked(frames, source, complete=complete, hint=hint)
    faults += result.faults if frames else ()
    step = None if result.grid is None else float(result.grid.spacing[2])
    faults += counted(headers, step, slices, source)
    if result.grid is not None and (distant := far(path, result.grid)) is not None:
        faults += distant.faults
    if result.grid is None or faults:
        raise FaultyDataError(faults or result.faults)
    pixels = [_collected(decode, faults, header.path, header.dataset) for header in headers]
    if faults:
        raise FaultyDataError(faults)
    order = list(result.order)
    data = np.concatenate([values for values in pixels if values is not None])[order]
    scale = np.array([pair for header in headers for pair in header.scale])[order]
    padding = [header.padding for header in headers for _ in header.scale]
    padded = _padded(data, [padding[index] for index in order])
    data = _rescaled(data, scale)
    if padded is not None:
        data = _without_padding(data, padded, series.modality)
    data = data.transpose(2, 1, 0)
    check_finite(path, data, allow_nan=False)
    if headers[0].photometric == "MONOCHROME1" and series.modality not in _QUANTITATIVE:
        logger.info("MONOCHROME1 image inverted, so that larger values are brighter")
        data = data.max() - (data - data.min())
    return Volume(data[None], result.grid)


def _check_memory(series: Series, source: str) -> None:
    """Refuse what would not fit: a file is read whole, and its values are kept beside it."""
    total = 2 * sum(path.stat().st_size for path in series.paths) / (1 << 30)
    free = psutil.virtual_memory().available / (1 << 30)
    if total > free:
        found = f"{total / 2:.1f} GiB of DICOM files, with {free:.1f} GiB of memory free"
        raise fail(source, found, "a series that fits into memory", "use a machine with more memory, or a part of it")


def _collected(function: Callable[..., T], faults: list[Fault], *arguments: Any) -> T | None:
    """What the function returns; its faults are collected, so that all files are looked at."""
    try:
        return function(*arguments)
    except FaultyDataError as error:
        faults.extend(error.faults)
        return None


def _only_series(path: Path, faults: list[Fault]) -> Series:
    """The series a path names, or an error that lists what there is; damaged files are added to the faults."""
    if not path.is_dir():
        kind = identify(path)
        if kind.other:
            raise fail(path, f"an object of kind {kind.other}, not a scan", _EXPECTED, "give a file of an image series")
        found, wrong = _survey(path.parent, deep=False)
        # Files that cannot be read may belong to this series, so they count as its faults.
        faults += wrong
        return next(item for item in _series(found) if item.uid == kind.uid)
    found, wrong = _survey(path)
    series = _series(found)
    faults += wrong
    if len(series) == 1:
        return series[0]
    if series:
        listed = "; ".join(str(item) for item in series[:12])
        faults.append(
            Fault(str(path), f"{len(series)} series: {listed}", _EXPECTED, "give one file of the series you mean")
        )
    elif found:
        kinds = ", ".join(
            f"{count} x {kind}" for kind, count in sorted(Counter(item.other for _, item in found).items())
        )
        action = "give the folder of the scan itself"
        faults.append(Fault(str(path), f"DICOM objects that are no scan: {kinds}", _EXPECTED, action))
    elif not faults:
        others = sorted(
            item.name for item in path.iterdir() if item.name.endswith((".nii", ".nii.gz", ".nrrd", ".mha"))
        )
        what = f"no DICOM images, but {len(others)} files such as {others[0]}" if others else "no DICOM images"
        action = "give one of these files, or the cohort's folder to a cohort command" if others else "check the path"
        faults.append(Fault(str(path), what, _EXPECTED, action))
    raise FaultyDataError(faults)


def _rescaled(data: NDArray[Any], scale: NDArray[np.float64]) -> NDArray[Any]:
    """Apply slope and intercept, (slice, 2), to stored values, (slice, row, column)."""
    slope, intercept = scale.T[:, :, None, None]
    if data.dtype.kind in "iu" and (slope == 1).all() and (intercept == np.round(intercept)).all():
        if not intercept.any():
            return data
        wide = data.astype(np.int64 if data.itemsize > 2 else np.int32) + intercept.astype(np.int64)
        small = np.iinfo(np.int16).min <= wide.min() and wide.max() <= np.iinfo(np.int16).max
        return wide.astype(np.int16 if small else np.int32)
    # What overflows becomes infinite, and is refused as such.
    with np.errstate(over="ignore", invalid="ignore"):
        if data.dtype.kind in "iu" and data.itemsize <= 2:
            return data.astype(np.float32) * slope.astype(np.float32) + intercept.astype(np.float32)
        return (data * slope + intercept).astype(np.float32)


def _padded(data: NDArray[Any], padding: list[tuple[int, int] | None]) -> NDArray[np.bool_] | None:
    """Where stored values, (slice, row, column), are those that stand for no measurement; None if nowhere."""
    mask = np.zeros(data.shape, dtype=bool)
    for values, own, ends in zip(data, mask, padding, strict=True):
        if ends is not None:
            np.logical_and(values >= ends[0], values <= ends[1], out=own)
    return mask if mask.any() and not mask.all() else None


def _without_padding(data: NDArray[Any], padded: NDArray[np.bool_], modality: str) -> NDArray[Any]:
    """Values, (slice, row, column), with padding set to the darkest that was measured: air, in CT.

    A padding value that lies among the measured ones cannot be told from them (headers are wrong, too), and stays.
    """
    low, high = data[~padded].min(), data[~padded].max()
    stand_in = data[padded]
    if ((stand_in >= low) & (stand_in <= high)).any():
        return data
    # A tomogram without its intercept is not in HU: its darkest value is the best that is known of air.
    dark = AIR if modality == "CT" and low < 0 else float(low)
    logger.info("%d voxels of padding set to %g", int(padded.sum()), dark)
    return np.where(padded, data.dtype.type(dark), data)


def patient_key(folder: str | Path) -> str:
    """PatientID of the first scan in a folder and those below, to group series by; never to be stored or shown.

    Returns:
        "" where there is none, or the file is damaged.
    """
    path = _first_scan(folder)
    return "" if path is None else _collected(patient_of, [], path) or ""


def series_key(folder: str | Path) -> str:
    """SeriesInstanceUID of the first scan in a folder; "" where there is none, or all is damaged."""
    path = _first_scan(folder, deep=False)
    item = None if path is None else _collected(identify, [], path)
    return "" if item is None else item.uid


def _first_scan(folder: str | Path, *, deep: bool = True) -> Path | None:
    for path in list_files(folder, deep=deep).files:
        item = _collected(identify, [], path)
        if item is not None and not item.other:
            return path
    return None
