"""NIfTI-1 and NIfTI-2 files and pairs: read to the last byte and checked, written from scratch and atomically."""

from __future__ import annotations

import gzip
import logging
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medgen.faults import Fault, FaultyDataError, fail
from medgen.io import deflate, nifti_header
from medgen.io.companions import check_inside, named
from medgen.io.grids import sheared
from medgen.io.nifti_header import VECTOR_INTENT, Layout, form_distance
from medgen.io.streams import Stream, check_memory, too_large
from medgen.system import files
from medgen.volume import Grid, Volume

logger = logging.getLogger(__name__)

# NIfTI-1 counts voxels along an axis in 16 bits.
_LONGEST_NIFTI1 = 32767
_AGAIN = "copy or download it again"
IMAGE_SUFFIXES = (".img", ".img.gz")
# Largest header extensions that are kept for checking: beyond, they are data of their own.
_LARGEST_EXTENSION = 1 << 26
_LARGEST_HEADER = 540


def is_nifti(head: bytes) -> bool:
    """Whether the first bytes of an uncompressed file are those of a NIfTI or ANALYZE header."""
    return nifti_header.header_size(head) > 0


def read_nifti(
    path: str | Path,
    *,
    allow_nan: bool = False,
    multichannel: bool = False,
    fill: float | None = None,
    unscaled: bool = False,
) -> Volume:
    """Read a NIfTI file as a volume.

    Unscaled integers keep their type; scaled and floating-point data become float32. The sform is used where its
    code is set, else the qform. A five-dimensional vector image (i, j, k, 1, c) has c channels.

    The header is checked first, and says how much may follow: neither more nor less is read, whatever a compressed file
    would unpack to.

    Args:
        path: ``.nii`` or ``.nii.gz``; the content decides, not the suffix. Of a pair, the ``.hdr`` with its ``.img``
            beside it.
        allow_nan: Accept NaN voxels, which mean "no value" in medgen's own heatmaps.
        multichannel: Take the fourth axis of a four-dimensional image as channels instead of refusing it as time.
        fill: Value for voxels that are NaN or infinite; None refuses them.
        unscaled: Take values as stored where the scale is 0 or NaN, instead of refusing the file.

    Returns:
        A volume of shape (c, i, j, k) in RAS+ mm.

    Raises:
        FaultyDataError: If the file is not a NIfTI image, is truncated, damaged or longer than it should be, does not
            fit in memory, has no, contradicting, sheared or far-away orientation, is not three-dimensional, holds
            colours or complex numbers, or has voxels that are not finite.
    """
    path = Path(path)
    with Stream(path) as stream:
        content = stream.read(4)
        content += stream.read(max(nifti_header.header_size(content) - 4, 0))
        header = nifti_header.parse(path, content)
        layout = nifti_header.layout_of(path, header, multichannel=multichannel, unscaled=unscaled)
        grid = nifti_header.grid_of(path, header, layout.shape[:3])
        try:
            if header.is_single:
                stream.check_size(layout.offset + layout.size)
                _skip_extensions(stream, header, layout, len(content))
                values = _values(stream, layout)
            else:
                _check_rest(stream, header)
                image = image_beside(path)
                with named(path, image), Stream(image) as voxels:
                    voxels.check_size(layout.offset + layout.size)
                    if voxels.skip(layout.offset) < layout.offset:
                        raise _truncated(voxels.path, 0, layout)
                    values = _values(voxels, layout)
        except MemoryError:
            raise too_large(path, _memory(layout)) from None
    values = check_finite(path, values, allow_nan, fill)
    return Volume(np.moveaxis(values, 3, 0), grid)


def image_beside(path: Path) -> Path:
    """The file with the voxels of a NIfTI pair: ``scan.img`` or ``scan.img.gz`` for ``scan.hdr``.

    Raises:
        FaultyDataError: If there is none, there are two, or it is a link to another folder.
    """
    name = path.name[: path.name.lower().rindex(".hdr")]
    wanted = {f"{name}{suffix}".lower() for suffix in IMAGE_SUFFIXES}
    found = sorted(file for file in path.parent.iterdir() if file.name.lower() in wanted and file.name.startswith(name))
    if len(found) != 1:
        what = f"{len(found)} image files" if found else "no image file"
        raise fail(path, f"a NIfTI header with {what}", f"{name}.img beside it", "copy both files of the pair")
    check_inside(path, found[0])
    return found[0]


