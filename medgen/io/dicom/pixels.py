"""The pixels of one DICOM file: what its header promises against what is there, checked before anything is decoded."""

from __future__ import annotations

import struct
import zlib
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from medgen.faults import FaultyDataError, fail
from medgen.io.quiet import mute, quiet

PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_AGAIN = "copy or export it again"
_COMPLETE = "a complete DICOM file"
# Decoders make what the header says: a small file that promises more than this, and more than any compression gains,
# is damaged or hostile.
_SMALL = 64 << 20
_GAIN = 1000
# A deflated file is unpacked as a whole; images gain a factor of 2 to 10.
_DEFLATED_SMALL = 128 << 20
_DEFLATED_GAIN = 20
# Who decodes what: the same on every machine, whatever else is installed. All are dependencies of this package.
_DECODERS = {
    uid.JPEGBaseline8Bit: "pillow",
    uid.JPEGExtended12Bit: "gdcm",
    uid.JPEGLossless: "gdcm",
    uid.JPEGLosslessSV1: "gdcm",
    uid.JPEGLSLossless: "pyjpegls",
    uid.JPEGLSNearLossless: "pyjpegls",
    uid.JPEG2000Lossless: "pillow",
    uid.JPEG2000: "pillow",
    uid.RLELossless: "pydicom",
}
_READ = "pixels uncompressed or in RLE, JPEG, JPEG Lossless, JPEG-LS or JPEG 2000"
_PIXEL_GROUP = 0x7FE0
# Digital signatures, and padding.
_BEHIND_PIXELS = (0xFFFA, 0xFFFC)
_ITEM = struct.Struct("<HHI")
_WORDS = struct.Struct("<HH2sHI")


