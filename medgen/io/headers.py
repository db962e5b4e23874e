"""One DICOM file at a time: what its header says, and its pixels. All that can be damaged in a file is caught here.

pydicom converts values when they are first asked for, so a header is taken apart in one guarded place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from medgen.faults import Fault, fail
from medgen.io.slices import Slice

T = TypeVar("T")

_GROUPS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
}
_LENGTHS = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}


@dataclass(frozen=True)
class Header:
    """What matters of one file of a series.

    Attributes:
        path: The file.
        dataset: For its pixels.
        photometric: PhotometricInterpretation.
        slices: One per frame; empty where the file does not say where its frames lie.
        scale: Rescale slope and intercept per frame.
        faults: Why the file cannot be used, without its geometry relative to others.
    """

    path: Path
    dataset: Dataset
    photometric: str
    slices: tuple[Slice, ...]
    scale: tuple[tuple[float, float], ...]
    faults: tuple[Fault, ...]


def is_dicom(path: str | Path) -> bool:
    """Whether a file starts as DICOM files do (128 bytes, then ``DICM``)."""
    try:
        with Path(path).open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def series_of(path: Path) -> tuple[str, str, str] | None:
    """Series UID, number and modality of a file; None for DICOM objects without an image (DICOMDIR, reports).

    Raises:
        FaultyDataError: If the file is damaged.
    """

    def look() -> tuple[str, str, str] | None:
        tags = ["SeriesInstanceUID", "SeriesNumber", "Modality", "Rows"]
        dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
        if "Rows" not in dataset:
            # pydicom reads a file that ends early without complaint: an image class without rows is one of these.
            kind = dataset.file_meta.get("MediaStorageSOPClassUID", "")
            if "Image Storage" in getattr(kind, "name", ""):
                raise EOFError
            return None
        number = dataset.get("SeriesNumber")
        uid = str(dataset.get("SeriesInstanceUID", ""))
        return uid, "" if number is None else str(int(number)), str(dataset.get("Modality", "?"))

    return _guarded(path, look)


def patient_of(path: Path) -> str:
    """PatientID of a file, "" if there is none; to group files by, never to be stored or shown.

    Raises:
        FaultyDataError: If the file is damaged.
    """

    def look() -> str:
        dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["PatientID"])
        return str(dataset.get("PatientID") or "")

    return _guarded(path, look)


def read_header(path: Path, source: str) -> Header:
    """Read a file; its pixels are decoded later, by :func:`decode`.

    Args:
        path: A DICOM file with an image.
        source: Name of the series, for the faults.

    Raises:
        FaultyDataError: If the file is damaged.
    """
    return _guarded(path, lambda: _parse(pydicom.dcmread(path), path, source))


def decode(header: Header) -> NDArray[Any]:
    """Stored values of a file, (frame, row, column).

    Raises:
        FaultyDataError: If the pixels are damaged, or compressed in a way that no installed decoder reads.
    """
    try:
        values: NDArray[Any] = header.dataset.pixel_array
    except Exception as error:  # decoders are plug-ins, each with errors of its own
        syntax = getattr(header.dataset.file_meta.get("TransferSyntaxUID"), "name", "")
        kind = "damaged pixels" if "Little Endian" in syntax else f"pixels that cannot be decoded ({syntax})"
        reason = str(error).splitlines()[0][:80] if str(error) else type(error).__name__
        action = "decompress it (gdcmconv --raw), or copy or export it again"
        raise fail(header.path, f"{kind}: {reason}", "readable pixels", action) from None
    return values if values.ndim == 3 else values[None]


def _guarded(path: Path, function: Callable[[], T]) -> T:
    """The function's result; whatever pydicom raises on a damaged file becomes one clear error."""
    try:
        return function()
    except OSError as error:
        reason = error.strerror or "not DICOM"
        raise fail(path, f"cannot be read ({reason})", "a complete DICOM file", "copy or export it again") from None
    except Exception:  # pydicom raises nearly any kind on damaged bytes
        raise fail(path, "a damaged DICOM file", "a complete DICOM file", "copy or export it again") from None


def _parse(dataset: Dataset, path: Path, source: str) -> Header:
    photometric = str(dataset.get("PhotometricInterpretation", "missing"))
    faults = []
    if not photometric.startswith("MONOCHROME") or int(dataset.get("SamplesPerPixel", 1)) != 1:
        faults.append(Fault(source, f"colour images ({photometric})", "grey values", "export the original series"))
    if "MOSAIC" in (dataset.get("ImageType") or ()):
        action = "convert it to NIfTI, for example with dcm2niix"
        faults.append(Fault(source, "mosaic images (many slices tiled in one)", "one slice per frame", action))
    if "ModalityLUTSequence" in dataset:
        faults.append(Fault(source, "a modality lookup table", "rescale slope and intercept", "export it without"))
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        faults.append(Fault(source, f"no pixels in {path.name}", "pixel data in every file", "export it again"))
    count = int(dataset.get("NumberOfFrames") or 1)
    size = (int(dataset.Rows), int(dataset.Columns))
    slices, scale, missing = [], [], set()
    for frame in range(count):
        values = {key: _numbers(_value(dataset, frame, key)) for key in _LENGTHS}
        absent = {key for key, length in _LENGTHS.items() if len(values[key]) != length}
        missing |= absent
        if not absent:
            name = path.name if count == 1 else f"{path.name} frame {frame + 1}"
            spacing, orientation = values["PixelSpacing"], values["ImageOrientationPatient"]
            slices.append(Slice(name, size, spacing, orientation, values["ImagePositionPatient"]))
        slope, intercept = (_value(dataset, frame, key) for key in ("RescaleSlope", "RescaleIntercept"))
        scale.append((1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)))
    if not np.isfinite(scale).all():
        raise ValueError
    if missing:
        found = f"no {', '.join(sorted(missing))} in {path.name}"
        action = "export the original series, not a screen capture or a copy without geometry"
        faults.append(Fault(source, found, "a position, orientation and spacing for every slice", action))
        slices = []
    return Header(path, dataset, photometric, tuple(slices), tuple(scale), tuple(faults))


def _numbers(values: Any) -> Any:
    """Finite numbers of a multi-valued attribute; () where it is absent or has but one value."""
    if values is None or isinstance(values, int | float | str):
        return ()
    numbers = tuple(float(value) for value in values)
    if not np.isfinite(numbers).all():
        raise ValueError
    return numbers


def _value(dataset: Dataset, frame: int, key: str) -> Any:
    """An attribute of one frame: from its own functional groups, the shared ones, or the data set itself."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    for groups in per_frame[frame : frame + 1], shared[:1]:
        for group in groups:
            macro = group.get(_GROUPS[key])
            if macro and key in macro[0]:
                return macro[0].get(key)
    return dataset.get(key)
