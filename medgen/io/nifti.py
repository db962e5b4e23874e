"""NIfTI-1 and NIfTI-2 single files: read to the last byte and checked, written from scratch and atomically."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from medgen import files
from medgen.errors import GeometryError
from medgen.faults import Fault, FaultyDataError, fail
from medgen.volume import Grid, Volume

GZIP_MAGIC = b"\x1f\x8b"
# NIfTI-1 counts voxels along an axis in 16 bits.
_LONGEST_NIFTI1 = 32767
_VECTOR_INTENT = 1007
_REEXPORT = "export it again from its source"


def is_nifti(head: bytes) -> bool:
    """Whether the first bytes of an uncompressed file (348 or more) are a NIfTI or ANALYZE header."""
    return head[:4] in _SIZES


_SIZES = {size.to_bytes(4, order): size for size in (348, 540) for order in ("little", "big")}


def read_nifti(path: str | Path, *, allow_nan: bool = False, multichannel: bool = False) -> Volume:
    """Read a NIfTI file as a volume.

    Unscaled integers keep their type; scaled and floating-point data become float32. The sform is used where its
    code is set, else the qform. A five-dimensional vector image (i, j, k, 1, c) has c channels.

    Args:
        path: ``.nii`` or ``.nii.gz``; the content decides, not the suffix.
        allow_nan: Accept NaN voxels, which mean "no value" in medgen's own heatmaps.
        multichannel: Take the fourth axis of a four-dimensional image as channels instead of refusing it as time.

    Returns:
        A volume of shape (c, i, j, k) in RAS+ mm.

    Raises:
        FaultyDataError: If the file is not a NIfTI image, is truncated or damaged, has no or contradicting
            orientation, is not three-dimensional, holds colours or complex numbers, or has voxels that are not finite.
    """
    path = Path(path)
    content = _content(path)
    header = _header(path, content)
    shape = _shape(path, header, multichannel)
    grid = _grid(path, header, shape[:3])
    values = _values(path, header, content, shape)
    check_finite(path, values, allow_nan)
    return Volume(np.moveaxis(values, 3, 0), grid)


def check_finite(path: Path, values: NDArray[Any], allow_nan: bool) -> None:
    """Refuse infinite voxels, and NaN voxels unless allowed."""
    # A sum is finite only if its terms are: one pass without a temporary mask for the usual, clean image.
    if values.dtype.kind != "f" or (values.size and np.isfinite(values.sum(dtype=np.float64))):
        return
    missing, infinite = int(np.isnan(values).sum()), int(np.isinf(values).sum())
    if infinite or (missing and not allow_nan):
        found = " and ".join(
            f"{count} {name} voxels" for count, name in ((missing, "NaN"), (infinite, "infinite")) if count
        )
        raise fail(path, found, "finite values", "replace them, or leave the file out of the cohort")


def _content(path: Path) -> bytes:
    """All bytes of the file, decompressed; the checksum at the end of a gzip file is verified."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise fail(path, f"cannot be read ({error.strerror or error})", "a readable file", "check the path") from None
    if raw[:2] != GZIP_MAGIC:
        return raw
    try:
        return gzip.decompress(raw)
    except (EOFError, OSError, zlib.error, ValueError) as error:
        found = "the gzip stream ends too early" if isinstance(error, EOFError) else f"damaged gzip stream ({error})"
        raise fail(path, found, "a complete file", "copy or download it again") from None


def _header(path: Path, content: bytes) -> Any:
    size = _SIZES.get(content[:4])
    if size is None or len(content) < size:
        what = "an empty file" if not content else "not a NIfTI image" if size is None else "a truncated header"
        raise fail(path, what, "a NIfTI-1 or NIfTI-2 file", "check the path, or copy the file again")
    magic = content[344:348] if size == 348 else content[4:8]
    if magic[:3] in (b"ni1", b"ni2"):
        raise fail(path, "a NIfTI header and image pair", "one .nii or .nii.gz file", "convert it to a single file")
    if magic[:3] not in (b"n+1", b"n+2"):
        raise fail(path, "an ANALYZE 7.5 file, which does not say left from right", "NIfTI", f"{_REEXPORT} as NIfTI")
    cls = nib.Nifti1Header if size == 348 else nib.Nifti2Header
    # The header's own checks repair silently; the ones below refuse instead.
    return cls(content[:size], check=False)


