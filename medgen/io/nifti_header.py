"""What a NIfTI header must say before a voxel is read: kind, type, shape, place of the voxels, scale, orientation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from medgen.errors import GeometryError
from medgen.faults import FaultyDataError, fail
from medgen.io.grids import corners, far, sheared
from medgen.volume import Grid

VECTOR_INTENT = 1007
_SIZES = {size.to_bytes(4, order): size for size in (348, 540) for order in ("little", "big")}
_MAGIC = {348: b"n+1\0", 540: b"n+2\0\r\n\x1a\n"}
_PAIR_MAGIC = {348: b"ni1\0", 540: b"ni2\0\r\n\x1a\n"}
PAIR_SUFFIXES = (".hdr", ".hdr.gz")
_REEXPORT = "export it again from its source"
_MILLIMETRES, _UNKNOWN_UNIT = 2, 0
# By the standard; its multiples of 16 not every writer keeps to.
_SMALLEST_EXTENSION = 16


@dataclass(frozen=True)
class Layout:
    """How the voxels of a file are stored.

    Attributes:
        offset: Where they start, in bytes.
        shape: (i, j, k, c).
        dtype: As stored, byte order included.
        slope: Value of one step.
        intercept: Value of a stored 0.
        extended: Whether header extensions may lie between header and voxels, in the same file.
    """

    offset: int
    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    slope: float
    intercept: float
    extended: bool

    @property
    def count(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Bytes of all voxels."""
        return self.count * self.dtype.itemsize

    @property
    def scaled(self) -> bool:
        """Whether values are not as stored."""
        return (self.slope, self.intercept) != (1.0, 0.0)


def header_size(head: bytes) -> int:
    """Bytes of the header that a file starts with, 348 or 540; 0 if it is no NIfTI (or ANALYZE) file."""
    return _SIZES.get(head[:4], 0)


def is_pair(path: Path, content: bytes) -> bool:
    """Whether a file is the header of a pair, by its name and its first bytes: its voxels are in another file."""
    size = header_size(content)
    magic = content[344:348] if size == 348 else content[4:12]
    return bool(size) and magic == _PAIR_MAGIC[size] and path.name.lower().endswith(PAIR_SUFFIXES)


def parse(path: Path, content: bytes) -> Any:
    """The header as nibabel's object, unchecked but for its kind.

    Args:
        path: For messages.
        content: The first 348 or 540 bytes.

    Raises:
        FaultyDataError: If it is not the header of a NIfTI file, or of a pair and the file is not named as such.
    """
    size = header_size(content)
    if not size or len(content) < size:
        what = "an empty file" if not content else "a truncated header" if size else "not a NIfTI image"
        raise fail(path, what, "a NIfTI-1 or NIfTI-2 file", "check the path, or copy the file again")
    magic = content[344:348] if size == 348 else content[4:12]
    pair = is_pair(path, content)
    if magic[:3] in (b"ni1", b"ni2") and not pair:
        found = "the header of a NIfTI header and image pair"
        raise fail(
            path, found, "one .nii file, or .hdr and .img side by side", "copy both, or convert them to one file"
        )
    if size == 348 and not magic.strip(b"\0"):
        raise fail(path, "an ANALYZE 7.5 file, which does not say left from right", "NIfTI", f"{_REEXPORT} as NIfTI")
    if magic != _MAGIC[size] and not pair:
        expected = "n+1" if size == 348 else "n+2 and its line ends"
        raise fail(path, f"a header with the magic {magic!r}", f"{expected}", "copy it again, in binary mode")
    if pair:
        cls = nib.nifti1.Nifti1PairHeader if size == 348 else nib.nifti2.Nifti2PairHeader
    else:
        cls = nib.Nifti1Header if size == 348 else nib.Nifti2Header
    # The header's own checks repair silently; the ones below refuse instead.
    order = "<" if content[:4] == size.to_bytes(4, "little") else ">"
    return cls(content[:size], endianness=order, check=False)


def layout_of(path: Path, header: Any, *, multichannel: bool, unscaled: bool) -> Layout:
    """How the voxels are stored.

    Raises:
        FaultyDataError: If the header contradicts itself, or the image is not three-dimensional or not of real numbers.
    """
    shape = _shape(path, header, multichannel)
    dtype = _dtype(path, header)
    offset = _offset(path, header)
    slope, intercept = _scale(path, header, unscaled)
    extended = bool(header.is_single) and offset > header.single_vox_offset
    return Layout(offset, shape, dtype, slope, intercept, extended)


