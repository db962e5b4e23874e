"""DICOM Secondary Captures (PS3.3 A.8) for viewers that know no overlays: the scan in colour, its heat burnt in."""

from __future__ import annotations

import highdicom
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import DS

from medgen.io.dicom.objects.codes import unpaired
from medgen.io.dicom.objects.common import NOTICE, inherit, opened
from medgen.io.dicom.objects.scored import ScoredScan
from medgen.io.dicom.objects.source import FramePlace, SourceSeries

# Vermilion at the threshold to yellow, which colour-blind readers tell apart, half transparent (Okabe and Ito, "Color
# universal design", 2008).
_COOL, _HOT, _OPACITY, _TOP = np.array([213.0, 94.0, 0.0]), np.array([240.0, 228.0, 66.0]), 0.6, 8.0
_MARKS = ("RESEARCH USE ONLY", "RESEARCH", "RUO")


def secondary_captures(source: SourceSeries, scored: ScoredScan) -> list[Dataset]:
    """One RGB image for each slice, from the first to the last along the normal.

    Where the heat is above the threshold of findings it is painted over the scan, elsewhere the scan is as in its
    window. "Research use only" is written into the pixels; nothing that names the patient is.

    Args:
        source: The series.
        scored: Scan, heatmap, window and threshold.

    Returns:
        Instances of one series, each with the position of the frame that it shows, which it references.
    """
    low, high = scored.window
    grey = np.clip((source.framed(scored.scan.data[0]).astype(np.float32) - low) / max(high - low, 1e-12), 0, 1) * 255
    heat = source.framed(scored.heatmap.data[0])
    shared = opened(source, scored, 3, f"heat above {scored.threshold:.2f}")
    items: list[Dataset] = []
    for place in np.argsort(source.slices):
        picture = _marked(painted(grey[place], heat[place], scored.threshold))
        dataset, frame = source.frames[place]
        geometry = FramePlace.of(dataset, frame)
        item = highdicom.sc.SCImage(
            pixel_array=picture,
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            patient_orientation=_letters(geometry.orientation),
            pixel_spacing=geometry.spacing,
            transfer_syntax_uid=ExplicitVRLittleEndian,
            specific_character_set="ISO_IR 192",
            **_study(dataset),
            **{**shared, "sop_instance_uid": highdicom.UID(), "instance_number": len(items) + 1},
        )
        item.FrameOfReferenceUID = dataset.FrameOfReferenceUID
        item.PositionReferenceIndicator = dataset.get("PositionReferenceIndicator") or ""
        item.ImagePositionPatient = [DS(value, auto_format=True) for value in geometry.position]
        item.ImageOrientationPatient = [DS(value, auto_format=True) for value in geometry.orientation]
        if dataset.get("Laterality") or not unpaired(str(dataset.get("BodyPartExamined") or "")):
            item.Laterality = dataset.get("Laterality") or ""
        item.BurnedInAnnotation = "NO"  # It asks for text that identifies the patient.
        item.RecognizableVisualFeatures = "NO"
        item.ImageComments = item.DerivationDescription = NOTICE
        item.ContentQualification = "RESEARCH"
        item.SourceImageSequence = [_reference(dataset, frame)]
        items.append(inherit(item, source))
    return items


def painted(grey: NDArray[np.float32], heat: NDArray[np.float32], threshold: float) -> NDArray[np.uint8]:
    """A slice in colour, (row, column, 3): grey values from 0 to 255, and over them the heat above a threshold.

    >>> grey, heat = np.full((1, 3), 100, np.float32), np.array([[np.nan, 4, 9]], np.float32)
    >>> painted(grey, heat, 4.5).tolist()
    [[[100, 100, 100], [100, 100, 100], [184, 177, 80]]]
    """
    hot = np.nan_to_num(heat, nan=-np.inf) > threshold
    share = np.clip((np.where(hot, heat, threshold) - threshold) / max(_TOP - threshold, 1.0), 0, 1)[..., None]
    colour = (1 - share) * _COOL + share * _HOT
    over = np.where(hot, _OPACITY, 0.0)[..., None]
    return np.round((1 - over) * grey[..., None] + over * colour).astype(np.uint8)


def _marked(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The slice with "research use only" in its lower left corner, as far as its columns have room for the words."""
    rows, columns = picture.shape[:2]
    font = ImageFont.load_default(max(9, rows // 24))
    for words in _MARKS:
        left, top, right, bottom = font.getbbox(words, stroke_width=1)
        if right - left + 4 <= columns and bottom - top + 4 <= rows:
            image = Image.fromarray(picture)
            place, black, white = (2, rows - bottom - 2), (0, 0, 0), (255, 255, 255)
            ImageDraw.Draw(image).text(place, words, fill=white, font=font, stroke_width=1, stroke_fill=black)
            return np.asarray(image)
    return picture


def _letters(orientation: tuple[float, ...]) -> tuple[str, str]:
    """The sides of the patient that rows and columns run to: ``("L", "P")`` in an axial slice.

    >>> _letters((1, 0, 0, 0, 1, 0)), _letters((0, 0.9, 0.1, 0, 0.1, -0.9))
    (('L', 'P'), ('P', 'F'))
    """
    row, column = (_letter(np.array(own)) for own in (orientation[:3], orientation[3:]))
    return row, column


def _letter(direction: NDArray[np.float64]) -> str:
    axis = int(np.abs(direction).argmax())
    return "LPH"[axis] if direction[axis] > 0 else "RAF"[axis]


def _study(dataset: Dataset) -> dict[str, object]:
    keys = {
        "study_instance_uid": "StudyInstanceUID", "patient_id": "PatientID", "patient_name": "PatientName",
        "patient_birth_date": "PatientBirthDate", "patient_sex": "PatientSex", "accession_number": "AccessionNumber",
        "study_id": "StudyID", "study_date": "StudyDate", "study_time": "StudyTime",
        "referring_physician_name": "ReferringPhysicianName",
    }  # fmt: skip
    return {name: dataset.get(key) or None for name, key in keys.items()}


def _reference(dataset: Dataset, frame: int) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    if "NumberOfFrames" in dataset:
        item.ReferencedFrameNumber = frame + 1
    return item
