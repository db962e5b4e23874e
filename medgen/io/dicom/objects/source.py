"""The series that a scan was read from: what its objects inherit of it, and which of its frames is which slice.

The danger is geometry. Series are mirrored, oblique, and stored against their normal, while a volume's slices ascend
along it. So nothing here relies on an order: the place that every frame states is looked up in the volume's grid, and
objects repeat the positions of the frames they are drawn on to the last digit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pydicom.valuerep import DS

from medgen.faults import fail
from medgen.io.dicom.header import frame_value, guarded
from medgen.io.dicom.series import series_files
from medgen.volume import Grid

# What an object repeats of its source, so that an archive files it with the study, and no more: neither comments nor
# histories, addresses, operators, protocols or private elements.
_PATIENT = ("PatientID", "PatientBirthDate", "PatientSex", "PatientName", "ReferringPhysicianName")
_STUDY = ("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber")
_SERIES = ("SeriesInstanceUID", "SeriesNumber", "Modality", "BodyPartExamined", "Laterality", "PatientPosition")
_IMAGE = (
    "SOPClassUID", "SOPInstanceUID", "InstanceNumber", "FrameOfReferenceUID", "PositionReferenceIndicator", "ImageType",
    "Rows", "Columns", "NumberOfFrames", "PixelSpacing", "SliceThickness", "ImagePositionPatient",
    "ImageOrientationPatient", "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
)  # fmt: skip
_DEIDENTIFIED = ("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence")
# Macros of multi-frame files: the same in all frames of a volume, and of each frame.
_SHARED, _OWN = ("PixelMeasuresSequence", "PlaneOrientationSequence"), ("PlanePositionSequence",)
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
# Values that highdicom refuses where a header has them otherwise; they may be empty, so they are emptied.
_FORMS = {
    "PatientBirthDate": r"\d{8}",
    "StudyDate": r"\d{8}",
    "StudyTime": r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?",
    "PatientSex": "[MFO]",
}
# Of a voxel: positions may be rounded, but no frame may be taken for its neighbour.
_OFF = 0.25


class FramePlace(NamedTuple):
    """Where a frame lies, as its file says (LPS+ mm): first voxel, cosines of row and column, spacing of both."""

    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, float]

    @classmethod
    def of(cls, dataset: Dataset, frame: int) -> FramePlace:
        """The place of a frame, counted from 0."""
        keys = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
        position, orientation, spacing = (tuple(map(float, frame_value(dataset, frame, key))) for key in keys)
        return cls(position, orientation, (spacing[0], spacing[1]))


@dataclass(frozen=True, eq=False)
class SourceSeries:
    """A series, without its pixels.

    Attributes:
        path: Folder or file that was read.
        datasets: What objects inherit: one data set for each file, or one of a multi-frame file.
        slices: For every frame, in the order of the data sets or of the frames in the only one, its slice k.
    """

    path: Path
    datasets: tuple[Dataset, ...]
    slices: NDArray[np.int64]

    @classmethod
    def read(cls, path: str | Path, grid: Grid) -> SourceSeries:
        """The series that ``medgen.io.read(path)`` reads.

        Args:
            path: Folder with one series, or a file of it.
            grid: Grid of the volume that was read.

        Raises:
            FaultyDataError: If files cannot be read, lack an identifier that objects refer to, or do not lie where the
                grid's slices lie.
        """
        path = Path(path)
        full = [(file, guarded(file, partial(_read, file))) for file in series_files(path)]
        if len(full) > 1 and any("NumberOfFrames" in dataset for _, dataset in full):
            found = f"a series of {len(full)} multi-frame files"
            raise fail(path, found, "one multi-frame file, or a file for each slice", "convert it to one of these")
        slices: list[int] = []
        for file, dataset in full:
            _check_identifiers(file, dataset)
            _state_thickness(dataset, grid.spacing[2])
            slices += [
                _slice_of(file, dataset, frame, grid) for frame in range(int(dataset.get("NumberOfFrames") or 1))
            ]
        if sorted(slices) != list(range(grid.shape[2])):
            found = f"{len(slices)} frames at {len(set(slices))} slices"
            raise fail(path, found, f"one for each of {grid.shape[2]} slices of the scan", "give the series itself")
        return cls(path, tuple(dataset for _, dataset in full), np.array(slices, dtype=np.int64))

    @property
    def first(self) -> Dataset:
        """A data set that stands for all where they agree: patient, study, series."""
        return self.datasets[0]

    @property
    def frames(self) -> list[tuple[Dataset, int]]:
        """Data set and frame, from 0, of every entry of ``slices``."""
        if len(self.datasets) == 1:
            return [(self.first, frame) for frame in range(len(self.slices))]
        return [(dataset, 0) for dataset in self.datasets]

    def framed(self, data: NDArray[Any]) -> NDArray[Any]:
        """Values of voxels, (i, j, k, ...), as frames of the series in its own order, (frame, row, column, ...).

        Voxel axis i runs along a row, so it counts columns, and j counts rows.
        """
        return np.ascontiguousarray(np.moveaxis(data, (0, 1, 2), (2, 1, 0))[self.slices])

    def series_number(self, number: int) -> int:
        """A number for a new series that lies behind its source in lists: 301 to 304 for series 3."""
        own = str(self.first.get("SeriesNumber") or "").strip()
        return (int(own) if own.isdigit() and 0 < int(own) < 100_000 else 90) * 100 + number


def _read(file: Path) -> Dataset:
    """What objects inherit of a file; text becomes Unicode, values that cannot be valid become empty."""
    full = pydicom.dcmread(file, stop_before_pixels=True)
    result = Dataset()
    for key in (*_PATIENT, *_STUDY):
        # They are there in every object, be they empty.
        setattr(result, key, "")
    for key in (*_PATIENT, *_STUDY, *_SERIES, *_IMAGE):
        if full.get(key) is not None:
            value = full.get(key)
            setattr(result, key, str(value) if key.endswith("Name") else value)
    for key, form in _FORMS.items():
        if not re.fullmatch(form, str(result.get(key) or "").strip()):
            setattr(result, key, "")
    if str(full.get("PatientIdentityRemoved", "")).upper() == "YES":
        for key in _DEIDENTIFIED:
            if key in full:
                setattr(result, key, full.get(key))
    if "PerFrameFunctionalGroupsSequence" in full:
        _state_places(result, full)
    result.SpecificCharacterSet = "ISO_IR 192"
    return result


def _state_places(result: Dataset, full: Dataset) -> None:
    """Geometry of a multi-frame file: what its frames share once, wherever the file has it, and the place of each."""
    common = list(full.get("SharedFunctionalGroupsSequence") or [])[:1]
    frames = list(full.PerFrameFunctionalGroupsSequence)
    result.SharedFunctionalGroupsSequence = [_only(_SHARED, [*frames[:1], *common])]
    result.PerFrameFunctionalGroupsSequence = [_only(_OWN, [frame, *common]) for frame in frames]


def _only(keys: Sequence[str], groups: Sequence[Dataset]) -> Dataset:
    """The macros of these names, each from the first group that has it."""
    result = Dataset()
    for key in keys:
        if (found := next((group.get(key) for group in groups if group.get(key)), None)) is not None:
            setattr(result, key, found)
    return result


def _check_identifiers(file: Path, dataset: Dataset) -> None:
    for key in _UIDS:
        value = str(dataset.get(key) or "")
        if not UID(value).is_valid:
            found = f"a {key} that is no UID" if value else f"no {key}"
            raise fail(file, found, "the identifiers that DICOM objects refer to", "export the original series")


def _state_thickness(dataset: Dataset, step: float) -> None:
    """Objects must say how thick their voxels are: as the series does, else as far as its slices lie apart."""
    groups = [*dataset.get("SharedFunctionalGroupsSequence", []), *dataset.get("PerFrameFunctionalGroupsSequence", [])]
    measures = [item for group in groups for item in group.get("PixelMeasuresSequence", [])]
    for holder in measures or [dataset]:
        if not holder.get("SliceThickness"):
            holder.SliceThickness = DS(step, auto_format=True)


def _slice_of(file: Path, dataset: Dataset, frame: int, grid: Grid) -> int:
    """The slice k of the grid at the place that a frame states, whose three corners must lie on the grid's."""
    place = FramePlace.of(dataset, frame)
    columns, rows = int(dataset.Columns), int(dataset.Rows)
    position, orientation = np.array(place.position), np.array(place.orientation)
    across = orientation[:3] * place.spacing[1] * (columns - 1)
    down = orientation[3:] * place.spacing[0] * (rows - 1)
    # DICOM's world is LPS+, ours RAS+.
    corners = grid.to_voxel(np.array([position, position + across, position + down]) * (-1, -1, 1))
    k = round(float(corners[0, 2]))
    expected = np.array([(0, 0, k), (columns - 1, 0, k), (0, rows - 1, k)])
    if (columns, rows) != grid.shape[:2] or np.abs(corners - expected).max() > _OFF:
        found = f"frame {frame + 1} elsewhere than the scan's voxels"
        raise fail(file, found, "a series on the grid of the scan", "give the series itself, not another one")
    return k


def heights(dataset: Dataset, frames: Sequence[int]) -> NDArray[np.float64]:
    """How far along the normal of its slices each frame of an object lies, in mm."""
    places = [FramePlace.of(dataset, frame) for frame in frames]
    normal = np.cross(*np.array(places[0].orientation).reshape(2, 3))
    return np.asarray(np.array([place.position for place in places]) @ normal)
