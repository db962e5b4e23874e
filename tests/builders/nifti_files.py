"""NIfTI files made byte by byte: many ways of being wrong; see `odd_nifti_files` for those that are only unusual.

Each maker gets an empty folder and returns the path of the file that is to be read.
"""

from __future__ import annotations

import gzip
import os
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

Make = Callable[[Path], Path]
SHAPE = (6, 7, 8)
DATA = np.random.default_rng(0).integers(10, 200, SHAPE).astype(np.int16)
AFFINE = np.array([[-2, 0, 0, 10], [0, 2, 0, -20], [0, 0, 2, 5], [0, 0, 0, 1]], dtype=float)
NAN, INF = float("nan"), float("inf")


def rotated(*degrees: float, zooms=(2.0, 2.0, 2.0), origin=(10.0, -20.0, 5.0)) -> np.ndarray:
    """An oblique affine."""
    from scipy.spatial.transform import Rotation

    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() * np.array(zooms)
    affine[:3, 3] = origin
    return affine


def nifti(
    data: np.ndarray = DATA,
    affine: np.ndarray = AFFINE,
    *,
    version: int = 1,
    endian: str = "<",
    forms: str = "sq",
    extension: bytes = b"\0\0\0\0",
    tail: bytes = b"",
    **fields: object,
) -> bytes:
    """The bytes of a file, sound but for the header fields that are given."""
    cls = nib.Nifti1Header if version == 1 else nib.Nifti2Header
    header = cls(endianness=endian)
    kind = data.dtype.newbyteorder(endian)
    header.set_data_dtype(kind)
    header.set_data_shape(data.shape)
    header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0)
    header["pixdim"][4:] = 1
    header.set_xyzt_units("mm")
    header["scl_slope"], header["scl_inter"] = 1, 0
    if "s" in forms:
        header.set_sform(affine, code=1)
    if "q" in forms:
        header.set_qform(affine, code=1, strip_shears=True)
    header["magic"] = header.single_magic
    header["vox_offset"] = header.sizeof_hdr + len(extension)
    raw = header.structarr.copy()
    for name, value in fields.items():
        raw[name] = value
    return raw.tobytes() + extension + data.astype(kind).tobytes(order="F") + tail


def file(content: bytes, name: str = "a.nii") -> Make:
    """A maker of one file."""

    def make(folder: Path) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return make


def pair(content: bytes, voxels: bytes, header: str = "a.hdr", image: str = "a.img", given: str = "") -> Make:
    """A maker of a header and an image file; ``given`` is the one to be read, the header by default."""

    def make(folder: Path) -> Path:
        (folder / header).write_bytes(content)
        (folder / image).write_bytes(voxels)
        return folder / (given or header)

    return make


def half(content: bytes, extension: bytes = b"", **fields: object) -> tuple[bytes, bytes]:
    """A sound single file as header and voxels of a pair."""
    size, swapped = struct.unpack("<i", content[:4])[0], struct.unpack(">i", content[:4])[0]
    kind, order = (size, "<") if size in (348, 540) else (swapped, ">")
    cls = nib.Nifti1Header if kind == 348 else nib.Nifti2Header
    header = cls(content[:kind], endianness=order, check=False)
    start = int(header["vox_offset"])
    raw = header.structarr.copy()
    raw["vox_offset"], raw["magic"] = 0, header.pair_magic
    for name, value in fields.items():
        raw[name] = value
    return raw.tobytes() + extension, content[start:]


def edited(**fields: object) -> Make:
    """A maker of a sound file with wrong header fields."""
    return file(nifti(**fields))


def flipped(content: bytes, place: int, bit: int = 4) -> bytes:
    """One bit turned over."""
    place %= len(content)
    return content[:place] + bytes([content[place] ^ (1 << bit)]) + content[place + 1 :]


def _sparse(folder: Path, header: bytes, size: int) -> Path:
    path = folder / "a.nii"
    with path.open("wb") as out:
        out.write(header)
        out.truncate(size)
    return path


def _linked(target: str) -> Make:
    def make(folder: Path) -> Path:
        (folder / "a.nii").symlink_to(target)
        return folder / "a.nii"

    return make