def header_beside(path: Path) -> Path | None:
    """The ``.hdr`` of an ``.img``, where there is one and it is that of a NIfTI pair."""
    for suffix in IMAGE_SUFFIXES:
        if path.name.lower().endswith(suffix):
            name = path.name[: -len(suffix)]
            for other in nifti_header.PAIR_SUFFIXES:
                header = path.with_name(f"{name}{other}")
                if header.is_file():
                    with Stream(header) as stream:
                        if nifti_header.is_pair(header, stream.read(_LARGEST_HEADER)):
                            return header
    return None


def check_finite(path: Path, values: NDArray[Any], allow_nan: bool, fill: float | None = None) -> NDArray[Any]:
    """The values, without voxels that are not finite: those are refused, filled, or (NaN only) allowed."""
    # A sum is finite only if its terms are: one pass without a temporary mask for the usual, clean image. In the type
    # of the values, which is three times as fast: one that overflows is looked at more closely below.
    if values.dtype.kind != "f":
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        if values.size and np.isfinite(values.sum()):
            return values
    missing, infinite = int(np.isnan(values).sum()), int(np.isinf(values).sum())
    if not infinite and (not missing or allow_nan):
        return values
    counts = ((missing, "NaN"), (infinite, "infinite"))
    found = " and ".join(f"{count} {name} voxels" for count, name in counts if count)
    action = "replace them (--fill 0, or cohort.fill=0 in a configuration), or leave the file out"
    if missing + infinite == values.size:
        found += ", which is all of them"
        action = "export the scan again, or leave the file out"
    elif fill is not None:
        logger.info("%s: %s filled with %g", path, found, fill)
        return np.where(np.isfinite(values), values, np.float32(fill))
    raise fail(path, found, "finite values", action)


def _skip_extensions(stream: Stream, header: Any, layout: Layout, done: int) -> None:
    between = layout.offset - done
    if between > _LARGEST_EXTENSION:
        found = f"{between} bytes between header and voxels"
        raise fail(stream.path, found, f"at most {_LARGEST_EXTENSION}", "export it again from its source")
    content = stream.read(between)
    if len(content) < between:
        raise _truncated(stream.path, 0, layout)
    if layout.extended:
        nifti_header.check_extensions(stream.path, header, content)


def _check_rest(stream: Stream, header: Any) -> None:
    """What follows the header of a pair: four bytes that say whether extensions follow, or nothing."""
    content = stream.read(_LARGEST_EXTENSION + 1)
    if len(content) > _LARGEST_EXTENSION or (len(content) > 4 and not content[0]) or 0 < len(content) < 4:
        found = f"{len(content)} bytes behind the header of a pair"
        raise fail(stream.path, found, "header extensions, or none", "export it again from its source")
    if content:
        nifti_header.check_extensions(stream.path, header, content)
    stream.finish("the header")


def _memory(layout: Layout) -> int:
    """Most bytes that reading takes: as stored, and as float32 where that is something else."""
    converted = layout.scaled or (layout.dtype.kind == "f" and layout.dtype.itemsize != 4)
    return layout.size + (4 * layout.count if converted or not layout.dtype.isnative else 0)


def _values(stream: Stream, layout: Layout) -> NDArray[Any]:
    check_memory(stream.path, _memory(layout))
    buffer = stream.take(layout.size)
    if len(buffer) < layout.size:
        raise _truncated(stream.path, len(buffer), layout)
    stream.finish(f"{layout.size} bytes of voxels")
    values = np.frombuffer(buffer, layout.dtype).reshape(layout.shape, order="F")
    if not layout.scaled:
        native = np.dtype(np.float32) if layout.dtype.kind == "f" else layout.dtype.newbyteorder("=")
        with np.errstate(over="ignore"):
            return values.astype(native, order="F", copy=False)
    result = np.empty(layout.shape, dtype=np.float32, order="F")
    # Slice by slice: double precision on the way, without the memory for a whole image of it. What overflows becomes
    # infinite, and is refused as such.
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(layout.shape[2]):
            result[:, :, k] = values[:, :, k] * layout.slope + layout.intercept
    return result