def _shape(path: Path, header: Any, multichannel: bool) -> tuple[int, int, int, int]:
    dim = [int(n) for n in header["dim"]]
    sizes = dim[1 : 1 + dim[0]] if 1 <= dim[0] <= 7 else []
    if not sizes or min(sizes) < 1:
        raise fail(path, f"invalid dimensions {dim}", "positive sizes along 3 axes", _REEXPORT)
    sizes += [1] * (7 - len(sizes))
    spatial, extra = sizes[:3], sizes[3:]
    if min(spatial) < 2:
        raise fail(path, f"a single slice ({'x'.join(map(str, spatial))})", "a 3D image", "export the whole series")
    channels = 1
    if max(extra[2:]) > 1 or (extra[0] > 1 and extra[1] > 1):
        raise fail(path, f"a {dim[0]}D image of {_times(dim[1 : 1 + dim[0]])}", "a 3D image", "split it")
    if extra[1] > 1:
        if int(header["intent_code"]) != _VECTOR_INTENT and not multichannel:
            raise fail(path, f"a 5D image of {_times(sizes[:5])}", "a 3D image", "split it into 3D images")
        channels = extra[1]
    elif extra[0] > 1:
        if not multichannel:
            found = f"a 4D image of {extra[0]} volumes"
            raise fail(
                path, found, "one 3D volume", "split it, or declare its channels in the manifest (column channels)"
            )
        channels = extra[0]
    return spatial[0], spatial[1], spatial[2], channels


def _times(sizes: list[int]) -> str:
    return "x".join(map(str, sizes))


def _grid(path: Path, header: Any, shape: tuple[int, int, int]) -> Grid:
    zooms = np.asarray(header["pixdim"][1:4], dtype=np.float64)
    if not np.isfinite(zooms).all() or zooms.min() <= 0:
        raise fail(path, f"voxel sizes {zooms.tolist()}", "positive voxel sizes in mm", _REEXPORT)
    unit = int(header["xyzt_units"]) & 7
    if unit in (1, 3):
        name = "metre" if unit == 1 else "micrometre"
        raise fail(path, f"voxel sizes in {name}s", "millimetres", "rescale the header to millimetres")
    sform_code, qform_code = int(header["sform_code"]), int(header["qform_code"])
    if sform_code <= 0 and qform_code <= 0:
        found = "neither sform nor qform is set, so left and right are unknown"
        raise fail(path, found, "an orientation", f"{_REEXPORT} with a converter that keeps it")
    try:
        qform = header.get_qform() if qform_code > 0 else None
    except (HeaderDataError, ValueError):
        raise fail(path, "an invalid qform quaternion", "a rotation", _REEXPORT) from None
    try:
        grid = Grid(shape, header.get_sform() if sform_code > 0 else header.get_qform())
    except GeometryError as error:
        raise fail(path, str(error), "an invertible orientation matrix", _REEXPORT) from None
    if sform_code > 0 and qform is not None:
        distance = _qform_distance(header, grid, qform)
        if distance > 0:
            raise fail(
                path,
                f"sform and qform disagree by up to {distance:.4g} mm",
                "one orientation",
                "decide which is right, and write it to both or set the other's code to 0",
            )
    return grid