def check_file(path: Path) -> None:
    """Refuse a file whose first bytes promise what it cannot hold, before it is parsed.

    Raises:
        FaultyDataError: If the meta information is longer than the file, or a deflated file is a decompression bomb.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(144 + 1024)
        if head[132:140] != struct.pack("<HH2sH", 2, 0, b"UL", 4):
            return
        end = 144 + struct.unpack("<I", head[140:144])[0]
        if end > size:
            raise fail(path, f"truncated: its file header alone has {end} bytes, the file {size}", _COMPLETE, _AGAIN)
        if DeflatedExplicitVRLittleEndian.encode() not in head[:end]:
            return
        file.seek(end)
        allowed = max(_DEFLATED_SMALL, _DEFLATED_GAIN * size)
        stream, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while total <= allowed and (block := stream.unconsumed_tail or file.read(1 << 16)):
            total += len(stream.decompress(block, 1 << 20))
        if total > allowed:
            found = f"{size} bytes that unpack to more than {allowed >> 20} MiB"
            raise fail(path, found, "an image", "do not open it; export the series again, uncompressed")


def check_length(path: Path, dataset: Dataset, frames: int, bits: int) -> None:
    """Refuse pixel data that is not as long as the header says, without decoding it.

    Args:
        path: The file.
        dataset: With rows, columns and transfer syntax.
        frames: Number of frames.
        bits: Per stored value.

    Raises:
        FaultyDataError: If pixels are missing or truncated, the transfer syntax is not that of the data, or the
            header promises more than the data can hold.
    """
    name = next((key for key in PIXELS if key in dataset), None)
    if name is None:
        raise fail(path, "no pixels", "pixel data in every file", "export it again")
    raw: Any = dataset.get_item(name)
    value = raw.value if isinstance(raw.value, bytes) else b""
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is None or syntax.is_private or not syntax.is_transfer_syntax:
        found = f"transfer syntax {syntax or 'missing'}"
        raise fail(path, found, "a transfer syntax of the DICOM standard", "export it again, uncompressed")
    if getattr(raw, "is_implicit_VR", syntax.is_implicit_VR) != syntax.is_implicit_VR:
        found = f"a data set that is not in its transfer syntax, {syntax.name}"
        raise fail(path, found, "the transfer syntax that its file header names", "export it again")
    declared = getattr(raw, "length", None)
    endless = declared == 0xFFFFFFFF or bool(getattr(raw, "is_undefined_length", False))
    samples = int(dataset.get("SamplesPerPixel") or 1)
    needed = (int(dataset.Rows) * int(dataset.Columns) * frames * samples * bits + 7) // 8
    shape = f"{frames} x {dataset.Rows} x {dataset.Columns} voxels of {bits} bits"
    if syntax.is_compressed and not syntax.is_deflated:
        if needed > max(_SMALL, _GAIN * len(value)):
            raise fail(path, f"{shape} promised by {len(value)} bytes", "pixels as the header says", _AGAIN)
        if not endless or not _fragments(value, frames):
            found = f"damaged pixels: no complete fragments, as transfer syntax {syntax.name} wants them"
            raise fail(path, found, _COMPLETE, _AGAIN)
        return
    if endless:
        raise fail(path, f"compressed pixels under the transfer syntax {syntax.name}", "the one of its pixels", _AGAIN)
    if len(value) < needed or (declared is not None and len(value) < declared):
        want = max(needed, declared or 0)
        raise fail(path, f"truncated: {len(value)} of {want} bytes of pixels ({shape})", _COMPLETE, _AGAIN)
    # One byte pads an odd length; a few more are common, a second frame is not.
    if len(value) > needed + max(64, needed // 50):
        found = f"{len(value)} bytes of pixels where the header says {needed} ({shape})"
        raise fail(path, found, "pixels as the header says", _AGAIN)


def check_end(path: Path, dataset: Dataset) -> None:
    """Refuse a file that goes on behind its pixels with what is no DICOM: another file, or damaged bytes.

    Raises:
        FaultyDataError: If an element comes behind the pixels whose place is before them, or nowhere.
    """
    tags = list(dataset.keys())
    last = max((tags.index(tag) for tag in tags if tag.group == _PIXEL_GROUP), default=len(tags))
    for tag in tags[last + 1 :]:
        # Zeros fill up tapes and blocks. Scanners put private groups there, the standard signatures and padding.
        zeros = tag == 0 and not dataset[tag].value
        if not zeros and (tag < tags[last] or (tag.group % 2 == 0 and tag.group not in _BEHIND_PIXELS)):
            raise fail(path, "other data behind the pixels", "the end of the file", _AGAIN)


def _fragments(value: bytes, frames: int) -> bool:
    """Whether encapsulated pixels are whole items, an offset table and at least one per frame."""
    place = count = 0
    while place + 8 <= len(value):
        group, element, length = _ITEM.unpack_from(value, place)
        if (group, element) == (0xFFFE, 0xE0DD):
            break
        if (group, element) != (0xFFFE, 0xE000) or place + 8 + length > len(value):
            return False
        place += 8 + length
        count += 1
    return count > frames


def decode(path: Path, dataset: Dataset) -> NDArray[Any]:
    """Stored values of a file, (frame, row, column).

    Raises:
        FaultyDataError: If the pixels are damaged, or compressed in a way that no installed decoder reads.
    """
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    packed = syntax is not None and syntax.is_compressed and not syntax.is_deflated
    if packed and syntax not in _DECODERS:
        action = "export it again in one of these, uncompressed for example"
        raise fail(path, f"pixels in {syntax.name} ({syntax}), which nothing here decodes", _READ, action)
    try:
        plugin = _DECODERS[syntax] if packed else ""
        with quiet(), mute() if plugin == "gdcm" else nullcontext():
            if plugin:
                dataset.pixel_array_options(decoding_plugin=plugin)
            values: NDArray[Any] = dataset.pixel_array
        rows, columns = int(dataset.Rows), int(dataset.Columns)
        values = values if values.ndim == 3 else values[None]
        if values.shape[1:] != (rows, columns):
            found = f"pixels of {'x'.join(map(str, values.shape))}, not of {rows}x{columns}"
            raise fail(path, found, "pixels as the header says", _AGAIN)
        return _stored(values, dataset)
    except FaultyDataError:
        raise
    except Exception as error:  # decoders are plug-ins, each with errors of its own
        reason = " ".join(str(error).split())[:400] if str(error) else type(error).__name__
        if packed:
            found = f"pixels that cannot be decoded ({syntax.name}, by {_DECODERS[syntax]}): {reason}"
        else:
            found = f"damaged pixels: {reason}"
        raise fail(path, found, "readable pixels", "copy or export it again, uncompressed for example") from None


def _stored(values: NDArray[Any], dataset: Dataset) -> NDArray[Any]:
    """Values without what lies above their highest bit, where old files keep overlays."""
    if values.dtype.kind not in "iu":
        return values
    allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    unused = values.dtype.itemsize * 8 - stored
    if stored >= allocated or unused <= 0:
        return values
    # Two shifts clear the unused bits and, for signed values, extend the sign.
    return np.right_shift(np.left_shift(values, unused), unused)