def _shape(path: Path, header: Any, multichannel: bool) -> tuple[int, int, int, int]:
    dim = [int(n) for n in header["dim"]]
    sizes = dim[1 : 1 + dim[0]] if 1 <= dim[0] <= 7 else []
    if not sizes or min(sizes) < 1:
        raise fail(path, f"invalid dimensions {dim}", "positive sizes along 3 axes", _REEXPORT)
    sizes += [1] * (7 - len(sizes))
    spatial, extra = sizes[:3], sizes[3:]
    if min(spatial) < 2:
        raise fail(path, f"a single slice ({_times(spatial)})", "a 3D image", "export the whole series")
    channels = 1
    if max(extra[2:]) > 1 or (extra[0] > 1 and extra[1] > 1):
        raise fail(path, f"a {dim[0]}D image of {_times(dim[1 : 1 + dim[0]])}", "a 3D image", "split it")
    if extra[1] > 1:
        if int(header["intent_code"]) != VECTOR_INTENT and not multichannel:
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


def _dtype(path: Path, header: Any) -> np.dtype[Any]:
    code, bits = int(header["datatype"]), int(header["bitpix"])
    try:
        dtype: np.dtype[Any] = header.get_data_dtype()
    except (HeaderDataError, KeyError):
        raise fail(path, f"unknown data type code {code}", "numbers", _REEXPORT) from None
    if dtype.fields is not None or dtype.kind not in "iuf" or dtype.itemsize > 8 or not dtype.itemsize:
        kind = "colours" if dtype.fields is not None else f"{dtype} data" if dtype.itemsize else f"data of type {code}"
        raise fail(path, kind, "one real number per voxel", "convert it to grey values")
    if bits != 8 * dtype.itemsize:
        found = f"{bits} bits per voxel of type {dtype.newbyteorder('=')}"
        raise fail(path, found, f"{8 * dtype.itemsize} bits", _REEXPORT)
    return dtype


def _offset(path: Path, header: Any) -> int:
    offset = header["vox_offset"].item()
    least = int(header.single_vox_offset if header.is_single else header.pair_vox_offset)
    if not math.isfinite(offset) or offset != int(offset) or offset < least:
        raise fail(path, f"voxels said to start at byte {offset:g}", f"a whole number from {least} on", _REEXPORT)
    return int(offset)


def _scale(path: Path, header: Any, unscaled: bool) -> tuple[float, float]:
    slope, intercept = header["scl_slope"].item(), header["scl_inter"].item()
    if slope == 0 or math.isnan(slope):
        if unscaled:
            return 1.0, 0.0
        # By the standard 0 says "not scaled" (FreeSurfer writes it so); it is also what a lost scale looks like.
        found, expected = f"a scale (scl_slope) of {slope:g}", "a finite number other than 0"
        action = "set it to 1 if values are as stored, or declare that: cohort.unscaled=true, or data import --unscaled"
        raise fail(path, found, expected, action)
    if not math.isfinite(slope) or not math.isfinite(intercept):
        raise fail(path, f"scale {slope:g} and offset {intercept:g}", "finite numbers", _REEXPORT)
    if not float(np.finfo(np.float32).tiny) <= abs(slope) <= float(np.finfo(np.float32).max):
        # Below, values would lose their digits one by one, down to 0; above, they would all be infinite.
        raise fail(path, f"a scale (scl_slope) of {slope:g}", "a number that single precision can hold", _REEXPORT)
    return slope, intercept


def check_extensions(path: Path, header: Any, content: bytes) -> None:
    """Refuse header extensions that do not fill the bytes between header and voxels as they say.

    Args:
        path: For messages.
        header: The header that :func:`parse` read.
        content: All bytes from the end of the header to the first voxel, the four of the extension flag included.
    """
    order: Literal["little", "big"] = "little" if header.endianness == "<" else "big"
    # By places and not by what is left: copying that for each of millions of tiny extensions would take hours.
    end, place = len(content.rstrip(b"\0")) if content[0] else 0, 4
    while place < end:
        size = int.from_bytes(content[place : place + 4], order, signed=True)
        if not _SMALLEST_EXTENSION <= size <= len(content) - place:
            found = f"a header extension of {size} bytes where {len(content) - place} are left"
            raise fail(path, found, "extensions that end where the voxels start", _REEXPORT)
        place += size


