"""What a user says about a cohort: settings ``cohort.*`` of runs, and options of the ``medgen data`` commands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from medgen.config import Config
from medgen.data.layouts.name_groups import GROUP, MARK, check_pattern
from medgen.errors import ConfigError

# Of single precision, which images are read as.
_LARGEST = 3.4e38
# How files are read, the same for a cohort and for single scans.
Fill = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST)]
Slices = Annotated[int, Field(ge=1)]


class CohortConfig(Config):
    """How to find the cases of a cohort.

    Attributes:
        layout: Kind of folder; ``auto`` looks at what is there.
        images: Glob for the images of a plain folder or BIDS tree, such as ``"*_T1w.nii.gz"`` or ``"*/*_t1.nii.gz"``;
            what the stars stand for is the case id. Several globs, as a list or by channel name, are channels.
        masks: File of a case's mask relative to the folder, with ``{id}``, such as ``"{id}_labels.nii.gz"``; or a glob
            that varies in the same parts as the images', or names one file in the folder of each image.
        leave_out: Glob, or globs, of files that are no scans of this cohort.
        subjects: CSV beside the data with case id and subject in its first two columns; ``subjects.csv`` is used
            where it is there. Further columns, such as ``age``, ``sex`` and ``scanner``, are kept with the cases.
            Or a pattern for case ids, such as ``"{subject}_V*"`` (``"{subject}"``: each scan shows another subject), or
            a regular expression with a group ``(?P<subject>...)``.
        labels: Name per label value; overrides what the cohort itself declares.
        roots: Further folders that links inside the cohort may lead to; a link to anywhere else is refused.
        fill: Value for image voxels that are NaN or infinite; by default such images are refused.
        unscaled: Take values as stored where the scale (scl_slope) of a NIfTI header is 0 or NaN, as FreeSurfer means
            it; by default such files are refused.
        resample_masks: Bring masks that lie on another grid than their image to its grid (nearest label); by default
            they are refused.
        resample_channels: Bring channels that lie on another grid than the first one to its grid, as their headers say
            (linear); by default such cases are refused. ``preprocess.coregister`` corrects what the patient moved.
        empty_masks: Take a mask without a labelled voxel as "nothing there"; by default it is a fault.
        slices: How many slices the DICOM series of every case should have; a column ``slices`` of a manifest or
            subject list says it case by case.
    """

    layout: Literal["auto", "csv", "folder", "nnunet", "msd", "bids", "dicom"] = "auto"
    images: str | tuple[str, ...] | dict[str, str] | None = None
    masks: str | None = None
    leave_out: str | tuple[str, ...] = ()
    subjects: str | None = None
    labels: dict[Annotated[int, Field(ge=0, lt=1 << 31)], Annotated[str, Field(min_length=1)]] = Field(
        default_factory=dict
    )
    roots: tuple[Path, ...] = ()
    fill: Fill | None = None
    unscaled: bool = False
    resample_masks: bool = False
    resample_channels: bool = False
    empty_masks: bool = False
    slices: Slices | None = None

    @field_validator("subjects")
    @classmethod
    def _pattern(cls, value: str | None) -> str | None:
        if value and (MARK in value or GROUP in value):
            try:
                check_pattern(value)
            except ConfigError as error:
                raise ValueError(str(error).removeprefix("subjects: ")) from None
        return value

    @property
    def globs(self) -> dict[str, str]:
        """Channel name, or its number, → glob; empty where files are found by their names."""
        if not self.images:
            return {}
        if isinstance(self.images, Mapping):
            return dict(self.images)
        given = (self.images,) if isinstance(self.images, str) else self.images
        return {str(number): glob for number, glob in enumerate(given)}

    @property
    def unwanted(self) -> tuple[str, ...]:
        """The globs of ``leave_out``."""
        return (self.leave_out,) if isinstance(self.leave_out, str) else self.leave_out
