"""NRRD and MetaImage files through SimpleITK, which is imported on first use."""

from __future__ import annotations

import gzip
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from medgen import files
from medgen.errors import DataError, GeometryError
from medgen.faults import fail
from medgen.io.nifti import check_finite
from medgen.volume import Grid, Volume

SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
# ITK's world is LPS+, ours RAS+.
_LPS_TO_RAS = np.diag((-1.0, -1.0, 1.0, 1.0))


def is_itk(head: bytes) -> bool:
    """Whether the first bytes of a file are an NRRD or a MetaImage header."""
    return head.startswith(b"NRRD000") or any(
        line.split(b"=")[0].strip() in (b"ObjectType", b"NDims") for line in head[:200].splitlines()[:3]
    )


def read_itk(path: str | Path, *, allow_nan: bool = False, fill: float | None = None) -> Volume:
    """Read an NRRD, MHA or MHD file as a volume of shape (c, i, j, k) in RAS+ mm.

    Integers keep their type, floats become float32; components of a vector image become channels.

    Raises:
        FaultyDataError: If the file cannot be read, is shorter than its header says, is not three-dimensional, says
            nothing about its orientation, holds complex numbers, or has voxels that are not finite.
    """
    import SimpleITK as sitk

    path = Path(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        _check_file(path)
        sizes = reader.GetSize()
        if sum(size > 1 for size in sizes) != 3 or any(size > 1 for size in sizes[3:]):
            found = f"an image of {'x'.join(map(str, sizes))}"
            raise fail(path, found, "a 3D image", "export one 3D volume")
        image = reader.Execute()
    except RuntimeError as error:
        # ITK's own reason is only of use for NRRD; for MetaImage it is the last error of the system, whatever that was.
        reason = str(error).strip().splitlines()[-1].strip()[:120]
        found = f"cannot be read ({reason})" if "nrrd" in reason else "truncated or damaged"
        raise fail(path, found, "a complete NRRD or MetaImage file", "copy or export it again") from None
    if image.GetDimension() > 3:
        image = image[(slice(None),) * 3 + (0,) * (image.GetDimension() - 3)]
    values = sitk.GetArrayFromImage(image)
    if values.dtype.kind not in "iuf":
        raise fail(path, f"{values.dtype} data", "one real number per voxel", "convert it to grey values")
    if values.dtype.kind == "f":
        values = values.astype(np.float32, copy=False)
    values = check_finite(path, values, allow_nan, fill)
    data = np.moveaxis(values, -1, 0) if image.GetNumberOfComponentsPerPixel() > 1 else values[None]
    direction = np.array(image.GetDirection()).reshape(3, 3)
    affine = np.eye(4)
    affine[:3, :3] = direction * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    data = data.transpose(0, 3, 2, 1)
    try:
        return Volume(data, Grid(data.shape[1:], _LPS_TO_RAS @ affine))
    except GeometryError as error:
        raise fail(path, str(error), "an invertible orientation matrix", "export it again") from None


def write_itk(volume: Volume, path: str | Path) -> None:
    """Write an NRRD (``.nrrd``) or MetaImage (``.mha``) file, compressed and atomically.

    Raises:
        DataError: If the grid is sheared (the formats cannot say so), or the file cannot be written completely.
    """
    import SimpleITK as sitk

    path = Path(path)
    affine = _LPS_TO_RAS @ volume.grid.affine
    direction = affine[:3, :3] / volume.grid.spacing
    if not np.allclose(direction.T @ direction, np.eye(3), atol=1e-4):
        raise fail(path, "a sheared grid", "orthogonal axes for NRRD and MetaImage", "write .nii.gz instead")
    data = volume.data.astype(np.uint8) if volume.data.dtype.kind == "b" else volume.data
    vector = data.shape[0] > 1
    array = np.ascontiguousarray(data.transpose(3, 2, 1, 0) if vector else data[0].transpose(2, 1, 0))
    image = sitk.GetImageFromArray(array, isVector=vector)
    image.SetSpacing(volume.grid.spacing)
    image.SetDirection(direction.ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    with files.atomic_path(path) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), useCompression=True)
            # ITK does not report a full disk, so what it wrote is read once more.
            complete = np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(temporary))), array, _floating(array))
        except RuntimeError as error:
            raise DataError(f"{path}: cannot be written ({str(error).strip().splitlines()[-1][:120]})") from None
        if not complete:
            raise DataError(f"{path}: was not written completely; check the space on the disk")


def _floating(array: Any) -> bool:
    """Whether NaN may occur, as ``equal_nan`` of NumPy wants to know."""
    return bool(array.dtype.kind == "f")


def _check_file(path: Path) -> None:
    """Refuse what ITK accepts without a word: NRRD without an anatomical space, and damaged compressed voxels."""
    content = path.read_bytes()
    try:
        if content.startswith(b"NRRD"):
            header, _, voxels = content.partition(b"\n\n")
            lines = [line.partition(b":") for line in header.lower().splitlines()]
            fields = {name.strip(): value.strip() for name, separator, value in lines if separator}
            if not {b"space", b"space directions"} <= fields.keys():
                found = "no anatomical space, so left and right are unknown"
                raise fail(path, found, "the fields 'space' and 'space directions'", "export it again")
            if fields.get(b"encoding") in (b"gzip", b"gz") and not fields.keys() & {b"data file", b"datafile"}:
                gzip.decompress(voxels)
        else:
            header, _, rest = content.partition(b"ElementDataFile")
            name, _, voxels = rest.partition(b"\n")
            if re.search(rb"CompressedData\s*=\s*True", header):
                local = name.strip(b" =\r") == b"LOCAL"
                zlib.decompress(voxels if local else (path.parent / name.strip(b" =\r").decode()).read_bytes())
    except (zlib.error, EOFError, OSError, UnicodeDecodeError) as error:
        raise fail(path, f"damaged voxels ({error})", "a complete file", "copy or export it again") from None