def _truncated(path: Path, available: int, layout: Layout) -> FaultyDataError:
    return fail(path, f"truncated: {available} of {layout.size} bytes of voxels", "a complete file", _AGAIN)


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
        DataError: If the grid is sheared (it would be refused when it is read), or the file cannot be written.
    """
    path = Path(path)
    content = _encode(volume, path, description)
    # Neither a time nor a file name goes into the stream.
    files.write_bytes(path, deflate.packed(content) if path.name.endswith(".gz") else content)


def nifti_bytes(volume: Volume, *, slope: float = 1.0, intercept: float = 0.0, level: int = 6) -> bytes:
    """A volume as the bytes of a ``.nii.gz``, for pages that hold their images; otherwise as :func:`write_nifti`.

    Args:
        volume: Stored values.
        slope: What readers multiply a stored value by.
        intercept: What they add to that.
        level: Of the compression, 1 (fast) to 9 (small).

    Raises:
        DataError: If the grid is sheared.
    """
    # By zlib on every machine: these bytes are part of pages, and few.
    return gzip.compress(_encode(volume, Path("volume.nii.gz"), "", slope, intercept), level, mtime=0)


def to_nibabel(volume: Volume) -> nib.Nifti1Image:
    """A volume as a nibabel image, (i, j, k) or (i, j, k, c), as :func:`write_nifti` stores it.

    Raises:
        DataError: If the grid is sheared.
    """
    cls = nib.Nifti2Image if max(volume.grid.shape) > _LONGEST_NIFTI1 else nib.Nifti1Image
    return cls.from_bytes(_encode(volume, Path("image"), "").tobytes())


def from_nibabel(image: Any, name: str = "image") -> Volume:
    """A nibabel image as a volume, (c, i, j, k) float32; a fourth axis, or a fifth behind one of 1, is channels.

    Args:
        image: Any spatial image with an affine to RAS+ mm.
        name: For messages.

    Raises:
        FaultyDataError: If it has another number of axes, or values that are not finite.
        GeometryError: If the affine is no grid.
    """
    values = np.asarray(image.dataobj)
    if values.dtype.kind not in "biuf":
        raise fail(Path(name), f"{values.dtype} values", "one real number per voxel", "give a scan")
    data = values.astype(np.float32)
    if data.ndim == 5 and data.shape[3] == 1:
        data = data[:, :, :, 0]
    if data.ndim not in (3, 4):
        raise fail(Path(name), f"{data.ndim} axes", "3, or 4 with channels last", "give one scan")
    data = data[None] if data.ndim == 3 else np.moveaxis(data, 3, 0)
    return Volume(check_finite(Path(name), data, allow_nan=False), Grid(data.shape[1:], np.asarray(image.affine)))


def _encode(volume: Volume, path: Path, description: str, slope: float = 1.0, intercept: float = 0.0) -> memoryview:
    if (fault := sheared(path, volume.grid)) is not None:
        raise fault
    data = _storable(path, volume.data)
    channels, *shape = data.shape
    cls = nib.Nifti2Header if max(shape) > _LONGEST_NIFTI1 else nib.Nifti1Header
    header = cls()
    header.set_data_dtype(data.dtype)
    header.set_data_shape(shape if channels == 1 else (*shape, 1, channels))
    header["pixdim"][1:4] = volume.grid.spacing
    header["pixdim"][4:] = 1
    header["intent_code"] = 0 if channels == 1 else VECTOR_INTENT
    header["descrip"] = description.encode("ascii", "replace")[:79]
    header.set_xyzt_units("mm")
    header["scl_slope"], header["scl_inter"] = slope, intercept
    header.set_sform(volume.grid.affine, code=1)
    header.set_qform(volume.grid.affine, code=1, strip_shears=True)
    stored = Grid(volume.grid.shape, header.get_sform())
    if form_distance(header, stored, header.get_qform()) > 0:
        header["qform_code"] = 0
    header["magic"] = header.single_magic
    header["vox_offset"] = header.single_vox_offset
    start = header.single_vox_offset
    content = np.empty(start + data.nbytes, dtype=np.uint8)
    content[:start] = np.frombuffer(header.binaryblock.ljust(start, b"\0"), dtype=np.uint8)
    _place(data, content[start:].view(data.dtype).reshape(channels, *shape[::-1]))
    return content.data


def _place(data: NDArray[Any], target: NDArray[Any]) -> None:
    """Copy (c, i, j, k) into (c, k, j, i): NIfTI's order, in which i runs fastest and channels slowest."""
    for channel, place in zip(data, target, strict=True):
        if channel.flags.f_contiguous:
            place[...] = channel.T
        else:
            # Plane by plane: NumPy's own transposition of three axes strides through memory twice as slowly.
            for j in range(channel.shape[1]):
                place[:, j] = channel[:, j].T


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
