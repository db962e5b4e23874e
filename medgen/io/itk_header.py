"""NRRD and MetaImage, as far as size, place and type of the voxels go: checked, and read, without ITK.

ITK takes memory for what a header promises before it looks at the voxels, follows a header to any file of the machine,
and fills up with zeros what is missing or cannot be unpacked; its own part is to say where the image lies.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medgen.faults import FaultyDataError, fail
from medgen.io.companions import beside, named
from medgen.io.streams import Stream, check_memory, check_ratio, open_file, too_large

_LARGEST_HEADER = 1 << 20
_REEXPORT = "export it again"
_NRRD_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), "u8"),
    "float": "f4",
    "double": "f8",
}
_NRRD_SPACES = {
    "left-posterior-superior",
    "lps",
    "right-anterior-superior",
    "ras",
    "left-anterior-superior",
    "las",
}
_META_TYPES = {
    f"MET_{name}": code
    for name, code in {
        "CHAR": "i1",
        "UCHAR": "u1",
        "SHORT": "i2",
        "USHORT": "u2",
        "INT": "i4",
        "UINT": "u4",
        # Four bytes by the format, whatever the machine.
        "LONG": "i4",
        "ULONG": "u4",
        "LONG_LONG": "i8",
        "ULONG_LONG": "u8",
        "FLOAT": "f4",
        "DOUBLE": "f8",
    }.items()
}
_TRUE = ("true", "1", "t", "y", "yes")


@dataclass(frozen=True)
class Voxels:
    """Where a file's voxels are, and what they must be.

    Attributes:
        count: Number of values.
        channels: Values per voxel, which lie side by side.
        dtype: As stored, byte order included.
        path: File that holds them.
        start: Where they start in it, in bytes.
        packing: ``none``, ``gzip``, ``zlib`` or ``text`` (numbers in words).
        sizes: Voxels along each axis, and
        affine: voxel → LPS+ mm; both for MetaImage, for NRRD ITK says them.
    """

    count: int
    channels: int
    dtype: np.dtype[Any]
    path: Path
    start: int
    packing: str
    sizes: tuple[int, ...] = ()
    affine: NDArray[np.float64] | None = None

    @property
    def size(self) -> int:
        """Bytes of all voxels, unpacked."""
        return self.count * self.dtype.itemsize


def voxels_of(path: Path) -> Voxels:
    """What the header of an NRRD or MetaImage file says of its voxels.

    Raises:
        FaultyDataError: If the header is damaged or contradicts itself, says nothing about orientation, or points to
            voxels outside of the file's folder or in several files.
    """
    with Stream(path) as stream:
        if stream.packed:
            raise fail(path, "an NRRD or MetaImage file that is packed as a whole", "the file itself", "unpack it")
        content = stream.read(_LARGEST_HEADER)
    voxels = (_nrrd if content.startswith(b"NRRD") else _meta)(path, content)
    # ITK would open the file of voxels, too, and wait where it is a pipe.
    with named(path, voxels.path), open_file(voxels.path):
        return voxels


def read_voxels(path: Path, voxels: Voxels) -> NDArray[Any]:
    """The values, flat, in the machine's byte order.

    Raises:
        FaultyDataError: Naming the header file, if they are too few, too many, damaged, or too large for this machine.
    """
    try:
        with named(path, voxels.path):
            return _read(voxels)
    except MemoryError:
        raise too_large(path, voxels.size) from None


def _read(voxels: Voxels) -> NDArray[Any]:
    text = voxels.packing == "text"
    with Stream(voxels.path, start=voxels.start, packing="none" if text else voxels.packing) as stream:
        # In words, a number of up to eight bytes takes a digit and a blank.
        if text and voxels.count > stream.size:
            found = f"truncated: {stream.size} bytes of text"
            raise fail(voxels.path, found, f"text for {voxels.count} voxels", "copy it again")
        if not text and stream.packed:
            check_ratio(voxels.path, voxels.size, stream.size)
        elif not text:
            stream.check_size(voxels.size)
        check_memory(voxels.path, 2 * voxels.size)
        if text:
            return _from_text(voxels, stream.read(stream.size))
        buffer = np.empty(voxels.size, dtype=np.uint8)
        if (found_size := stream.fill(buffer.data)) < voxels.size:
            found = f"truncated: {found_size} of {voxels.size} bytes of voxels"
            raise fail(voxels.path, found, "a complete file", "copy it again")
        stream.finish(f"{voxels.size} bytes of voxels")
    return buffer.view(voxels.dtype).astype(voxels.dtype.newbyteorder("="), copy=False)


def _from_text(voxels: Voxels, content: bytes) -> NDArray[Any]:
    try:
        values = np.array(content.split(), dtype=np.float64)
    except ValueError:
        raise fail(voxels.path, "voxels that are not numbers", "numbers", _REEXPORT) from None
    if values.size != voxels.count:
        raise fail(voxels.path, f"{values.size} numbers", f"{voxels.count} as the header says", "copy it again")
    kind = voxels.dtype.newbyteorder("=")
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        if not np.array_equal(values, np.round(values)) or values.min() < limits.min or values.max() > limits.max:
            raise fail(voxels.path, f"numbers that are not {kind}", f"{kind}", "correct the type")
    with np.errstate(over="ignore"):
        return values.astype(kind)


def _nrrd(path: Path, content: bytes) -> Voxels:
    end = re.search(rb"\r?\n\r?\n", content)
    header, start = (content[: end.start()], end.end()) if end else (content, len(content))
    if end is None and len(content) >= _LARGEST_HEADER:
        raise fail(path, "an NRRD header without end", "an empty line behind it", _REEXPORT)
    fields = _fields(path, [line for line in _lines(path, header)[1:] if line and line[0] != "#"], ": ?")
    if not {"space", "space directions"} <= fields.keys():
        found = "no anatomical space, so left and right are unknown"
        raise fail(path, found, "the fields 'space' and 'space directions'", _REEXPORT)
    if fields["space"].lower() not in _NRRD_SPACES:
        raise fail(path, f"the space {fields['space'][:60]!r}", "left-posterior-superior or a variant", _REEXPORT)
    if units := set(re.findall(r'"([^"]*)"', fields.get("space units", ""))) - {"mm", ""}:
        raise fail(path, f"voxel sizes in {min(units)[:20]!r}", "mm", "rescale the header to millimetres")
    if any(fields.get(name, "0") != "0" for name in ("byte skip", "byteskip", "line skip", "lineskip")):
        raise fail(path, "voxels behind something else (line or byte skip)", "voxels alone", _REEXPORT)
    kind = fields.get("type", "").lower()
    if kind not in _NRRD_TYPES:
        raise fail(path, f"voxels of type {kind[:40]!r}", "numbers", _REEXPORT)
    sizes = _numbers(path, "sizes", fields.get("sizes", ""))
    if _numbers(path, "dimension", fields.get("dimension", "")) != (len(sizes),):
        raise fail(path, f"{len(sizes)} sizes", "as many as the dimension says", _REEXPORT)
    directions = re.findall(r"none|\([^)]*\)", fields["space directions"].lower())
    placed = [number for number, direction in enumerate(directions) if direction != "none"]
    if len(directions) != len(sizes) or placed not in ([0, 1, 2], [1, 2, 3]) or len(sizes) > 4:
        found = f"axes of sizes {fields['sizes']} and directions {fields['space directions'][:60]}"
        raise fail(path, found, "a 3D image, channels first", _REEXPORT)
    if len(sizes) == 4 and placed[0] == 0:
        raise fail(path, f"a 4D image of {fields['sizes']}", "a 3D image", "export one 3D volume")
    encoding = fields.get("encoding", "").lower()
    packing = {"raw": "none", "gzip": "gzip", "gz": "gzip", "ascii": "text", "text": "text", "txt": "text"}.get(
        encoding
    )
    if packing is None:
        raise fail(path, f"the encoding {encoding[:40]!r}", "raw, gzip or ascii", _REEXPORT)
    dtype = np.dtype(_NRRD_TYPES[kind])
    orders: dict[str, Literal["<", ">"]] = {"little": "<", "big": ">"}
    order = orders.get(fields.get("endian", "").lower())
    if order is None and dtype.itemsize > 1 and packing != "text":
        raise fail(path, f"the byte order {fields.get('endian', '')[:20]!r}", "little or big", _REEXPORT)
    channels = sizes[0] if len(sizes) == 4 else 1
    name = fields.get("data file", fields.get("datafile"))
    if name is None and end is None:
        raise fail(path, "an NRRD header without voxels", "a complete file", "copy it again")
    target = path if name is None else beside(path, name)
    start = start if name is None else 0
    return Voxels(math.prod(sizes), channels, dtype.newbyteorder(order or "="), target, start, packing)


def _meta(path: Path, content: bytes) -> Voxels:
    end = re.search(rb"(?m)^[ \t]*ElementDataFile[ \t]*=[^\n]*(\n|\Z)", content)
    if end is None:
        raise fail(path, "a MetaImage header without ElementDataFile", "a complete header", "copy it again")
    fields = _fields(path, [line for line in _lines(path, content[: end.end()]) if line], r"\s*=\s*")
    if fields.get("ObjectType", "Image") != "Image":
        raise fail(path, f"a MetaIO {fields['ObjectType'][:40]!r}", "an image", "export the image")
    for names, what in (
        (("TransformMatrix", "Rotation", "Orientation"), "orientation (TransformMatrix)"),
        (("ElementSpacing", "ElementSize"), "voxel sizes (ElementSpacing)"),
    ):
        if not fields.keys() & set(names):
            raise fail(path, f"no {what}", "a header that says where voxels lie", _REEXPORT)
    if fields.get("BinaryData", "True").lower() not in _TRUE:
        raise fail(path, "voxels as text", "binary voxels", _REEXPORT)
    if fields.get("HeaderSize", "0") != "0":
        raise fail(path, f"HeaderSize {fields['HeaderSize'][:20]}", "voxels alone", _REEXPORT)
    kind = fields.get("ElementType", "").removesuffix("_ARRAY")
    if kind not in _META_TYPES:
        raise fail(path, f"voxels of type {kind[:40]!r}", "numbers", _REEXPORT)
    sizes = _numbers(path, "DimSize", fields.get("DimSize", ""))
    if _numbers(path, "NDims", fields.get("NDims", "")) != (len(sizes),):
        raise fail(path, f"{len(sizes)} sizes", "as many as NDims says", _REEXPORT)
    channels = _numbers(path, "ElementNumberOfChannels", fields.get("ElementNumberOfChannels", "1"))
    if len(channels) != 1:
        raise fail(path, f"{len(channels)} numbers of channels", "one", _REEXPORT)
    affine = _affine(path, fields, len(sizes))
    msb = fields.get("BinaryDataByteOrderMSB", fields.get("ElementByteOrderMSB", "False")).lower() in _TRUE
    dtype = np.dtype(_META_TYPES[kind]).newbyteorder(">" if msb else "<")
    packing = "zlib" if fields.get("CompressedData", "False").lower() in _TRUE else "none"
    name = fields["ElementDataFile"]
    local = name.upper() == "LOCAL"
    target = path if local else beside(path, name)
    start, count = end.end() if local else 0, math.prod(sizes) * channels[0]
    return Voxels(count, channels[0], dtype, target, start, packing, sizes, affine)


def _affine(path: Path, fields: dict[str, str], rank: int) -> NDArray[np.float64]:
    """Voxel → LPS+ mm of the first three axes.

    Not by ITK, whose parser of MetaImage takes numbers that are not finite as 0, turns negative sizes over, fills up
    missing ones, and prints on the terminal what it does not like.
    """
    found = []
    for names, count in (
        (("TransformMatrix", "Rotation", "Orientation"), rank * rank),
        (("Offset", "Position", "Origin"), rank),
        (("ElementSpacing", "ElementSize"), rank),
    ):
        name = next((name for name in names if name in fields), None)
        text = "0 " * rank if name is None else fields[name]
        try:
            numbers = np.array([float(word) for word in text.split()])
        except ValueError:
            numbers = np.empty(0)
        positive = names[0] != "ElementSpacing" or numbers.min(initial=1) > 0
        if numbers.shape != (count,) or not np.isfinite(numbers).all() or not positive:
            expected = f"{count} {'finite' if positive else 'positive'} numbers"
            raise fail(path, f"{name} {text[:60]!r}", expected, _REEXPORT)
        found.append(numbers)
    directions, origin, spacing = found
    affine = np.eye(4)
    # A row of the matrix is the direction of an axis.
    affine[:3, :3] = directions.reshape(rank, rank)[:3, :3].T * spacing[:3] if rank > 2 else 0
    affine[:3, 3] = origin[:3] if rank > 2 else 0
    return affine


def _lines(path: Path, header: bytes) -> list[str]:
    try:
        text = header.decode("utf-8")
    except UnicodeDecodeError:
        text = header.decode("latin-1")
    if "\0" in text:
        raise fail(path, "a damaged header (null bytes)", "text", "copy it again")
    return [line.strip() for line in text.split("\n")]


def _fields(path: Path, lines: list[str], separator: str) -> dict[str, str]:
    """Fields by name; NRRD's are matched in any case, and its own ``key:=value`` pairs are left out."""
    fields: dict[str, str] = {}
    for line in lines:
        if separator != ": ?" or ":=" not in line:
            parts = re.split(separator, line, maxsplit=1)
            if len(parts) != 2:
                raise fail(path, f"the header line {line[:60]!r}", "name and value", "copy it again")
            name = parts[0].strip().lower() if separator == ": ?" else parts[0].strip()
            if name in fields:
                raise fail(path, f"{name[:40]!r} twice in the header", "each field once", _REEXPORT)
            fields[name] = parts[1].strip()
    return fields


def _numbers(path: Path, name: str, text: str) -> tuple[int, ...]:
    words = text.split()
    if not words or len(words) > 16 or not all(re.fullmatch(r"[0-9]{1,18}", word) and int(word) > 0 for word in words):
        raise fail(path, f"{name} {text[:60]!r}", "positive whole numbers", _REEXPORT)
    return tuple(int(word) for word in words)


def itk_error(path: Path, error: RuntimeError) -> FaultyDataError:
    """The error for what ITK refuses although header and voxels are sound."""
    # ITK's own reason is only of use for NRRD; for MetaImage it is the last error of the system, whatever that was.
    reason = (str(error).strip().splitlines() or ["unknown"])[-1].strip()[:120]
    found = f"cannot be read ({reason})" if "nrrd" in reason.lower() else "a header that ITK cannot read"
    return fail(path, found, "a complete NRRD or MetaImage file", "copy or export it again")