def _qform_distance(header: Any, grid: Grid, qform: NDArray[np.float64]) -> float:
    """Largest distance (mm) between corners under the two forms; 0 where float32 rounding explains it."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in grid.shape], indexing="ij")).reshape(3, -1).T
    if not np.isfinite(qform).all():
        return float("inf")
    distance = np.abs(grid.to_world(corners) - (corners @ qform[:3, :3].T + qform[:3, 3])).max()
    # A quaternion stores b, c, d in float32; a = sqrt(1 - b² - c² - d²) loses half the digits near a = 0, which is
    # where scanners' 180 degree turns lie: an angle of up to 1e-3 rad is then rounding, not disagreement.
    b, c, d = (float(header[f"quatern_{name}"]) for name in "bcd")
    square = max(1.0 - b * b - c * c - d * d, 0.0)
    angle = 2 * min(1.2e-7 / max(np.sqrt(square), 1e-12), 5e-4)
    extent = np.linalg.norm(np.array(grid.spacing) * (np.array(grid.shape) - 1))
    return float(distance) if distance > 1e-3 + angle * extent else 0.0


def _values(path: Path, header: Any, content: bytes, shape: tuple[int, int, int, int]) -> NDArray[Any]:
    try:
        dtype = header.get_data_dtype()
    except (HeaderDataError, KeyError):
        raise fail(path, f"unknown data type code {int(header['datatype'])}", "numbers", _REEXPORT) from None
    if dtype.fields is not None or dtype.kind not in "iuf":
        kind = "colours" if dtype.fields is not None else f"{dtype} data"
        raise fail(path, kind, "one real number per voxel", "convert it to grey values")
    offset, count = int(header["vox_offset"]), math.prod(shape)
    if offset < header.single_vox_offset:
        raise fail(path, f"voxels said to start at byte {offset}", "a start after the header", _REEXPORT)
    available = max(len(content) - offset, 0)
    if available < count * dtype.itemsize:
        found = f"truncated: {available} of {count * dtype.itemsize} bytes of voxels"
        raise fail(path, found, "a complete file", "copy or download it again")
    values = np.frombuffer(content, dtype, count, offset).reshape(shape, order="F")
    # An undefined scale is stored as NaN or as a slope of 0.
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if np.isnan(slope) or slope == 0:
        slope, intercept = 1.0, 0.0
    if not np.isfinite((slope, intercept)).all():
        raise fail(path, f"scale {slope} and offset {intercept}", "finite numbers", _REEXPORT)
    if (slope, intercept) != (1.0, 0.0):
        # What overflows becomes infinite, and is refused as such by whoever reads the values.
        with np.errstate(over="ignore", invalid="ignore"):
            return (values * slope + intercept).astype(np.float32)
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return values.astype(np.float32, copy=False)
    return values.astype(dtype.newbyteorder("="), copy=False)


def write_nifti(volume: Volume, path: str | Path, *, description: str = "") -> None:
    """Write a volume as NIfTI-1, atomically (NIfTI-2 where an axis is longer than 32767 voxels).

    The header is made from scratch: nothing of a source file's text fields survives. The affine goes into the sform
    as it is (float32, which is exact for a grid that was read from NIfTI-1) and into the qform where a rotation can
    hold it. Equal volumes give equal bytes. Several channels are written as a vector image (i, j, k, 1, c).

    Args:
        volume: Floats are stored as float32, NaN included; booleans as uint8; 64-bit integers as 32-bit where they fit.
        path: ``.nii`` or ``.nii.gz``.
        description: Up to 79 ASCII characters for the header.

    Raises:
        DataError: If the file cannot be written.
    """
    path = Path(path)
    data = _storable(path, volume.data)
    channels, *shape = data.shape
    cls = nib.Nifti2Header if max(shape) > _LONGEST_NIFTI1 else nib.Nifti1Header
    header = cls()
    header.set_data_dtype(data.dtype)
    header.set_data_shape(shape if channels == 1 else (*shape, 1, channels))
    header["pixdim"][1:4] = volume.grid.spacing
    header["pixdim"][4:] = 1
    header["intent_code"] = 0 if channels == 1 else _VECTOR_INTENT
    header["descrip"] = description.encode("ascii", "replace")[:79]
    header.set_xyzt_units("mm")
    header["scl_slope"], header["scl_inter"] = 1, 0
    header.set_sform(volume.grid.affine, code=1)
    header.set_qform(volume.grid.affine, code=1, strip_shears=True)
    stored = Grid(volume.grid.shape, header.get_sform())
    if _qform_distance(header, stored, header.get_qform()) > 0:
        header["qform_code"] = 0
    header["magic"] = header.single_magic
    header["vox_offset"] = header.single_vox_offset
    padding = bytes(header.single_vox_offset - header.sizeof_hdr)
    content = header.binaryblock + padding + np.moveaxis(data, 0, 3).tobytes(order="F")
    # Neither a time nor a file name goes into the stream; level 1 is four times faster than 6 for 5 % more bytes.
    files.write_bytes(path, gzip.compress(content, 1, mtime=0) if path.name.endswith(".gz") else content)


def _storable(path: Path, data: NDArray[Any]) -> NDArray[Any]:
    kind, size = data.dtype.kind, data.dtype.itemsize
    if kind == "b":
        return data.astype(np.uint8)
    if kind == "f":
        return data.astype(np.float32, copy=False)
    if kind not in "iu":
        raise FaultyDataError([Fault(str(path), f"{data.dtype} values", "real numbers", "convert them before writing")])
    if size == 8 and data.size and np.iinfo(np.int32).min <= data.min() and data.max() <= np.iinfo(np.int32).max:
        return data.astype(np.int32)
    return data.astype(data.dtype.newbyteorder("="), copy=False)