def _fifo(folder: Path) -> Path:
    os.mkfifo(folder / "a.nii.gz")
    return folder / "a.nii.gz"


def _both(folder: Path) -> Path:
    content, voxels = half(nifti())
    (folder / "a.img.gz").write_bytes(gzip.compress(voxels))
    return pair(content, voxels)(folder)


def _link_away(folder: Path) -> Path:
    content, voxels = half(nifti())
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "b.img").write_bytes(voxels)
    (folder / "home").mkdir()
    (folder / "home" / "a.hdr").write_bytes(content)
    (folder / "home" / "a.img").symlink_to(folder / "elsewhere" / "b.img")
    return folder / "home" / "a.hdr"


def _socket(folder: Path) -> Path:
    # The names of sockets may be no longer than 107 bytes.
    path, here = folder / "a.nii", Path.cwd()
    with socket.socket(socket.AF_UNIX) as end:
        os.chdir(folder)
        end.bind("a.nii")
        os.chdir(here)
    return path


def _folder(folder: Path) -> Path:
    (folder / "a.nii.gz").mkdir()
    return folder / "a.nii.gz"


def zeros_behind(start: bytes, size: int) -> bytes:
    """A gzip stream of ``start`` and then ``size`` zeros; no one is to come to its checksum, which is not right."""
    packer = zlib.compressobj(9, wbits=31)
    first = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    # After a full flush the same bytes are packed the same, so that they need to be packed only once.
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(bytes(8 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + block * (size >> 23) + b"\x03\x00" + bytes(8)


def _promised(dims: tuple[int, int, int]) -> bytes:
    """A gzip stream of zeros that is as long as its header says."""
    header = nifti(np.zeros((2, 2, 2), np.uint8), dim=[3, *dims, 1, 1, 1, 1])[:352]
    return zeros_behind(header, int(np.prod(dims)))


def bombs() -> dict[str, Make]:
    """Files that would take gigabytes if they were believed; costly to make."""
    huge = [3, 32767, 32767, 32767, 1, 1, 1, 1]
    return {
        "dims-of-terabytes": edited(dim=huge),
        "dims-of-terabytes-gz": file(gzip.compress(nifti(dim=huge)), "a.nii.gz"),
        "dims-of-100-gb": edited(dim=[3, 3000, 3000, 3000, 1, 1, 1, 1], datatype=16, bitpix=32),
        "dims-of-nifti2": file(nifti(version=2, dim=[3, 2**40, 2**40, 2**40, 1, 1, 1, 1])),
        "dims-that-overflow": file(nifti(version=2, dim=[3, 2**62, 4, 4, 1, 1, 1, 1])),
        "sparse-100-gb": lambda folder: _sparse(
            folder, nifti(dim=[3, 3000, 3000, 3000, 1, 1, 1, 1], datatype=16, bitpix=32)[:352], 352 + 4 * 3000**3
        ),
        "gzip-goes-on": file(zeros_behind(nifti(), 4 << 30), "a.nii.gz"),
        "gzip-as-promised": file(_promised((2048, 1024, 1024)), "a.nii.gz"),
        "gzip-as-promised-nii": file(_promised((1024, 1024, 1024)), "a.nii"),
        "offset-beyond-zeros": file(gzip.compress(nifti(vox_offset=3e9) + bytes(1 << 20)), "a.nii.gz"),
        "extensions-by-the-hundred-thousand": file(
            gzip.compress(nifti(extension=b"\1\0\0\0" + struct.pack("<iiq", 16, 6, 0) * (1 << 18) + b"\7" * 16), 1),
            "a.nii.gz",
        ),
    }


def bad() -> dict[str, Make]:
    """Files that must be refused when they are read as a scan."""
    good, packed = nifti(), gzip.compress(nifti(), 6, mtime=0)
    floats = DATA.astype(np.float32)
    nans, infs, few = floats.copy(), floats.copy(), floats.copy()
    nans[:] = NAN
    infs[1, 2, 3] = INF
    few[0, :3, 0] = NAN
    sheared = AFFINE.copy()
    sheared[0, 1] = 0.4
    slightly = AFFINE.copy()
    slightly[0, 1] = 0.05
    flat = AFFINE.copy()
    flat[:3, 2] = flat[:3, 1]
    colours = np.zeros(SHAPE, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    four = np.zeros((*SHAPE, 4), np.int16) + np.arange(4, dtype=np.int16)
    five = np.zeros((*SHAPE, 1, 3), np.int16) + np.arange(3, dtype=np.int16)
    moved = rotated(10, 20, 30)
    turned = rotated(180, 0, 0)
    extension = lambda size, code=6, body=b"x" * 24, flag=b"\1\0\0\0": flag + struct.pack("<ii", size, code) + body  # noqa: E731
    made: dict[str, Make] = {
        # The file itself.
        "empty": file(b""),
        "empty-gz-name": file(b"", "a.nii.gz"),
        "gzip-of-nothing": file(gzip.compress(b""), "a.nii.gz"),
        "one-byte": file(b"\x1f"),
        "gzip-magic-only": file(b"\x1f\x8b", "a.nii.gz"),
        "text": file(b"patient;age\n1;2\n" * 100),
        "zeros": file(bytes(4096)),
        "png": file(b"\x89PNG\r\n\x1a\n" + bytes(2000), "a.nii.gz"),
        "zip": file(b"PK\x03\x04" + bytes(2000), "a.nii.gz"),
        "html-login-page": file(b"<!DOCTYPE html><html>login</html>" * 30, "a.nii.gz"),
        "lfs-pointer": file(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n", "a.nii.gz"),
        "bzip2": file(b"BZh91AY&SY" + bytes(600), "a.nii.gz"),
        "fifo": _fifo,
        "socket": _socket,
        "folder": _folder,
        "absent": lambda folder: folder / "a.nii.gz",
        "dangling-link": _linked("nowhere.nii"),
        "link-to-itself": _linked("a.nii"),
        "link-to-zeros": _linked("/dev/zero"),
        "link-to-nothing": _linked("/dev/null"),
        "link-to-folder": _linked("."),
        "link-to-process": _linked("/proc/self/mem"),
        "name-too-long": lambda folder: folder / ("a" * 300 + ".nii"),
        "path-through-file": lambda folder: file(good)(folder) / "b.nii",
        # Cut short, too long, damaged.
        "header-only": file(good[:348]),
        "header-and-4": file(good[:352]),
        "header-cut": file(good[:200]),
        "half": file(good[: len(good) // 2]),
        "one-byte-missing": file(good[:-1]),
        "one-byte-more": file(good + b"x"),
        "one-zero-more": file(good + b"\0"),
        "appended-file": file(good + good),
        "gz-half": file(packed[: len(packed) // 2], "a.nii.gz"),
        "gz-without-crc": file(packed[:-8], "a.nii.gz"),
        "gz-without-length": file(packed[:-4], "a.nii.gz"),
        "gz-one-byte-missing": file(packed[:-1], "a.nii.gz"),
        "gz-header-only": file(packed[:10], "a.nii.gz"),
        "gz-wrong-crc": file(flipped(packed, -8), "a.nii.gz"),
        "gz-wrong-length": file(flipped(packed, -1), "a.nii.gz"),
        "gz-wrong-method": file(packed[:2] + b"\7" + packed[3:], "a.nii.gz"),
        "gz-junk-behind": file(packed + b"junk behind the image", "a.nii.gz"),
        "gz-junk-like-gz": file(packed + b"\x1f\x8b\x08junk", "a.nii.gz"),
        "gz-zeros-then-junk": file(packed + bytes(64) + b"junk", "a.nii.gz"),
        "gz-second-member-cut": file(packed + packed[:30], "a.nii.gz"),
        "gz-second-image": file(packed + packed, "a.nii.gz"),
        "gz-of-longer": file(gzip.compress(good + b"more"), "a.nii.gz"),
        "gz-of-truncated": file(gzip.compress(good[:-100]), "a.nii.gz"),
        "gz-of-header": file(gzip.compress(good[:348]), "a.nii.gz"),
        "gz-of-gz": file(gzip.compress(packed), "a.nii.gz"),
        "gz-cut-in-nii": file(packed[:-20], "a.nii"),
        "nii-cut-in-gz-name": file(good[:-20], "a.nii.gz"),
        "gz-reserved-flags": file(packed[:3] + b"\xe0" + packed[4:], "a.nii.gz"),
        # Magic, sizes, types, offsets.
        "magic-of-pair": edited(magic=b"ni1"),
        "pair-without-image": file(half(good)[0], "a.hdr"),
        "pair-under-another-name": pair(*half(good), header="a.nii"),
        "pair-with-two-images": _both,
        "pair-image-elsewhere": _link_away,
        "pair-image-short": pair(half(good)[0], half(good)[1][:-3]),
        "pair-image-long": pair(half(good)[0], half(good)[1] + b"x"),
        "pair-image-packed-short": pair(half(good)[0], gzip.compress(half(good)[1][:-3])),
        "pair-image-crc": pair(half(good)[0], flipped(gzip.compress(half(good)[1]), -6)),
        "pair-header-goes-on": pair(*half(good, bytes(40))),
        "pair-extension-too-long": pair(*half(good, b"\1\0\0\0" + struct.pack("<ii", 64, 6) + b"c" * 24)),
        "pair-offset-behind-image": pair(half(good, vox_offset=16)[0], half(good)[1]),
        "pair-of-analyze": pair(*half(good, magic=b"")),
        "magic-of-analyze": edited(magic=b""),
        "magic-wrong": edited(magic=b"n+9"),
        "magic-of-nifti2-in-nifti1": edited(magic=b"n+2"),
        "magic-damaged-tail": edited(magic=b"n+1x"),
        "size-of-header-wrong": edited(sizeof_hdr=349),
        "size-of-header-0": edited(sizeof_hdr=0),
        "nifti2-bad-magic": file(nifti(version=2, magic=b"n+3")),
        "nifti2-eol-broken": file(nifti(version=2, eol_check=[10, 10, 26, 10])),
        "nifti2-cut": file(nifti(version=2)[:400]),
        "dtype-0": edited(datatype=0),
        "dtype-1-bit": edited(datatype=1, bitpix=1),
        "dtype-unknown": edited(datatype=77),
        "dtype-negative": edited(datatype=-4),
        "dtype-rgb": file(nifti(colours)),
        "dtype-rgba": file(nifti(np.zeros(SHAPE, np.dtype([(c, "u1") for c in "RGBA"])))),
        "dtype-complex64": file(nifti(floats.astype(np.complex64))),
        "dtype-complex128": file(nifti(floats.astype(np.complex128))),
        "dtype-float128": file(
            nifti(DATA.repeat(2, 0).astype(float), dim=[3, *SHAPE, 1, 1, 1, 1], datatype=1536, bitpix=128)
        ),
        "dtype-wider-than-data": edited(datatype=16, bitpix=32),
        "dtype-narrower-than-data": edited(datatype=2, bitpix=8),
        "bitpix-contradicts": edited(bitpix=32),
        "bitpix-0": edited(bitpix=0),
        "bitpix-negative": edited(bitpix=-16),
        "offset-0": edited(vox_offset=0),
        "offset-in-header": edited(vox_offset=100),
        "offset-348": edited(vox_offset=348),
        "offset-negative": edited(vox_offset=-352),
        "offset-nan": edited(vox_offset=NAN),
        "offset-inf": edited(vox_offset=INF),
        "offset-fractional": edited(vox_offset=352.5),
        "offset-huge": edited(vox_offset=1e30),
        "offset-late": edited(vox_offset=368),
        "offset-behind-end": edited(vox_offset=1e6),
        "nifti2-offset-negative": file(nifti(version=2, vox_offset=-(2**60))),
        "nifti2-offset-huge": file(nifti(version=2, vox_offset=2**62)),
        # Dimensions.
        "rank-0": edited(dim=[0, 6, 7, 8, 1, 1, 1, 1]),
        "rank-8": edited(dim=[8, 6, 7, 8, 1, 1, 1, 1]),
        "rank-negative": edited(dim=[-3, 6, 7, 8, 1, 1, 1, 1]),
        "rank-swapped": edited(dim=[768, 6, 7, 8, 1, 1, 1, 1]),
        "size-0": edited(dim=[3, 6, 0, 8, 1, 1, 1, 1]),
        "size-negative": edited(dim=[3, 6, -7, 8, 1, 1, 1, 1]),
        "size-smaller": edited(dim=[3, 6, 7, 7, 1, 1, 1, 1]),
        "size-larger": edited(dim=[3, 6, 7, 9, 1, 1, 1, 1]),
        "size-negative-behind": edited(dim=[4, 6, 7, 8, -1, 1, 1, 1]),
        "one-slice": file(nifti(DATA[:, :, :1])),
        "one-row": file(nifti(DATA[:1])),
        "one-voxel": file(nifti(DATA[:1, :1, :1])),
        "two-axes": file(nifti(DATA[:, :, 0], dim=[2, 6, 7, 1, 1, 1, 1, 1])),
        "one-axis": file(nifti(DATA[:, 0, 0], dim=[1, 6, 1, 1, 1, 1, 1, 1])),
        "4d": file(nifti(four)),
        "4d-gz": file(gzip.compress(nifti(four)), "a.nii.gz"),
        "5d": file(nifti(five)),
        "5d-displacement": file(nifti(five, intent_code=1006)),
        "5d-time-and-channels": file(nifti(np.repeat(five, 2, axis=3), intent_code=1007)),
        "7d": file(nifti(np.zeros((3, 3, 3, 1, 1, 1, 2), np.int16) + 1)),
        # Scale.
        "slope-nan": edited(scl_slope=NAN),
        "slope-inf": edited(scl_slope=INF),
        "slope-minus-inf": edited(scl_slope=-INF),
        "slope-0": edited(scl_slope=0),
        "slope-0-with-intercept": edited(scl_slope=0, scl_inter=5),
        "intercept-nan": edited(scl_inter=NAN),
        "intercept-inf": edited(scl_inter=INF),
        "both-nan": edited(scl_slope=NAN, scl_inter=NAN),
        "slope-overflows": edited(scl_slope=3e38),
        "slope-below-single-precision": edited(scl_slope=1e-40),
        # Voxel sizes and units.
        "pixdim-0": edited(pixdim=[1, 0, 2, 2, 1, 1, 1, 1]),
        "pixdim-negative": edited(pixdim=[1, -2, 2, 2, 1, 1, 1, 1]),
        "pixdim-nan": edited(pixdim=[1, 2, NAN, 2, 1, 1, 1, 1]),
        "pixdim-inf": edited(pixdim=[1, 2, 2, INF, 1, 1, 1, 1]),
        "pixdim-tiny": edited(pixdim=[1, 1e-30, 2, 2, 1, 1, 1, 1]),
        "pixdim-against-sform": file(nifti(forms="s", pixdim=[1, 1, 2, 2, 1, 1, 1, 1])),
        "pixdim-a-little-off": file(nifti(forms="s", pixdim=[1, 2, 2.02, 2, 1, 1, 1, 1])),
        "pixdim-against-both": edited(pixdim=[1, 2, 2, 3, 1, 1, 1, 1]),
        "pixdims-swapped": file(nifti(affine=np.diag([1.0, 2, 3, 1]), forms="s", pixdim=[1, 3, 2, 1, 1, 1, 1, 1])),
        "unit-metre": edited(xyzt_units=1),
        "unit-micrometre": edited(xyzt_units=3),
        "unit-unknown": edited(xyzt_units=7),
        # Orientation.
        "no-form": file(nifti(forms="")),
        "codes-negative": edited(sform_code=-1, qform_code=-1),
        "code-unknown": edited(sform_code=99),
        "sform-zero": edited(srow_x=[0] * 4, srow_y=[0] * 4, srow_z=[0] * 4),
        "sform-row-zero": edited(srow_z=[0] * 4),
        "sform-singular": file(nifti(affine=flat, forms="s")),
        "sform-nan": edited(srow_y=[0, NAN, 0, 1]),
        "sform-nan-translation": edited(srow_y=[0, 2, 0, NAN]),
        "sform-inf": edited(srow_y=[0, INF, 0, 1]),
        "sform-sheared": file(nifti(affine=sheared, forms="s")),
        "sform-slightly-sheared": file(nifti(affine=slightly, forms="s")),
        "sform-sheared-with-qform": file(nifti(affine=sheared)),
        "sform-far-away": file(nifti(affine=rotated(0, 0, 0, origin=(1e9, 0, 0)), forms="s")),
        "sform-beyond-float": edited(srow_x=[-2, 0, 0, 3e38], qform_code=0),
        "sform-huge-voxels": file(nifti(affine=np.diag([1e8, 1e8, 1e8, 1.0]), forms="s")),
        "qfac-0": edited(pixdim=[0, 2, 2, 2, 1, 1, 1, 1]),
        "qfac-5": edited(pixdim=[5, 2, 2, 2, 1, 1, 1, 1]),
        "qfac-nan": file(nifti(forms="q", pixdim=[NAN, 2, 2, 2, 1, 1, 1, 1])),
        "qfac-flipped": edited(pixdim=[1, 2, 2, 2, 1, 1, 1, 1]),
        "quatern-nan": file(nifti(forms="q", quatern_b=NAN)),
        "quatern-inf": file(nifti(forms="q", quatern_c=INF)),
        "quatern-too-long": file(nifti(forms="q", quatern_b=1.5)),
        "quatern-nan-beside-sform": edited(quatern_d=NAN),
        "qoffset-nan": file(nifti(forms="q", qoffset_x=NAN)),
        "qoffset-nan-beside-sform": edited(qoffset_z=NAN),
        "qoffset-far-away": file(nifti(forms="q", qoffset_y=1e20)),
        "forms-shifted": edited(qoffset_x=12),
        "forms-shifted-a-little": edited(qoffset_x=10.01),
        "forms-shifted-at-180-degrees": file(nifti(affine=turned, qoffset_x=10.05)),
        "forms-turned": file(nifti(affine=moved, quatern_b=0.0)),
        "forms-mirrored": edited(srow_x=[2, 0, 0, 10]),
        # Values.
        "all-nan": file(nifti(nans)),
        "some-nan": file(nifti(few)),
        "some-inf": file(nifti(infs)),
        "minus-inf": file(nifti(-infs)),
        "some-nan-gz-f64": file(gzip.compress(nifti(few.astype(np.float64))), "a.nii.gz"),
        "float64-beyond-float32": file(nifti(floats.astype(np.float64) * 1e300)),
        "constant": file(nifti(np.full(SHAPE, 7, np.int16))),
        "all-zero": file(nifti(np.zeros(SHAPE, np.uint8))),
        "all-zero-gz": file(gzip.compress(nifti(np.zeros(SHAPE, np.float32))), "a.nii.gz"),
        "constant-after-scaling": edited(scl_slope=1e-38, scl_inter=5),
        # Extensions.
        "extension-runs-over": file(nifti(extension=extension(1024))),
        "extension-size-0": file(nifti(extension=extension(0))),
        "extension-size-negative": file(nifti(extension=extension(-16))),
        "extension-size-8": file(nifti(extension=extension(8))),
        "extension-not-16": file(nifti(extension=extension(20))),
        "extension-second-bad": file(nifti(extension=extension(32) + struct.pack("<ii", 2**30, 4) + bytes(8))),
        "extension-overflow": file(nifti(extension=extension(2**31 - 1))),
        "extension-swapped": file(nifti(extension=b"\1\0\0\0" + struct.pack(">ii", 32, 6) + b"x" * 24)),
    }
    for place in (0.05, 0.2, 0.4, 0.6, 0.8, 0.95):
        made[f"gz-flipped-at-{place}"] = file(flipped(packed, int(place * len(packed))), "a.nii.gz")
    return made
