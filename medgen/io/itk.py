"""NRRD and MetaImage files: geometry and writing through SimpleITK, which is imported on first use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.errors import DataError, GeometryError
from medgen.faults import fail
from medgen.io.grids import far, sheared
from medgen.io.itk_header import Voxels, itk_error, read_voxels, voxels_of
from medgen.io.nifti import check_finite
from medgen.system import files
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
        FaultyDataError: If the file cannot be read, is shorter or longer than its header says, does not fit in memory,
            has its voxels outside of its folder, is not three-dimensional, says nothing about its orientation, is
            sheared, holds complex numbers, or has voxels that are not finite.
    """
    path = Path(path)
    voxels = voxels_of(path)
    sizes, affine = (voxels.sizes, voxels.affine) if voxels.affine is not None else _nrrd_geometry(path, voxels)
    if len(sizes) < 3 or min(sizes[:3]) < 2 or any(size > 1 for size in sizes[3:]):
        raise fail(path, f"an image of {'x'.join(map(str, sizes))}", "a 3D image", "export one 3D volume")
    values = read_voxels(path, voxels)
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            values = values.astype(np.float32, copy=False)
    values = check_finite(path, values, allow_nan, fill)
    data = values.reshape((voxels.channels, *sizes[:3]), order="F")
    try:
        grid = Grid((sizes[0], sizes[1], sizes[2]), _LPS_TO_RAS @ affine)
    except GeometryError as error:
        raise fail(path, str(error), "an invertible orientation matrix", "export it again") from None
    for fault in (sheared(path, grid), far(path, grid)):
        if fault is not None:
            raise fault
    return Volume(data, grid)


def _nrrd_geometry(path: Path, voxels: Voxels) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Sizes and affine (voxel → LPS+ mm) as ITK understands the header."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    # The content decides, not the suffix.
    reader.SetImageIO("NrrdImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise itk_error(path, error) from None
    sizes, rank = reader.GetSize(), reader.GetDimension()
    if math.prod(sizes) * voxels.channels != voxels.count or reader.GetNumberOfComponents() != voxels.channels:
        found = f"{reader.GetNumberOfComponents()} numbers per voxel as ITK takes it"
        raise fail(path, found, "one real number per voxel, or channels first", "convert it to grey values")
    affine = np.eye(4)
    if rank == 3:
        affine[:3, :3] = np.array(reader.GetDirection()).reshape(3, 3) * np.array(reader.GetSpacing())
        affine[:3, 3] = reader.GetOrigin()
    return sizes, affine


def write_itk(volume: Volume, path: str | Path, fields: Mapping[str, str] | None = None) -> None:
    """Write an NRRD (``.nrrd``) or MetaImage (``.mha``) file, compressed and atomically.

    Args:
        volume: What to write.
        path: The suffix chooses the format.
        fields: Further keys and values for the header, such as the segment names of 3D Slicer.

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
    for key, value in (fields or {}).items():
        image.SetMetaData(key, value)
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
