"""One DICOM file at a time: what it is and what its header says. All that can be damaged in a header is caught here.

pydicom converts values when they are first asked for, so a header is taken apart in one guarded place. Nothing that
could name a patient is kept or quoted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from medgen.faults import Fault, FaultyDataError, fail
from medgen.io.dicom.pixels import PIXELS, check_end, check_file, check_length
from medgen.io.dicom.slices import Slice
from medgen.io.quiet import quiet

T = TypeVar("T")

_COMPLETE, _AGAIN = "a complete DICOM file", "copy or export it again"
_GROUPS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "EffectiveEchoTime": "MREchoSequence",
    "DiffusionBValue": "MRDiffusionSequence",
    "TemporalPositionIndex": "FrameContentSequence",
    "StackID": "FrameContentSequence",
}
_LENGTHS = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}
_PADDING = ("PixelPaddingValue", "PixelPaddingRangeLimit")
_COMPONENTS = {"M", "P", "R", "I", "MAGNITUDE", "PHASE", "REAL", "IMAGINARY", "M_FFE", "PHASE MAP"}


@dataclass(frozen=True)
class Header:
    """What matters of one file of a series.

    Attributes:
        path: The file.
        dataset: For its pixels.
        photometric: PhotometricInterpretation.
        instance: SOPInstanceUID and InstanceNumber, "" where missing.
        slices: One per frame; empty where the file does not say where its frames lie.
        scale: Rescale slope and intercept per frame.
        padding: Stored values, lowest and highest, that stand for no measurement; None where the file names none.
        traits: Per frame, what all frames of one volume have in common: name in words → value.
        faults: Why the file cannot be used, without its relation to others.
    """

    path: Path
    dataset: Dataset
    photometric: str
    instance: tuple[str, str]
    slices: tuple[Slice, ...]
    scale: tuple[tuple[float, float], ...]
    padding: tuple[int, int] | None
    traits: tuple[Mapping[str, Any], ...]
    faults: tuple[Fault, ...]


def patient_of(path: Path) -> str:
    """PatientID of a file, "" if there is none; to group files by, never to be stored or shown.

    Raises:
        FaultyDataError: If the file is damaged.
    """

    def look() -> str:
        check_file(path)
        dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["PatientID"])
        return str(dataset.get("PatientID") or "")

    return guarded(path, look)


def read_header(path: Path) -> Header:
    """Read a file; its pixels are decoded later.

    Args:
        path: A DICOM file with an image.

    Raises:
        FaultyDataError: If the file is damaged, or its pixels are not what the header says.
    """

    def look() -> Header:
        check_file(path)
        return _parse(pydicom.dcmread(path), path)

    return guarded(path, look)


def guarded(path: Path, function: Callable[[], T]) -> T:
    """The function's result; whatever pydicom raises on a damaged file becomes one clear error."""
    try:
        with quiet():
            return function()
    except FaultyDataError:
        raise
    except OSError as error:
        reason = error.strerror or "not DICOM"
        raise fail(path, f"cannot be read ({reason})", _COMPLETE, _AGAIN) from None
    except Exception:  # pydicom raises nearly any kind on damaged bytes
        raise fail(path, "a damaged DICOM file", _COMPLETE, _AGAIN) from None


