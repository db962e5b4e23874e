"""Reading and writing of 3D images: the content of a file decides its format, and a damaged file is refused.

The only package that opens image files. NIfTI goes through nibabel, DICOM through pydicom, NRRD and MetaImage
through SimpleITK; MGH is read here.
"""

from __future__ import annotations

import os
from pathlib import Path

from medgen.errors import DataError
from medgen.faults import fail
from medgen.io.dicom.files import dicom_folders, has_dicom, is_dicom
from medgen.io.dicom.series import Series, dicom_notes, list_series, patient_key, read_dicom, series_files, series_key
from medgen.io.grids import spacing_fault
from medgen.io.itk import SUFFIXES as _ITK_SUFFIXES
from medgen.io.itk import is_itk, read_itk, write_itk
from medgen.io.itk_header import voxels_of
from medgen.io.mgh import SUFFIXES as _MGH_SUFFIXES
from medgen.io.mgh import is_mgh, read_mgh
from medgen.io.nifti import IMAGE_SUFFIXES, header_beside, image_beside, is_nifti, read_nifti, write_nifti
from medgen.io.nifti_header import PAIR_SUFFIXES, is_pair
from medgen.io.streams import Stream, unreadable
from medgen.volume import Volume

__all__ = [
    "Series",
    "dicom_folders",
    "dicom_notes",
    "files_of",
    "has_dicom",
    "is_dicom",
    "is_image",
    "list_series",
    "patient_key",
    "read",
    "series_key",
    "stem",
    "write",
]

# Longest first, so that ".nii.gz" is taken off whole.
_SUFFIXES = (".nii.gz", ".nii", ".hdr.gz", ".hdr", *_ITK_SUFFIXES, *_MGH_SUFFIXES, ".dcm", ".ima")
_FORMATS = "a NIfTI, DICOM, NRRD, MetaImage or MGH file"


def read(
    path: str | Path,
    *,
    allow_nan: bool = False,
    multichannel: bool = False,
    slices: int | None = None,
    fill: float | None = None,
    unscaled: bool = False,
) -> Volume:
    """Read a 3D image of any known format.

    Args:
        path: A NIfTI, NRRD, MetaImage, MGH or MGZ file, a folder with one DICOM series, or one file of a series. Of a
            NIfTI pair, either file.
        allow_nan: Accept NaN voxels, which mean "no value" in medgen's own heatmaps.
        multichannel: Take the fourth axis of a 4D NIfTI or MGH file as channels instead of refusing it as time.
        slices: How many slices a DICOM series should have, where that is known; other formats say it themselves.
        fill: Value for voxels that are NaN or infinite; None refuses them.
        unscaled: Take values as stored where the scale of a NIfTI is 0 or NaN, instead of refusing the file.

    Returns:
        A volume of shape (c, i, j, k) in RAS+ mm: integers as stored, scaled and floating-point data as float32.

    Raises:
        FaultyDataError: A :class:`medgen.errors.DataError` whose ``faults`` say each what was found, what was
            expected and what to do.
    """
    path = Path(path)
    volume = _read(path, allow_nan, multichannel, slices, fill, unscaled)
    if (fault := spacing_fault(path, volume.grid)) is not None:
        raise fault
    return volume


def _read(
    path: Path, allow_nan: bool, multichannel: bool, slices: int | None, fill: float | None, unscaled: bool
) -> Volume:
    try:
        folder = path.is_dir()
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    if folder:
        return read_dicom(path, slices=slices)
    with Stream(path) as stream:
        head = stream.read(1024)
    if is_nifti(head):
        return read_nifti(path, allow_nan=allow_nan, multichannel=multichannel, fill=fill, unscaled=unscaled)
    if is_itk(head):
        return read_itk(path, allow_nan=allow_nan, fill=fill)
    if is_mgh(head):
        return read_mgh(path, allow_nan=allow_nan, multichannel=multichannel, fill=fill)
    if is_dicom(path):
        return read_dicom(path, slices=slices)
    if (header := header_beside(path)) is not None:
        return read_nifti(header, allow_nan=allow_nan, multichannel=multichannel, fill=fill, unscaled=unscaled)
    found = "an empty file" if not head else "not an image"
    raise fail(path, found, _FORMATS, "check the path, or copy the file again")


def files_of(path: Path) -> list[Path]:
    """The files that :func:`read` takes a file's image from: mostly itself, its pair's other half, or its series.

    A file that cannot be read is one file: whoever reads it says what is wrong.
    """
    try:
        with Stream(path) as stream:
            head = stream.read(1024)
        if is_itk(head):
            found = {path, voxels_of(path).path}
        elif is_nifti(head):
            found = {path, image_beside(path)} if is_pair(path, head) else {path}
        elif is_dicom(path):
            found = {path, *series_files(path)}
        else:
            header = header_beside(path)
            found = {path} if header is None else {path, header}
    except DataError:
        found = {path}
    return sorted(found)


def write(volume: Volume, path: str | Path, *, description: str = "") -> None:
    """Write a volume as NIfTI (``.nii``, ``.nii.gz``), NRRD (``.nrrd``) or MetaImage (``.mha``), atomically.

    Args:
        volume: What to write; see :func:`medgen.io.nifti.write_nifti` for types and channels.
        path: The suffix chooses the format; missing folders are made.
        description: Text for the header of a NIfTI file, such as ``"medgen heatmap"``.

    Raises:
        DataError: If the suffix is unknown or the file cannot be written.
    """
    path = Path(path)
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        write_nifti(volume, path, description=description)
    elif name.endswith((".nrrd", ".mha")):
        write_itk(volume, path)
    else:
        raise fail(path, "an unknown suffix", ".nii.gz, .nii, .nrrd or .mha", "rename the output")


def is_image(path: str | Path) -> bool:
    """Whether a file is named as an image, or is a DICOM file by content; hidden files are not."""
    path = Path(path)
    if path.name.startswith("."):
        return False
    # Links that lead nowhere, pipes and the like are named as images, and will be refused as such when they are read.
    if not path.is_file() and not os.path.lexists(path):
        return False
    if path.is_dir():
        return path.name.lower().endswith(".nii.gz")
    name = path.name.lower()
    if name.endswith(PAIR_SUFFIXES):
        # Others than images have such names, too.
        return any(path.with_name(path.name[: name.rindex(".hdr")] + end).exists() for end in IMAGE_SUFFIXES)
    return name.endswith(_SUFFIXES) or (path.suffix in ("", *_numeric(path)) and is_dicom(path))


def stem(path: str | Path) -> str:
    """The file name without its image suffix.

    >>> stem("a/b/scan.v2.nii.gz"), stem("series")
    ('scan.v2', 'series')
    """
    name = Path(path).name
    for suffix in (*_SUFFIXES, *IMAGE_SUFFIXES):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def _numeric(path: Path) -> tuple[str, ...]:
    """DICOM files are often named by their UID, whose last number looks like a suffix."""
    return (path.suffix,) if path.suffix[1:].isdigit() else ()
