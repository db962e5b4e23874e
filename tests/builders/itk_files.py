"""NRRD and MetaImage files made by hand: ways of being wrong, and ways of being unusual but right."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tests.builders.nifti_files import DATA, NAN, SHAPE, Make, file, flipped, zeros_behind

RAW = DATA.astype("<i2").tobytes(order="F")
# In ITK's LPS world: x and y of RAS are turned.
SPACING, ORIGIN = (1.5, 2.0, 3.0), (10.0, 20.0, 30.0)
AFFINE = np.array([[-1.5, 0, 0, -10], [0, -2.0, 0, -20], [0, 0, 3.0, 30], [0, 0, 0, 1]])


NRRD = {
    "type": "short",
    "dimension": "3",
    "space": "left-posterior-superior",
    "sizes": " ".join(map(str, SHAPE)),
    "space directions": "(1.5,0,0) (0,2,0) (0,0,3)",
    "kinds": "domain domain domain",
    "endian": "little",
    "encoding": "raw",
    "space origin": "(10,20,30)",
}
META = {
    "ObjectType": "Image",
    "NDims": "3",
    "BinaryData": "True",
    "BinaryDataByteOrderMSB": "False",
    "CompressedData": "False",
    "TransformMatrix": "1 0 0 0 1 0 0 0 1",
    "Offset": "10 20 30",
    "CenterOfRotation": "0 0 0",
    "ElementSpacing": "1.5 2 3",
    "DimSize": " ".join(map(str, SHAPE)),
    "ElementType": "MET_SHORT",
}


def _lines(fields: Mapping[str, str | None], between: str) -> list[str]:
    return [f"{name}{between}{value}" for name, value in fields.items() if value is not None]


def nrrd(data: bytes = RAW, **changes: str | None) -> bytes:
    """An NRRD file; fields are changed by name (``_`` for a blank), or left out where they are None."""
    fields = {**NRRD, **{name.replace("_", " "): value for name, value in changes.items()}}
    return ("\n".join(["NRRD0004", "# made by hand", *_lines(fields, ": ")]) + "\n\n").encode("latin-1") + data


def meta(data: bytes = RAW, ElementDataFile: str | None = "LOCAL", **changes: str | None) -> bytes:
    """A MetaImage file; fields are changed by name, or left out where they are None."""
    fields = {**META, **changes, "ElementDataFile": ElementDataFile}
    return ("\n".join(_lines(fields, " = ")) + "\n").encode("latin-1") + data


def _detached(where: str) -> dict[str, bytes]:
    """Headers of both formats whose voxels lie in another file, by suffix."""
    return {"nhdr": nrrd(b"", data_file=where), "mhd": meta(b"", ElementDataFile=where)}


def _pair(header: bytes, name: str, voxels: bytes, where: str) -> Make:
    def make(folder: Path) -> Path:
        file(voxels, f"home/{where}")(folder)
        return file(header, f"home/{name}")(folder)

    return make


def _link(header: bytes, name: str) -> Make:
    def make(folder: Path) -> Path:
        (folder / "elsewhere.raw").write_bytes(RAW)
        (folder / "home").mkdir()
        (folder / "home" / "a.raw").symlink_to("../elsewhere.raw")
        return file(header, name)(folder / "home")

    return make


def _fifo(header: bytes, name: str) -> Make:
    def make(folder: Path) -> Path:
        os.mkfifo(folder / "a.raw")
        return file(header, name)(folder)

    return make


def bombs() -> dict[str, Make]:
    """Headers that promise gigabytes, and streams that hold them."""
    packed = {"CompressedData": "True"}
    zeros = zlib.compress(bytes(1 << 20), 9)
    return {
        "nrrd-terabytes": file(nrrd(sizes="100000 100000 100000"), "a.nrrd"),
        "nrrd-gzip-terabytes": file(nrrd(gzip.compress(RAW), sizes="100000 100000 100000", encoding="gzip"), "a.nrrd"),
        "nrrd-overflow": file(nrrd(sizes="4294967296 4294967296 4294967296"), "a.nrrd"),
        "nrrd-gzip-goes-on": file(nrrd(zeros_behind(RAW, 2 << 30), encoding="gzip"), "a.nrrd"),
        "nrrd-gzip-as-promised": file(
            nrrd(zeros_behind(b"", 2 << 30), sizes="1024 1024 1024", encoding="gzip"), "a.nrrd"
        ),
        "nrrd-text-terabytes": file(nrrd(b"1 2 3", sizes="9999 9999 9999", encoding="ascii"), "a.nrrd"),
        "meta-terabytes": file(meta(DimSize="100000 100000 100000"), "a.mha"),
        "meta-channels": file(meta(ElementNumberOfChannels="2000000000"), "a.mha"),
        "meta-zlib-terabytes": file(meta(zlib.compress(RAW), DimSize="100000 100000 100000", **packed), "a.mha"),
        "meta-zlib-as-promised": file(meta(zeros * 2, DimSize="1024 1024 1024", **packed), "a.mha"),
        "meta-zlib-goes-on": file(meta(zlib.compress(bytes(64 << 20)), **packed), "a.mha"),
        "header-without-end": file(b"NRRD0004\n" + b"# x\n" * (1 << 20), "a.nrrd"),
    }


def bad() -> dict[str, Make]:
    """Files that must be refused when they are read as a scan."""
    packed, squeezed = gzip.compress(RAW), zlib.compress(RAW)
    floats = DATA.astype("<f4")
    floats[1, 2, 3] = NAN
    lost = floats.tobytes(order="F")
    made = {
        "truncated": nrrd(RAW[:-1]),
        "junk-behind": nrrd(RAW + b"junk"),
        "no-voxels": nrrd(b""),
        "header-cut": nrrd()[:120],
        "magic-only": b"NRRD0004\n",
        "magic-unknown": b"NRRD0099\n" + nrrd()[9:],
        "no-space": nrrd(space=None),
        "no-directions": nrrd(space_directions=None),
        "no-space-at-all": nrrd(space=None, space_directions=None, space_origin=None, spacings="1 1 1"),
        "space-unknown": nrrd(space="scanner-xyz"),
        "space-dimension": nrrd(space=None, space_dimension="3"),
        "space-4d": nrrd(space="left-posterior-superior-time"),
        "units": nrrd(space_units='"cm" "cm" "cm"'),
        "direction-nan": nrrd(space_directions="(nan,0,0) (0,2,0) (0,0,3)"),
        "direction-zero": nrrd(space_directions="(0,0,0) (0,2,0) (0,0,3)"),
        "direction-singular": nrrd(space_directions="(1,0,0) (1,0,0) (0,0,3)"),
        "direction-sheared": nrrd(space_directions="(1,0,0) (0.3,2,0) (0,0,3)"),
        "direction-none": nrrd(space_directions="none (0,2,0) (0,0,3)"),
        "direction-short": nrrd(space_directions="(1,0) (0,2) (0,3)"),
        "direction-garbage": nrrd(space_directions="left right up"),
        "origin-nan": nrrd(space_origin="(nan,20,30)"),
        "origin-inf": nrrd(space_origin="(10,inf,30)"),
        "origin-far": nrrd(space_origin="(1e9,20,30)"),
        "origin-garbage": nrrd(space_origin="here"),
        "sizes-missing": nrrd(sizes=None),
        "sizes-zero": nrrd(sizes="6 0 8"),
        "sizes-negative": nrrd(sizes="6 -7 8"),
        "sizes-larger": nrrd(sizes="6 7 9"),
        "sizes-smaller": nrrd(sizes="6 7 7"),
        "sizes-text": nrrd(sizes="six seven eight"),
        "sizes-fraction": nrrd(sizes="6 7.5 8"),
        "dimension-contradicts": nrrd(dimension="4"),
        "dimension-missing": nrrd(dimension=None),
        "dimension-17": nrrd(dimension="17", sizes=" ".join(["2"] * 17)),
        "two-axes": nrrd(dimension="2", sizes="6 56", space_directions="(1,0,0) (0,2,0)", kinds="domain domain"),
        "one-slice": nrrd(sizes="6 56 1"),
        "type-missing": nrrd(type=None),
        "type-unknown": nrrd(type="quaternion"),
        "type-block": nrrd(type="block", block_size="2"),
        "type-wider": nrrd(type="double"),
        "encoding-missing": nrrd(encoding=None),
        "encoding-unknown": nrrd(encoding="rot13"),
        "encoding-bzip2": nrrd(encoding="bzip2"),
        "encoding-hex": nrrd(RAW.hex().encode(), encoding="hex"),
        "field-twice": nrrd().replace(b"sizes: 6 7 8\n", b"sizes: 6 7 8\nsizes: 6 7 7\n"),
        "line-skip": nrrd(line_skip="3"),
        "byte-skip": nrrd(byte_skip="-1"),
        "null-bytes": nrrd().replace(b"short", b"sho\0t"),
        "gz-cut": nrrd(packed[:-10], encoding="gzip"),
        "gz-crc": nrrd(flipped(packed, -6), encoding="gzip"),
        "gz-flipped": nrrd(flipped(packed, 300), encoding="gzip"),
        "gz-junk": nrrd(packed + b"junk", encoding="gzip"),
        "gz-longer": nrrd(gzip.compress(RAW + b"xx"), encoding="gzip"),
        "gz-shorter": nrrd(gzip.compress(RAW[:-2]), encoding="gzip"),
        "gz-is-raw": nrrd(RAW, encoding="gzip"),
        "text-short": nrrd(b"1 2 3\n", encoding="ascii"),
        "nan": nrrd(lost, type="float"),
        "constant": nrrd(bytes(len(RAW))),
        "whole-file-packed": gzip.compress(nrrd()),
    }
    result = {f"nrrd-{name}": file(content, "a.nrrd") for name, content in made.items()}
    zlibbed = {"CompressedData": "True"}
    made = {
        "truncated": meta(RAW[:-1]),
        "junk-behind": meta(RAW + b"junk"),
        "no-voxels": meta(b""),
        "header-cut": meta()[:100],
        "no-data-file": meta(b"", ElementDataFile=None),
        "object-mesh": meta(ObjectType="Mesh"),
        "matrix-missing": meta(TransformMatrix=None),
        "matrix-nan": meta(TransformMatrix="nan 0 0 0 1 0 0 0 1"),
        "matrix-zero": meta(TransformMatrix="0 0 0 0 0 0 0 0 0"),
        "matrix-singular": meta(TransformMatrix="1 0 0 1 0 0 0 0 1"),
        "matrix-sheared": meta(TransformMatrix="1 0 0 0.3 1 0 0 0 1"),
        "spacing-missing": meta(ElementSpacing=None),
        "spacing-zero": meta(ElementSpacing="0 2 3"),
        "spacing-negative": meta(ElementSpacing="-1 2 3"),
        "spacing-nan": meta(ElementSpacing="nan 2 3"),
        "spacing-text": meta(ElementSpacing="thin"),
        "spacing-short": meta(ElementSpacing="1 2"),
        "offset-nan": meta(Offset="nan 0 0"),
        "offset-far": meta(Offset="1e9 0 0"),
        "sizes-missing": meta(DimSize=None),
        "sizes-zero": meta(DimSize="6 7 0"),
        "sizes-negative": meta(DimSize="6 7 -8"),
        "sizes-larger": meta(DimSize="6 7 9"),
        "sizes-smaller": meta(DimSize="6 7 7"),
        "dims-contradict": meta(NDims="4"),
        "dims-missing": meta(NDims=None).replace(b"ObjectType", b"ObjectType"),
        "two-axes": meta(NDims="2", DimSize="6 56", ElementSpacing="1 1", TransformMatrix="1 0 0 1", Offset="0 0"),
        "one-slice": meta(DimSize="6 56 1"),
        "4d": meta(
            NDims="4",
            DimSize="6 7 4 2",
            ElementSpacing="1 1 1 1",
            Offset="0 0 0 0",
            TransformMatrix="1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1",
        ),
        "type-missing": meta(ElementType=None),
        "type-unknown": meta(ElementType="MET_STRING"),
        "type-other": meta(ElementType="MET_OTHER"),
        "type-wider": meta(ElementType="MET_DOUBLE"),
        "channels-zero": meta(ElementNumberOfChannels="0"),
        "header-size": meta(HeaderSize="-1"),
        "text": meta(BinaryData="False"),
        "field-twice": meta().replace(b"NDims = 3\n", b"NDims = 3\nNDims = 2\n"),
        "null-bytes": meta().replace(b"MET_SHORT", b"MET_SH\0RT"),
        "line-without-value": meta().replace(b"BinaryData = True\n", b"BinaryData\n"),
        "zlib-cut": meta(squeezed[:-4], **zlibbed),
        "zlib-flipped": meta(flipped(squeezed, 300), **zlibbed),
        "zlib-checksum": meta(flipped(squeezed, -1), **zlibbed),
        "zlib-junk": meta(squeezed + b"junk", **zlibbed),
        "zlib-longer": meta(zlib.compress(RAW + b"xx"), **zlibbed),
        "zlib-shorter": meta(zlib.compress(RAW[:-2]), **zlibbed),
        "zlib-is-raw": meta(RAW, **zlibbed),
        "nan": meta(lost, ElementType="MET_FLOAT"),
        "constant": meta(bytes(len(RAW))),
    }
    result |= {f"meta-{name}": file(content, "a.mha") for name, content in made.items()}
    for where in (
        "/etc/passwd",
        "../a.raw",
        "sub/../../a.raw",
        "LIST",
        "a%03d.raw 1 8 1",
        "",
        "absent.raw",
        "C:\\a.raw",
    ):
        name = where.replace("/", "-") or "empty"
        result |= {f"{kind}-{name}": file(header, f"home/a.{kind}") for kind, header in _detached(where).items()}
    beside = _detached("a.raw")
    for maker, name in ((_link, "link-out"), (_fifo, "fifo")):
        result |= {f"{kind}-{name}": maker(header, f"a.{kind}") for kind, header in beside.items()}
    result["nhdr-short"] = _pair(beside["nhdr"], "a.nhdr", RAW[:-3], "a.raw")
    result["mhd-long"] = _pair(beside["mhd"], "a.mhd", RAW + b"x", "a.raw")
    return result


def odd() -> dict[str, tuple[Make, np.ndarray]]:
    """Files that are unusual but sound: maker and affine (RAS+ mm)."""
    swapped = DATA.astype(">i2").tobytes(order="F")
    text = " ".join(map(str, DATA.ravel(order="F"))).encode()
    turned = np.diag([-1.0, -1, 1, 1]) @ AFFINE
    packed = {"CompressedData": "True"}
    made: dict[str, tuple[bytes, str, np.ndarray]] = {
        "nrrd": (nrrd(), "a.nrrd", AFFINE),
        "nrrd-gzip": (nrrd(gzip.compress(RAW), encoding="gzip"), "a.nrrd", AFFINE),
        "nrrd-gz": (nrrd(gzip.compress(RAW), encoding="gz"), "a.nrrd", AFFINE),
        "nrrd-ascii": (nrrd(text, encoding="ascii"), "a.nrrd", AFFINE),
        "nrrd-big-endian": (nrrd(swapped, endian="big"), "a.nrrd", AFFINE),
        "nrrd-ras": (nrrd(space="right-anterior-superior"), "a.nrrd", turned),
        "nrrd-short-name": (nrrd(space="LPS", type="int16"), "a.nrrd", AFFINE),
        "nrrd-key-values": (nrrd().replace(b"type:", b"Modality:=MR: T1\ntype:"), "a.nrrd", AFFINE),
        "nrrd-units": (nrrd(space_units='"mm" "mm" "mm"'), "a.nrrd", AFFINE),
        "nrrd-windows": (nrrd(b"").replace(b"\n", b"\r\n") + RAW, "a.nrrd", AFFINE),
        "nrrd-upper-suffix": (nrrd(), "A.NRRD", AFFINE),
        "nrrd-other-suffix": (nrrd(), "scan.nii", AFFINE),
        "nrrd-no-suffix": (nrrd(), "scan", AFFINE),
        "nrrd-blank-path": (nrrd(), "a folder ü/scan 1.nrrd", AFFINE),
        "meta": (meta(), "a.mha", AFFINE),
        "meta-zlib": (meta(zlib.compress(RAW), **packed), "a.mha", AFFINE),
        "meta-zlib-size": (
            meta(zlib.compress(RAW), CompressedDataSize=str(len(zlib.compress(RAW))), **packed),
            "a.mha",
            AFFINE,
        ),
        "meta-big-endian": (meta(swapped, BinaryDataByteOrderMSB="True"), "a.mha", AFFINE),
        "meta-comment": (meta(Comment="anything = goes here"), "a.mha", AFFINE),
        "meta-orientation-named": (meta(AnatomicalOrientation="RAI"), "a.mha", AFFINE),
        "meta-other-suffix": (meta(), "scan.dat", AFFINE),
        "meta-blank-path": (meta(), "a folder ü/scan 1.mha", AFFINE),
    }
    result = {name: (file(content, path), affine) for name, (content, path, affine) in made.items()}
    gzipped, zlibbed = gzip.compress(RAW), zlib.compress(RAW)
    pairs = {
        "nhdr": (_detached("a.raw")["nhdr"], RAW, "a.raw"),
        "nhdr-gzip": (nrrd(b"", data_file="a.raw.gz", encoding="gzip"), gzipped, "a.raw.gz"),
        "mhd": (_detached("a.raw")["mhd"], RAW, "a.raw"),
        "mhd-blank": (_detached("my scan.raw")["mhd"], RAW, "my scan.raw"),
        "mhd-zraw": (meta(b"", ElementDataFile="a.zraw", **packed), zlibbed, "a.zraw"),
    }
    for name, (header, voxels, where) in pairs.items():
        result[name] = (_pair(header, f"a.{name.partition('-')[0]}", voxels, where), AFFINE)
    return result