def _parse(dataset: Dataset, path: Path) -> Header:
    faults: list[Fault] = []

    def wrong(found: str, expected: str, action: str = _AGAIN) -> None:
        faults.append(Fault(str(path), found, expected, action))

    photometric = str(dataset.get("PhotometricInterpretation", "missing"))
    if not photometric.startswith("MONOCHROME") or _whole(dataset, "SamplesPerPixel", 1) != 1:
        wrong(f"colour images ({photometric})", "grey values", "export the original series")
    if "MOSAIC" in (dataset.get("ImageType") or ()):
        action = "convert it to NIfTI, for example with dcm2niix"
        wrong("mosaic images (many slices tiled in one)", "one slice per frame", action)
    if "ModalityLUTSequence" in dataset:
        wrong("a modality lookup table", "rescale slope and intercept", "export it without")
    size = _whole(dataset, "Rows", 0), _whole(dataset, "Columns", 0)
    if min(size) < 2:
        wrong(f"Rows x Columns of {size[0]} x {size[1]}", "at least two rows and columns")
    bits = _bits(dataset, wrong)
    count = _frames(dataset, wrong)
    if not faults:
        try:
            check_length(path, dataset, count, bits)
            check_end(path, dataset)
        except FaultyDataError as error:
            faults.extend(error.faults)
    frames = range(count if count else 0)
    slices, scale, traits = [], [], []
    bad: list[tuple[str, str]] = []
    for frame in frames:
        values = {key: _numbers(dataset, frame, key, bad) for key in _LENGTHS}
        slope = _number(dataset, frame, "RescaleSlope", 1.0, bad)
        scale.append((slope, _number(dataset, frame, "RescaleIntercept", 0.0, bad)))
        if all(values.values()):
            name = path.name if count == 1 else f"{path.name} frame {frame + 1}"
            spacing, orientation = values["PixelSpacing"], values["ImageOrientationPatient"]
            slices.append(Slice(name, size, spacing, orientation, values["ImagePositionPatient"]))
        traits.append(_traits(dataset, frame))
    missing = sorted({key for found, key in bad if found == "no"})
    if missing:
        action = "export the original series, not a screen capture or a copy without geometry"
        wrong(f"no {', '.join(missing)}", "a position, orientation and spacing for every slice", action)
    for key in sorted({key for found, key in bad if found == "not finite"}):
        wrong(f"a value of {key} that is not {_LENGTHS.get(key, 1)} finite number(s)", "numbers", "export it again")
    if any(slope == 0 for slope, _ in scale):
        wrong("a rescale slope of 0, which makes every voxel alike", "a slope other than 0", "export it again")
    complete = len(slices) == count and min(size) > 1
    instance = str(dataset.get("SOPInstanceUID") or ""), str(dataset.get("InstanceNumber") or "")
    places = tuple(slices) if complete else ()
    padding = _padding(dataset, bits)
    return Header(path, dataset, photometric, instance, places, tuple(scale), padding, tuple(traits), tuple(faults))


def _padding(dataset: Dataset, bits: int) -> tuple[int, int] | None:
    """PixelPaddingValue, up to PixelPaddingRangeLimit; writers mix up their signs, which the pixels' own decides."""
    try:
        ends = [int(dataset[key].value) for key in _PADDING if key in dataset and dataset[key].value not in (None, "")]
    except (TypeError, ValueError):
        return None
    if not ends or "PixelPaddingValue" not in dataset or bits not in (8, 16, 32):
        return None
    signed = _whole(dataset, "PixelRepresentation", 0) == 1
    wrapped = [end % (1 << bits) for end in ends]
    values = [end - (1 << bits) if signed and end >= 1 << (bits - 1) else end for end in wrapped]
    return min(values), max(values)


def _bits(dataset: Dataset, wrong: Callable[..., None]) -> int:
    """Bits per value in the file; what cannot be is reported."""
    name = next((key for key in PIXELS if key in dataset), "PixelData")
    allocated = _whole(dataset, "BitsAllocated", {"PixelData": 0, "FloatPixelData": 32}.get(name, 64))
    if name != "PixelData":
        return allocated
    stored = _whole(dataset, "BitsStored", allocated)
    high = _whole(dataset, "HighBit", stored - 1)
    if allocated not in (8, 16, 32):
        wrong(f"BitsAllocated {allocated or 'missing'}", "8, 16 or 32 bits per voxel", "export it again")
    elif not 1 <= stored <= allocated:
        wrong(f"BitsStored {stored} of BitsAllocated {allocated}", "as many bits stored as allocated at most")
    elif high != stored - 1:
        wrong(f"HighBit {high} with BitsStored {stored}", f"HighBit {stored - 1}", "export it again")
    if _whole(dataset, "PixelRepresentation", 0) not in (0, 1):
        wrong("PixelRepresentation neither 0 nor 1", "unsigned or signed values", "export it again")
    return allocated


