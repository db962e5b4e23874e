"""FreeSurfer's MGH and MGZ files: read to the last byte and checked, as NIfTI files are."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medgen import affines
from medgen.errors import GeometryError
from medgen.faults import fail
from medgen.io.grids import far, sheared
from medgen.io.nifti import check_finite
from medgen.io.streams import Stream, check_memory, too_large
from medgen.volume import Grid, Volume

SUFFIXES = (".mgz", ".mgh")
# Version, four sizes, type, degrees of freedom, whether the geometry is set; then sizes, axes and centre (fields that
# are read; the rest up to byte 284 is unused). All big-endian, whatever machine wrote it.
_NUMBERS, _FLAG, _GEOMETRY, _SIZE = struct.Struct(">7i"), struct.Struct(">h"), struct.Struct(">15f"), 284
_TYPES = {0: "u1", 1: ">i4", 3: ">f4", 4: ">i2", 10: ">u2"}
# Scan parameters and the list of commands that made the file follow the voxels.
_LARGEST_FOOTER = 1 << 26
_AGAIN, _CONVERT = "copy or download it again", "convert it with mri_convert"


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, int, int]
    frames: int
    dtype: np.dtype[Any]
    grid: Grid


def is_mgh(head: bytes) -> bool:
    """Whether the first bytes of an uncompressed file are those of an MGH header."""
    if len(head) < _SIZE:
        return False
    version, *sizes, _, _ = _NUMBERS.unpack_from(head)
    known = _FLAG.unpack_from(head, _NUMBERS.size)[0] in (0, 1)
    return version == 1 and known and all(0 < size < 1 << 20 for size in sizes)


def read_mgh(
    path: str | Path, *, allow_nan: bool = False, multichannel: bool = False, fill: float | None = None
) -> Volume:
    """Read an MGH or MGZ file as a volume of shape (c, i, j, k) in RAS+ mm.

    Integers keep their type; floats are float32.

    Args:
        path: ``.mgh`` or ``.mgz``; the content decides, not the suffix.
        allow_nan: Accept NaN voxels.
        multichannel: Take frames as channels instead of refusing them as time.
        fill: Value for voxels that are NaN or infinite; None refuses them.

    Raises:
        FaultyDataError: If the file is truncated, damaged or does not fit in memory, is not three-dimensional, of an
            unknown type, has no or a sheared or far-away orientation, or voxels that are not finite.
    """
    path = Path(path)
    with Stream(path) as stream:
        header = _parse(path, stream.read(_SIZE), multichannel)
        count = int(np.prod(header.shape)) * header.frames
        size = count * header.dtype.itemsize
        if stream.packed:
            stream.check_size(_SIZE + size)
        elif stream.size < _SIZE + size:
            raise fail(path, f"truncated: {stream.size} of {_SIZE + size} bytes", "a complete file", _AGAIN)
        check_memory(path, 2 * size)
        try:
            buffer = np.empty(size, dtype=np.uint8)
            filled = stream.fill(buffer.data)
            if filled < size:
                raise fail(path, f"truncated: {filled} of {size} bytes of voxels", "a complete file", _AGAIN)
            # Read to the end, so that the checksum of a packed file is looked at.
            if stream.skip(_LARGEST_FOOTER) == _LARGEST_FOOTER:
                raise fail(path, f"more than {_LARGEST_FOOTER} bytes behind the voxels", "scan parameters", _AGAIN)
            values = buffer.view(header.dtype).reshape((*header.shape, header.frames), order="F")
            values = values.astype(header.dtype.newbyteorder("="), order="F", copy=False)
        except MemoryError:
            raise too_large(path, 2 * size) from None
    values = check_finite(path, values, allow_nan, fill)
    return Volume(np.moveaxis(values, 3, 0), header.grid)


def _parse(path: Path, content: bytes, multichannel: bool) -> _Header:
    if not is_mgh(content):
        raise fail(path, "a truncated or damaged MGH header", "an MGH or MGZ file", _AGAIN)
    _, width, height, depth, frames, kind, _ = _NUMBERS.unpack_from(content)
    shape = (width, height, depth)
    if min(shape) < 2:
        raise fail(path, f"a single slice ({width}x{height}x{depth})", "a 3D image", "export the whole series")
    if frames > 1 and not multichannel:
        action = "split it, or declare its channels in the manifest (column channels)"
        raise fail(path, f"a 4D image of {frames} volumes", "one 3D volume", action)
    if kind not in _TYPES:
        raise fail(path, f"voxels of type {kind}", "integers or floating-point numbers", _CONVERT)
    if not _FLAG.unpack_from(content, _NUMBERS.size)[0]:
        raise fail(path, "no orientation, so left and right are unknown", "an orientation", _CONVERT)
    numbers = np.array(_GEOMETRY.unpack_from(content, _NUMBERS.size + _FLAG.size), dtype=np.float64)
    spacing, axes, centre = numbers[:3], numbers[3:12].reshape(3, 3).T, numbers[12:]
    if not np.isfinite(numbers).all() or spacing.min() <= 0:
        raise fail(path, f"voxel sizes {spacing.tolist()}", "positive voxel sizes and finite axes in mm", _CONVERT)
    if np.abs(np.linalg.norm(axes, axis=0) - 1).max() > 1e-3:
        raise fail(path, f"directions of length {np.linalg.norm(axes, axis=0).tolist()}", "unit vectors", _CONVERT)
    linear = axes * spacing
    try:
        # The centre is that of voxel n / 2, half a voxel beyond the middle.
        grid = Grid(shape, affines.affine(linear, centre - linear @ (np.array(shape) / 2)))
    except GeometryError as error:
        raise fail(path, str(error), "an invertible orientation matrix", _CONVERT) from None
    for fault in (sheared(path, grid), far(path, grid)):
        if fault is not None:
            raise fault
    return _Header(shape, frames, np.dtype(_TYPES[kind]), grid)
