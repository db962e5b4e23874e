"""What a DICOM file is, without its pixels: a slice of which series, or an object that is no scan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID

from medgen.faults import FaultyDataError, fail
from medgen.io.dicom.header import guarded
from medgen.io.dicom.pixels import check_file
from medgen.io.quiet import quiet

_COMPLETE, _AGAIN = "a complete DICOM file", "copy or export it again"
_TAGS = [
    "SeriesInstanceUID",
    "SeriesNumber",
    "Modality",
    "Rows",
    "SOPClassUID",
    "ImageType",
    "BurnedInAnnotation",
    "RecognizableVisualFeatures",
    "ConversionType",
]
# Objects with rows and columns, or with neither, that are no scan: they are left aside.
_NOT_SCANS = (
    "SEG",
    "SR",
    "PR",
    "KO",
    "DOC",
    "PLAN",
    "REG",
    "RWV",
    "AU",
    "ECG",
    "RTSTRUCT",
    "RTPLAN",
    "RTDOSE",
    "RTRECORD",
)
_NOT_SCAN_CLASSES = {
    "1.2.840.10008.1.3.10": "DICOMDIR",
    "1.2.840.10008.5.1.4.1.1.4.2": "MR spectroscopy",
    "1.2.840.10008.5.1.4.1.1.66.4": "SEG",
    "1.2.840.10008.5.1.4.1.1.66.7": "SEG",
    "1.2.840.10008.5.1.4.1.1.104.1": "PDF",
    "1.2.840.10008.5.1.4.1.1.481.2": "RTDOSE",
    "1.2.840.10008.5.1.4.1.1.481.3": "RTSTRUCT",
}
_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@dataclass(frozen=True)
class Identity:
    """What a file is, without its pixels.

    Attributes:
        uid: SeriesInstanceUID.
        number: SeriesNumber, or "".
        modality: Such as ``"MR"``.
        other: What it is, such as ``"SEG"``, for objects that are no scan; "" for scans.
        flags: What may identify the patient in the pixels themselves, in words.
    """

    uid: str
    number: str
    modality: str
    other: str
    flags: tuple[str, ...]


def identify(path: Path) -> Identity:
    """What a file is: series UID, number, modality, and whether it is a scan at all.

    An object whose class is no image is left aside however damaged it is: it never stops a scan beside it.

    Raises:
        FaultyDataError: If the file is damaged.
    """

    def look() -> Identity:
        check_file(path)
        dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
        return _identity(path, dataset, dataset.file_meta.get("MediaStorageSOPClassUID"))

    try:
        return guarded(path, look)
    except FaultyDataError:
        if other := _class_alone(path):
            return Identity("", "", "?", other, ())
        raise


def identify_headless(path: Path) -> Identity | None:
    """The same for data without a DICOM file header, where it is no scan; None for scans and what cannot be told."""
    try:
        with quiet():
            dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS, force=True)
            item = _identity(path, dataset, None)
    except Exception:  # what pydicom makes of bytes that may be anything
        return None
    return item if item.other else None


def _identity(path: Path, dataset: Dataset, kind: UID | None) -> Identity:
    kind = kind or dataset.get("SOPClassUID") or UID("")
    modality = str(dataset.get("Modality") or "?")
    other = _NOT_SCAN_CLASSES.get(str(kind), modality if modality in _NOT_SCANS else "")
    if "Rows" not in dataset and not other:
        # pydicom reads a file that ends early without complaint: an image class without rows is one of these.
        if not kind or "Image Storage" in kind.name:
            raise fail(path, "no Rows in its header: truncated or damaged", _COMPLETE, _AGAIN)
        other = kind.name or modality
    number = str(dataset.get("SeriesNumber") or "").strip()
    flags = () if other else tuple(_flags(dataset, str(kind)))
    uid = str(dataset.get("SeriesInstanceUID", ""))
    return Identity(uid, number if number.isdigit() else "", modality, other, flags)


def _class_alone(path: Path) -> str:
    """The kind of object that a file header names, where it is no scan; "" where it is, or cannot be told."""
    try:
        with quiet():
            kind = read_file_meta_info(path).get("MediaStorageSOPClassUID")
    except Exception:  # damaged bytes
        return ""
    # Damage can make several of it, or none.
    if not isinstance(kind, UID):
        return ""
    known = "Storage" in kind.name and "Image" not in kind.name
    return _NOT_SCAN_CLASSES.get(str(kind), kind.name if known else "")


def _flags(dataset: Dataset, kind: str) -> list[str]:
    flags = []
    if str(dataset.get("BurnedInAnnotation") or "").upper() == "YES":
        flags.append("text burned into the pixels (BurnedInAnnotation is YES)")
    if str(dataset.get("RecognizableVisualFeatures") or "").upper() == "YES":
        flags.append("recognisable features (RecognizableVisualFeatures is YES)")
    if kind.startswith(_CAPTURE) or "ConversionType" in dataset:
        flags.append("secondary captures, which often show text")
    return flags