def _frames(dataset: Dataset, wrong: Callable[..., None]) -> int:
    """Number of frames; 0 if the header contradicts itself, so that nobody counts up to a number that is a lie."""
    count = _whole(dataset, "NumberOfFrames", 1)
    groups = dataset.get("PerFrameFunctionalGroupsSequence")
    described = None if groups is None else len(groups)
    if count < 1 or (described is not None and described != count):
        says = "no" if described is None else str(described)
        wrong(f"{count} frames declared, {says} described", "a description of every frame", _AGAIN)
        return 0
    if count > 1 and described is None:
        wrong(f"{count} frames without a position each", "an enhanced object, or one file per slice", "export it again")
        return 0
    return count


def _whole(dataset: Dataset, key: str, default: int) -> int:
    value = dataset.get(key)
    return default if value is None or value == "" else int(value)


def _numbers(dataset: Dataset, frame: int, key: str, bad: list[tuple[str, str]]) -> Any:
    """Finite numbers of a multi-valued attribute; () where they are absent or wrong, which is noted."""
    try:
        values = frame_value(dataset, frame, key)
        if values is None or values == "" or (hasattr(values, "__len__") and len(values) == 0):
            bad.append(("no", key))
            return ()
        numbers = tuple(float(value) for value in (values if hasattr(values, "__len__") else [values]))
        if len(numbers) != _LENGTHS[key] or not np.isfinite(numbers).all() or max(map(abs, numbers)) > 1e6:
            raise ValueError
    except (TypeError, ValueError, OverflowError, ArithmeticError):
        bad.append(("not finite", key))
        return ()
    return numbers


def _number(dataset: Dataset, frame: int, key: str, default: float, bad: list[tuple[str, str]]) -> float:
    try:
        value = frame_value(dataset, frame, key)
        number = default if value is None or value == "" else float(value)
        if not np.isfinite(number) or abs(number) > 1e30:
            raise ValueError
    except (TypeError, ValueError, OverflowError, ArithmeticError):
        bad.append(("not finite", key))
        return default
    return number


def _traits(dataset: Dataset, frame: int) -> Mapping[str, Any]:
    """What tells volumes in one series apart, as far as the frame says; values are compared, never shown."""

    def get(*keys: str) -> Any:
        for key in keys:
            try:
                value = frame_value(dataset, frame, key)
            except Exception:  # an unreadable value tells nothing apart
                continue
            if value is not None and value != "":
                return value
        return None

    kind = [str(part).upper() for part in dataset.get("ImageType") or ()]
    rescaled = [key for key in ("RescaleSlope", "RescaleIntercept") if get(key) is not None]
    found = {
        "patients": get("PatientID"),
        "studies": get("StudyInstanceUID"),
        "modalities": get("Modality"),
        "classes of object": get("SOPClassUID"),
        "patient positions": get("PatientPosition"),
        "units of values": get("Units", "RescaleType"),
        "tube voltages": get("KVP"),
        "frames of reference": get("FrameOfReferenceUID"),
        "values of BitsAllocated": get("BitsAllocated"),
        "values of PixelRepresentation": get("PixelRepresentation"),
        "photometric interpretations": get("PhotometricInterpretation"),
        "echo times": get("EffectiveEchoTime", "EchoTime"),
        "time points": get("TemporalPositionIndex", "TemporalPositionIdentifier"),
        "b-values": get("DiffusionBValue"),
        "reconstruction kernels": get("ConvolutionKernel"),
        "stacks": get("StackID"),
        "image types (magnitude, phase)": next((part for part in kind[2:4] if part in _COMPONENTS), None),
        "kinds of image (localizer and not)": "LOCALIZER" in kind,
        "ways to rescale values (with and without slope or intercept)": rescaled,
        "acquisition numbers": get("AcquisitionNumber"),
        "acquisition times": get("AcquisitionTime"),
        "flip angles": get("FlipAngle"),
        "inversion times": get("InversionTime"),
        "trigger times": get("TriggerTime"),
        "spacing": get("SpacingBetweenSlices"),
    }
    return {name: value for name, value in found.items() if value is not None}


def frame_value(dataset: Dataset, frame: int, key: str) -> Any:
    """An attribute of one frame: from its own functional groups, the shared ones, or the data set itself."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    if key in _GROUPS:
        for groups in per_frame[frame : frame + 1], shared[:1]:
            for group in groups:
                macro = group.get(_GROUPS[key])
                if macro and key in macro[0]:
                    return macro[0].get(key)
    return dataset.get(key)