def grid_of(path: Path, header: Any, shape: tuple[int, int, int]) -> Grid:
    """The grid: sform where its code is set, else qform.

    Raises:
        FaultyDataError: If there is no orientation, it is singular, sheared or far away, the two forms disagree by more
            than 1e-3 mm, or the voxel sizes are not positive, not in mm, or not those of the orientation.
    """
    zooms = np.asarray(header["pixdim"][1:4], dtype=np.float64)
    if not np.isfinite(zooms).all() or zooms.min() <= 0:
        raise fail(path, f"voxel sizes {zooms.tolist()}", "positive voxel sizes in mm", _REEXPORT)
    unit = int(header["xyzt_units"]) & 7
    if unit not in (_UNKNOWN_UNIT, _MILLIMETRES):
        name = {1: "metres", 3: "micrometres"}.get(unit, f"an unknown unit (code {unit})")
        raise fail(path, f"voxel sizes in {name}", "millimetres", "rescale the header to millimetres")
    codes = int(header["sform_code"]), int(header["qform_code"])
    if max(codes) <= 0:
        found = "neither sform nor qform is set, so left and right are unknown"
        raise fail(path, found, "an orientation", f"{_REEXPORT} with a converter that keeps it")
    if max(codes) > 5 or min(codes) < 0:
        raise fail(path, f"orientation codes {codes[0]} (sform) and {codes[1]} (qform)", "0 to 5", _REEXPORT)
    qform = _qform(path, header) if codes[1] else None
    affine = np.asarray(header.get_sform() if codes[0] else qform, dtype=np.float64)
    if not np.isfinite(affine).all():
        raise fail(path, f"an sform of {affine[:3].tolist()}", "finite numbers", _REEXPORT)
    try:
        grid = Grid(shape, affine)
    except GeometryError as error:
        raise fail(path, str(error), "an invertible orientation matrix", _REEXPORT) from None
    for fault in (sheared(path, grid), far(path, grid), _other_sizes(path, grid, zooms)):
        if fault is not None:
            raise fault
    if codes[0] and qform is not None and (distance := form_distance(header, grid, qform, sheared=True)) > 0:
        raise fail(
            path,
            f"sform and qform disagree by up to {distance:.4g} mm",
            "one orientation",
            "decide which is right, and write it to both or set the other's code to 0",
        )
    return grid


def _qform(path: Path, header: Any) -> NDArray[np.float64]:
    numbers = [header[name].item() for name in ("quatern_b", "quatern_c", "quatern_d")]
    offsets = [header[f"qoffset_{axis}"].item() for axis in "xyz"]
    handedness = header["pixdim"][0].item()
    if handedness not in (-1, 1):
        raise fail(path, f"a qform with qfac (pixdim[0]) {handedness:g}", "1 or -1", _REEXPORT)
    if not np.isfinite(numbers + offsets).all():
        raise fail(path, f"a qform of quaternion {numbers} and offset {offsets}", "finite numbers", _REEXPORT)
    try:
        qform: NDArray[np.float64] = header.get_qform()
    except (HeaderDataError, ValueError):
        raise fail(path, "an invalid qform quaternion", "a rotation", _REEXPORT) from None
    return qform


def _other_sizes(path: Path, grid: Grid, zooms: NDArray[np.float64]) -> FaultyDataError | None:
    difference = np.abs(zooms - grid.spacing)
    if ((difference <= 1e-3 * zooms) | (difference * (np.array(grid.shape) - 1) <= 1e-3)).all():
        return None
    sizes = [" x ".join(f"{size:.5g}" for size in numbers) for numbers in (zooms, grid.spacing)]
    found = f"voxel sizes (pixdim) {sizes[0]} mm, but {sizes[1]} mm by the orientation"
    return fail(path, found, "the same voxel sizes", "decide which is right, and correct the other")


def form_distance(header: Any, grid: Grid, qform: NDArray[np.float64], *, sheared: bool = False) -> float:
    """Largest distance (mm) between corners under the two forms; 0 where float32 rounding explains it.

    Args:
        header: The file's header, which holds the quaternion.
        grid: By the sform.
        qform: 4 × 4.
        sheared: Whether what the sform is sheared by, which no quaternion can hold, explains it, too.
    """
    ends = corners(grid)
    shift = np.abs(grid.affine[:3, 3] - qform[:3, 3])
    turn = np.abs(ends @ (grid.affine[:3, :3] - qform[:3, :3]).T)
    # A quaternion stores b, c, d in float32; a = sqrt(1 - b² - c² - d²) loses half the digits near a = 0, which is
    # where scanners' 180 degree turns lie: an angle of up to 1e-3 rad is then rounding, not disagreement.
    b, c, d = (float(header[f"quatern_{name}"]) for name in "bcd")
    square = max(1.0 - b * b - c * c - d * d, 0.0)
    angle = 2 * min(1.2e-7 / max(math.sqrt(square), 1e-12), 5e-4)
    extent = np.linalg.norm(np.array(grid.spacing) * (np.array(grid.shape) - 1))
    angle += float(np.abs(np.triu(grid.directions.T @ grid.directions, 1)).max()) if sheared else 0.0
    rounding = 2.4e-7 * np.abs(grid.affine[:3, 3]).max()
    if shift.max() <= 1e-3 + rounding and turn.max() <= 1e-3 + angle * extent:
        return 0.0
    return float(np.abs(grid.to_world(ends) - (ends @ qform[:3, :3].T + qform[:3, 3])).max())
