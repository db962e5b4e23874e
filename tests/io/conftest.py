"""Small DICOM series made by hand, so that each way of being wrong can be tested."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

Edit = Callable[[int, FileDataset], None]


def _make_series(
    folder: Path,
    data: np.ndarray,
    *,
    orientation=(1, 0, 0, 0, 1, 0),
    origin=(-10.0, 20.0, 30.0),
    step=(0.0, 0.0, 2.5),
    spacing=(0.75, 0.5),
    number: int = 3,
    edit: Edit | None = None,
    names: str = "{:03d}.dcm",
) -> Path:
    """Write integers of shape (slice, row, column) as one file per slice; ``edit`` may change each data set."""
    folder.mkdir(parents=True, exist_ok=True)
    series = generate_uid(entropy_srcs=[str(folder), str(number)])
    for index, pixels in enumerate(data):
        dataset = _image(pixels.shape, data.dtype, series, number)
        dataset.SOPInstanceUID = generate_uid(entropy_srcs=[series, str(index)])
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.InstanceNumber = index + 1
        dataset.ImageOrientationPatient = list(orientation)
        dataset.ImagePositionPatient = [float(a + index * b) for a, b in zip(origin, step, strict=True)]
        dataset.PixelSpacing = list(spacing)
        dataset.PixelData = np.ascontiguousarray(pixels).tobytes()
        if edit is not None:
            edit(index, dataset)
        dataset.save_as(folder / names.format(index), enforce_file_format=True)
    return folder


def _make_multiframe(path: Path, data: np.ndarray, *, step: float = 2.5) -> Path:
    """Write one enhanced object, with the frames in descending order along the normal."""
    dataset = _image(data.shape[1:], data.dtype, generate_uid(), 7)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.NumberOfFrames = len(data)
    measures, orientation = Dataset(), Dataset()
    measures.PixelSpacing = [0.75, 0.5]
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared = Dataset()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    dataset.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for index in range(len(data)):
        position, transform, group = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [-10.0, 20.0, 30.0 - index * step]
        transform.RescaleSlope, transform.RescaleIntercept = 0.5, float(index)
        group.PlanePositionSequence, group.PixelValueTransformationSequence = [position], [transform]
        frames.append(group)
    dataset.PerFrameFunctionalGroupsSequence = frames
    dataset.PixelData = np.ascontiguousarray(data).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def _image(shape, dtype, series, number) -> FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = MRImageStorage
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID = MRImageStorage
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = series, "1.2.3"
    dataset.FrameOfReferenceUID = "1.2.3.4"
    dataset.PatientID, dataset.PatientName = "SECRET-ID", "SECRET^NAME"
    dataset.SeriesDescription = "SECRET DESCRIPTION"
    dataset.SeriesNumber, dataset.Modality = number, "MR"
    dataset.Rows, dataset.Columns = shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = dtype.itemsize * 8
    dataset.HighBit, dataset.PixelRepresentation = dtype.itemsize * 8 - 1, int(dtype.kind == "i")
    return dataset


@pytest.fixture(scope="session")
def make_series():
    """Writes a series of one file per slice; see :func:`_make_series`."""
    return _make_series


@pytest.fixture(scope="session")
def make_multiframe():
    """Writes one enhanced multi-frame object; see :func:`_make_multiframe`."""
    return _make_multiframe
