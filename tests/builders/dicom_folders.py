"""Folders of DICOM files, bad and odd: each entry writes one, from data sets made by hand."""

from __future__ import annotations

import gzip
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmwrite, uid
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as DicomSequence

SLICES, ROWS, COLUMNS = 6, 8, 10
STEP = 2.5
Edit = Callable[[int, Dataset], Any]


def voxels(seed: int = 0, slices: int = SLICES) -> np.ndarray:
    """Stored values, (slice, row, column) uint16."""
    return np.random.default_rng(seed).integers(1, 1000, (slices, ROWS, COLUMNS)).astype(np.uint16)


def image(pixels: np.ndarray, kind: str = uid.MRImageStorage, syntax: str = uid.ExplicitVRLittleEndian) -> FileDataset:
    """One slice without a place."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = uid.UID(syntax), kind
    meta.MediaStorageSOPInstanceUID = uid.generate_uid()
    item = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    item.SOPClassUID, item.SOPInstanceUID = kind, meta.MediaStorageSOPInstanceUID
    item.StudyInstanceUID, item.SeriesInstanceUID, item.FrameOfReferenceUID = "1.2.3", "1.2.3.4", "1.2.3.5"
    item.PatientID, item.PatientName = "SECRET-ID", "SECRET^NAME"
    item.SeriesNumber, item.Modality, item.SeriesDescription = 3, "MR", "SECRET DESCRIPTION"
    item.Rows, item.Columns = pixels.shape[-2:]
    item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
    bits = pixels.dtype.itemsize * 8
    item.BitsAllocated = item.BitsStored = bits
    item.HighBit, item.PixelRepresentation = bits - 1, int(pixels.dtype.kind == "i")
    item.PixelData = np.ascontiguousarray(pixels).tobytes()
    return item


def save(item: Dataset, path: Path) -> None:
    """As the file meta information says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dcmwrite(path, item, enforce_file_format=True)


def series(
    folder: Path,
    edit: Edit | None = None,
    *,
    data: np.ndarray | None = None,
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
    origin: Sequence[float] = (-10.0, 20.0, 30.0),
    step: Sequence[float] | None = None,
    spacing: Sequence[float] = (0.75, 0.5),
    names: str = "{:03d}.dcm",
    kind: str = uid.MRImageStorage,
    syntax: str = uid.ExplicitVRLittleEndian,
) -> Path:
    """One file per slice; an edit that returns False leaves the file out."""
    data = voxels() if data is None else data
    step = STEP * np.cross(orientation[:3], orientation[3:]) if step is None else step
    for index, pixels in enumerate(data):
        item = image(pixels, kind, syntax)
        item.InstanceNumber = index + 1
        item.ImageOrientationPatient = list(orientation)
        item.ImagePositionPatient = [float(round(a + index * b, 6)) for a, b in zip(origin, step, strict=True)]
        item.PixelSpacing = list(spacing)
        if edit is None or edit(index, item) is not False:
            save(item, folder / names.format(index))
    return folder


def put(**values: Any) -> Edit:
    """An edit that sets attributes in every slice."""
    return only(range(1000), **values)


def only(which: Sequence[int] | range, **values: Any) -> Edit:
    """An edit that sets attributes in some slices; None deletes them, a function of the index is called."""

    def edit(index: int, item: Dataset) -> None:
        if index not in which:
            return
        for name, value in values.items():
            if value is None:
                delattr(item, name)
            else:
                setattr(item, name, value(index) if callable(value) else value)

    return edit


def raw(index: int, tag: int, text: bytes, vr: str = "DS") -> Edit:
    """An edit that puts the bytes of a value past every check, in one slice (all for -1)."""
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    def edit(number: int, item: Dataset) -> None:
        if index in (number, -1):
            padded = text + b" " * (len(text) % 2)
            item._dict[Tag(tag)] = RawDataElement(Tag(tag), vr, len(padded), padded, 0, False, True)

    return edit


def both(*edits: Edit) -> Edit:
    def edit(index: int, item: Dataset) -> Any:
        return False not in [one(index, item) for one in edits]

    return edit


def change(folder: Path, index: int, function: Callable[[bytes], bytes]) -> Path:
    """Change the bytes of one file of a series."""
    path = sorted(folder.iterdir())[index]
    path.write_bytes(function(path.read_bytes()))
    return folder


def multiframe(path: Path, edit: Callable[[Dataset], Any] | None = None, *, data: np.ndarray | None = None) -> Path:
    """One enhanced object with frames in ascending order."""
    data = voxels() if data is None else data
    item = image(data, uid.EnhancedMRImageStorage)
    item.NumberOfFrames = len(data)
    measures, orientation, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [0.75, 0.5]
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    item.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for index in range(len(data)):
        position, group = Dataset(), Dataset()
        position.ImagePositionPatient = [-10.0, 20.0, 30.0 + index * STEP]
        group.PlanePositionSequence = [position]
        groups.append(group)
    item.PerFrameFunctionalGroupsSequence = groups
    if edit is not None:
        edit(item)
    save(item, path)
    return path.parent


def other(folder: Path, name: str, kind: str, modality: str, **values: Any) -> Path:
    """An object that is no image."""
    item = image(np.zeros((2, 2), np.uint8), kind)
    for key in ("Rows", "Columns", "PixelData", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(item, key)
    item.Modality, item.SeriesInstanceUID = modality, "1.2.3.99"
    for key, value in values.items():
        setattr(item, key, value)
    save(item, folder / name)
    return folder


def segmentation(path: Path) -> None:
    """A binary SEG object, as far as a reader of images cares."""
    item = image(np.zeros((SLICES, ROWS, COLUMNS), np.uint8), uid.SegmentationStorage)
    item.Modality, item.SeriesInstanceUID, item.NumberOfFrames = "SEG", "1.2.3.98", SLICES
    item.BitsAllocated, item.BitsStored, item.HighBit = 1, 1, 0
    item.PixelData = bytes(SLICES * ROWS * COLUMNS // 8)
    save(item, path)


def compressed(folder: Path, syntax: str, fragments: Callable[[np.ndarray], bytes], **values: Any) -> Path:
    """A series whose pixels are encapsulated fragments made by a function."""

    def edit(index: int, item: Dataset) -> None:
        item.PixelData = encapsulate([fragments(voxels()[index])])
        item["PixelData"].is_undefined_length = True
        put(**values)(index, item)

    return series(folder, edit, syntax=syntax)


def rle(folder: Path, names: str = "{:03d}.dcm") -> Path:
    def edit(index: int, item: Dataset) -> None:
        item.compress(uid.RLELossless)

    return series(folder, edit, names=names)


def deflated(path: Path, body: bytes) -> None:
    """A deflated explicit little-endian file around a body."""
    item = image(voxels()[0], syntax=uid.DeflatedExplicitVRLittleEndian)
    save(item, path)
    content = path.read_bytes()
    length = struct.unpack("<I", content[140:144])[0]
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    path.write_bytes(content[: 144 + length] + packer.compress(body) + packer.flush())


def nested(depth: int) -> bytes:
    """Sequences within sequences, explicit little endian, undefined length."""
    start = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    end = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return start * depth + end * depth


def after_meta(content: bytes, insert: bytes) -> bytes:
    """Bytes put in front of the data set."""
    length = struct.unpack("<I", content[140:144])[0]
    return content[: 144 + length] + insert + content[144 + length :]


def without_meta(content: bytes) -> bytes:
    """The data set alone, as old archives keep it."""
    length = struct.unpack("<I", content[140:144])[0]
    return content[144 + length :]


# ---------------------------------------------------------------------------------------------------------- bad folders

Write = Callable[[Path], Path]


@dataclass(frozen=True)
class Bad:
    """How to write it, words of its refusal, and the declared number of slices if any."""

    write: Write
    words: tuple[str, ...]
    slices: int | None = None


BAD: dict[str, Bad] = {}


def bad(name: str, *words: str, slices: int | None = None) -> Callable[[Write], Write]:
    def keep(write: Write) -> Write:
        BAD[name] = Bad(write, words, slices)
        return write

    return keep


def simple(name: str, edit: Edit, *words: str, **options: Any) -> None:
    """A series with one edit."""
    BAD[name] = Bad(lambda folder: series(folder, edit, **options), words)


def drop(*indices: int) -> Edit:
    return lambda index, item: index not in indices


BAD["missing at the end"] = Bad(lambda f: series(f, drop(5)), ("5 slices", "6"), slices=6)
BAD["more than declared"] = Bad(series, ("6 slices", "5"), slices=5)
simple("missing in the middle", drop(2), "irregular spacing", "1 missing")
simple("two missing", drop(1, 4), "irregular spacing")
simple("every second missing", both(put(SpacingBetweenSlices=STEP), drop(1, 3, 5)), "every")
simple("one slice left", drop(1, 2, 3, 4, 5), "single slice")
simple("irregular", only([5], ImagePositionPatient=[-10, 20, 43.5]), "irregular spacing")
simple("off the line", only([2], ImagePositionPatient=[-8, 20, 35]), "irregular")
simple("no position", put(ImagePositionPatient=None), "ImagePositionPatient")
simple("no position in one", only([3], ImagePositionPatient=None), "ImagePositionPatient", "003.dcm")
simple("no orientation", put(ImageOrientationPatient=None), "ImageOrientationPatient")
simple("no pixel spacing", put(PixelSpacing=None), "PixelSpacing")
simple("position of words", raw(2, 0x00200032, rb"left\up\down"), "ImagePositionPatient", "002.dcm")
simple("position NaN", raw(2, 0x00200032, rb"nan\20\30"), "ImagePositionPatient", "002.dcm")
simple("position infinite", raw(2, 0x00200032, rb"1\inf\30"), "ImagePositionPatient", "002.dcm")
simple("position of two", raw(2, 0x00200032, rb"1\2"), "ImagePositionPatient", "002.dcm")
simple("position empty", raw(-1, 0x00200032, b""), "ImagePositionPatient")
simple("orientation NaN", raw(-1, 0x00200037, rb"nan\0\0\0\1\0"), "ImageOrientationPatient")
simple("orientation zero", put(ImageOrientationPatient=[0, 0, 0, 0, 0, 0]), "perpendicular unit")
simple("orientation not perpendicular", put(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "perpendicular")
simple("spacing negative", put(PixelSpacing=[-0.75, 0.5]), "positive")
simple("spacing zero", put(PixelSpacing=[0, 0.5]), "positive")
simple("spacing of words", raw(-1, 0x00280030, rb"wide\narrow"), "PixelSpacing")
simple("spacing infinite", raw(-1, 0x00280030, rb"inf\1"), "PixelSpacing")
simple("slope zero", put(RescaleSlope=0, RescaleIntercept=0), "slope")
simple("slope NaN", both(put(RescaleIntercept=0), raw(-1, 0x00281053, b"nan")), "RescaleSlope")
simple("slope of words", both(put(RescaleIntercept=0), raw(1, 0x00281053, b"steep")), "RescaleSlope", "001.dcm")
simple("intercept infinite", both(put(RescaleSlope=1), raw(1, 0x00281052, b"-inf")), "RescaleIntercept")
simple("slope in some only", only([0, 1, 2], RescaleSlope=2, RescaleIntercept=1), "rescale")
simple("overflowing slope", put(RescaleSlope="1e300", RescaleIntercept=0), "")
simple("zero rows", only([2], Rows=0), "002.dcm", "Rows")
simple("zero columns", put(Columns=0), "Columns")
simple("no rows", only([2], Rows=None), "002.dcm")
simple("mixed orientation", only([4, 5], ImageOrientationPatient=[0, 1, 0, 0, 0, -1]), "orientations")
simple("mixed spacing", only([4], PixelSpacing=[0.8, 0.5]), "spacings")
simple("mixed photometric", only([4], PhotometricInterpretation="MONOCHROME1"), "photometric")
simple("mixed echoes in place", both(put(EchoTime=lambda i: 10 + i // 3)), "echo")
simple("mixed modality", only([4], Modality="CT"), "modalit")
simple("mixed frames of reference", only([4], FrameOfReferenceUID="1.2.9"), "frame")
simple("localiser flag in one", only([0], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "localizer")
simple("colour", put(PhotometricInterpretation="RGB", SamplesPerPixel=3, PlanarConfiguration=0), "colour")
simple("palette", put(PhotometricInterpretation="PALETTE COLOR"), "colour")
simple("mosaic", put(ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"]), "mosaic")
simple("lookup table", put(ModalityLUTSequence=[Dataset()]), "lookup table")
simple("no pixels in one", only([2], PixelData=None), "no pixels", "002.dcm")
simple("empty pixels", only([2], PixelData=b""), "002.dcm")
simple("pixels too short", only([2], PixelData=bytes(40)), "002.dcm", "truncated")
simple("pixels too long", only([2], PixelData=bytes(1600)), "002.dcm")
simple("bits stored above allocated", put(BitsStored=20), "BitsStored")
simple("bits allocated 12", put(BitsAllocated=12, BitsStored=12, HighBit=11), "BitsAllocated")
simple("bits allocated lie", put(BitsAllocated=32, BitsStored=32, HighBit=31), "truncated")
simple("high bit elsewhere", put(BitsStored=12, HighBit=15), "HighBit")
simple("pixel representation 7", put(PixelRepresentation=7), "PixelRepresentation")
simple("no bits", put(BitsAllocated=None), "BitsAllocated")
simple("samples 4", put(SamplesPerPixel=4), "colour")
simple("gantry tilt", lambda i, d: None, "gantry tilt", orientation=(1, 0, 0, 0, 0.9483, -0.3173), step=(0, 0, STEP))
simple("all in one place", lambda i, d: None, "taken", step=(0, 0, 0))
simple("shared instance uid", put(SOPInstanceUID="1.2.3.77"), "SOPInstanceUID")
simple("constant", lambda i, d: None, "all voxels", data=np.full((SLICES, ROWS, COLUMNS), 7, np.uint16))
simple("rows bomb", only([2], Rows=65535, Columns=65535), "002.dcm")
simple("series uid missing in one", only([2], SeriesInstanceUID=None), "2 series")
simple("hidden 3d in one slice", only([2], NumberOfFrames=4), "002.dcm")


simple("one row", lambda i, d: None, "Rows x Columns", data=voxels()[:, :1])
simple("two patients", only([3, 4, 5], PatientID="SECRET OTHER"), "2 patients")
simple("two studies", only([5], StudyInstanceUID="1.2.99"), "2 studies")
simple("two classes of object", only([4], SOPClassUID=uid.CTImageStorage), "classes of object")
simple("head first and feet first", put(PatientPosition=lambda i: "HFS" if i < 3 else "FFS"), "patient positions")
simple("two units", put(Modality="PT", Units=lambda i: "CNTS" if i == 2 else "BQML"), "units")
simple("two tube voltages", put(Modality="CT", KVP=lambda i: 80 if i < 3 else 140), "tube voltages")
simple("no slope in one", both(put(RescaleSlope=2, RescaleIntercept=0), only([2], RescaleSlope=None)), "rescale")
simple("20 m away", lambda i, d: None, "origin of the world", origin=(0, 20000, 0))


@bad("last file packed", "005.dcm.gz", "packed")
def _(folder: Path) -> Path:
    path = series(folder) / "005.dcm"
    path.with_suffix(".dcm.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    return folder


@bad("two files in one", "002.dcm", "behind the pixels")
def _(folder: Path) -> Path:
    return change(series(folder), 2, lambda content: content + content)


@bad("text behind the pixels", "002.dcm")
def _(folder: Path) -> Path:
    return change(series(folder), 2, lambda content: content + b"garbage!" * 40)


@bad("mixed sizes", "sizes")
def _(folder: Path) -> Path:
    def edit(index: int, item: Dataset) -> None:
        if index == 3:
            item.Rows, item.Columns = COLUMNS, ROWS

    return series(folder, edit)


@bad("mixed bits", "BitsAllocated")
def _(folder: Path) -> Path:
    def edit(index: int, item: Dataset) -> None:
        if index == 3:
            item.BitsAllocated, item.BitsStored, item.HighBit = 8, 8, 7
            item.PixelData = bytes(ROWS * COLUMNS)

    return series(folder, edit)


@bad("mixed signs", "PixelRepresentation")
def _(folder: Path) -> Path:
    return series(folder, only([3], PixelRepresentation=1))


@bad("two echoes", "echo times")
def _(folder: Path) -> Path:
    series(folder, put(EchoTime=10.0))
    return series(folder, put(EchoTime=20.0), data=voxels(1), names="e{}.dcm")


@bad("time points", "time points")
def _(folder: Path) -> Path:
    series(folder, put(TemporalPositionIdentifier=1))
    return series(folder, put(TemporalPositionIdentifier=2), data=voxels(1), names="t{}.dcm")


@bad("time points by acquisition", "acquisition")
def _(folder: Path) -> Path:
    series(folder, put(AcquisitionNumber=1))
    return series(folder, put(AcquisitionNumber=2), data=voxels(1), names="t{}.dcm")


@bad("b-values", "b-values")
def _(folder: Path) -> Path:
    series(folder, put(DiffusionBValue=0.0))
    return series(folder, put(DiffusionBValue=1000.0), data=voxels(1), names="b{}.dcm")


@bad("magnitude and phase", "image types")
def _(folder: Path) -> Path:
    series(folder, put(ImageType=["ORIGINAL", "PRIMARY", "M", "ND"]))
    return series(folder, put(ImageType=["ORIGINAL", "PRIMARY", "P", "ND"]), data=voxels(1), names="b{}.dcm")


@bad("incomplete time point", "time points")
def _(folder: Path) -> Path:
    series(folder, put(TemporalPositionIdentifier=1))
    return series(folder, both(put(TemporalPositionIdentifier=2), drop(0, 1)), data=voxels(1), names="t{}.dcm")


@bad("copies of every file", "copies")
def _(folder: Path) -> Path:
    series(folder)
    for path in sorted(folder.iterdir()):
        shutil.copy(path, path.with_name(f"copy-{path.name}"))
    return folder


@bad("one copy", "copies", "003.dcm")
def _(folder: Path) -> Path:
    series(folder)
    shutil.copy(folder / "003.dcm", folder / "003 (1).dcm")
    return folder


@bad("one twice with another uid", "already taken")
def _(folder: Path) -> Path:
    series(folder)
    return series(folder, drop(0, 1, 2, 4, 5), names="b{}.dcm")


@bad("two series", "2 series", "series 3 (MR, 6 files")
def _(folder: Path) -> Path:
    series(folder)
    return series(folder, put(SeriesInstanceUID="1.2.3.6", SeriesNumber=4), data=voxels(1), names="b{}.dcm")


@bad("localiser of its own", "2 series")
def _(folder: Path) -> Path:
    series(folder)
    turned = put(SeriesInstanceUID="1.2.3.6", SeriesNumber=1, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    return series(folder, both(turned, drop(3, 4, 5)), orientation=(0, 1, 0, 0, 0, -1), names="loc{}.dcm")


@bad("localiser in the series", "orientations")
def _(folder: Path) -> Path:
    series(folder)
    return series(folder, drop(1, 2, 3, 4, 5), orientation=(0, 1, 0, 0, 0, -1), names="loc{}.dcm")


@bad("secondary captures", "ImagePositionPatient")
def _(folder: Path) -> Path:
    gone = put(ImagePositionPatient=None, ImageOrientationPatient=None, PixelSpacing=None, Modality="OT")
    return series(folder, gone, kind=uid.SecondaryCaptureImageStorage)


@bad("secondary capture in the series", "ImagePositionPatient")
def _(folder: Path) -> Path:
    series(folder)
    gone = put(ImagePositionPatient=None, ImageOrientationPatient=None, PixelSpacing=None)
    return series(folder, both(gone, drop(1, 2, 3, 4, 5)), kind=uid.SecondaryCaptureImageStorage, names="sc{}.dcm")


@bad("truncated header", "002.dcm")
def _(folder: Path) -> Path:
    return change(series(folder), 2, lambda content: content[:300])


@bad("truncated in the meta", "002.dcm")
def _(folder: Path) -> Path:
    return change(series(folder), 2, lambda content: content[:170])


@bad("truncated pixels", "002.dcm", "truncated")
def _(folder: Path) -> Path:
    return change(series(folder), 2, lambda content: content[:-20])


@bad("truncated before the pixels", "002.dcm")
def _(folder: Path) -> Path:
    return change(series(folder), 2, lambda content: content[: -2 * ROWS * COLUMNS - 12])


@bad("cut in the preamble", "002.dcm")
def _(folder: Path) -> Path:
    return change(series(folder), 2, lambda content: content[:60])


@bad("last file empty", "005.dcm")
def _(folder: Path) -> Path:
    return change(series(folder), 5, lambda content: b"")


@bad("last file a web page", "005.dcm")
def _(folder: Path) -> Path:
    return change(series(folder), 5, lambda content: b"<html>404 not found</html>" * 20)


@bad("last file empty, without suffix", "IM0005")
def _(folder: Path) -> Path:
    return change(series(folder, names="IM{:04d}"), 5, lambda content: b"")


@bad("two truncated", "001.dcm", "004.dcm")
def _(folder: Path) -> Path:
    change(series(folder), 1, lambda content: content[:-20])
    return change(folder, 4, lambda content: content[:300])


@bad("without preamble", "000.dcm", "header")
def _(folder: Path) -> Path:
    series(folder)
    for index in range(SLICES):
        change(folder, index, without_meta)
    return folder


@bad("one without preamble", "005.dcm", "header")
def _(folder: Path) -> Path:
    return change(series(folder), 5, without_meta)


@bad("length of the pixels lies", "002.dcm")
def _(folder: Path) -> Path:
    tag = struct.pack("<HH2sH", 0x7FE0, 0x0010, b"OW", 0)
    return change(
        series(folder), 2, lambda c: c.replace(tag + struct.pack("<I", 160), tag + struct.pack("<I", 1 << 31))
    )


@bad("declared big endian", "002.dcm")
def _(folder: Path) -> Path:
    return change(series(folder), 2, lambda c: c.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.2\0", 1))


@bad("declared implicit", "002.dcm", "transfer syntax")
def _(folder: Path) -> Path:
    return change(series(folder), 2, lambda content: _resyntax(content, uid.ImplicitVRLittleEndian.encode()))


@bad("declared deflated", "002.dcm")
def _(folder: Path) -> Path:
    return change(series(folder), 2, lambda c: _resyntax(c, b"1.2.840.10008.1.2.1.99"))


@bad("declared JPEG 2000", "JPEG 2000")
def _(folder: Path) -> Path:
    series(folder)
    for index in range(SLICES):
        change(folder, index, lambda c: _resyntax(c, b"1.2.840.10008.1.2.4.90"))
    return folder


@bad("declared native but encapsulated", "002.dcm")
def _(folder: Path) -> Path:
    return change(rle(folder), 2, lambda c: _resyntax(c, b"1.2.840.10008.1.2.1"))


@bad("unknown transfer syntax", "transfer syntax")
def _(folder: Path) -> Path:
    return change(series(folder), 2, lambda c: _resyntax(c, b"1.2.3.4.5.6.7"))


def _resyntax(content: bytes, syntax: bytes) -> bytes:
    """The file with another transfer syntax in its meta information."""
    start = content.index(struct.pack("<HH2s", 2, 0x10, b"UI"))
    old = struct.unpack("<H", content[start + 6 : start + 8])[0]
    value = syntax + b"\0" * (len(syntax) % 2)
    changed = content[: start + 6] + struct.pack("<H", len(value)) + value + content[start + 8 + old :]
    group = struct.unpack("<I", changed[140:144])[0] + len(value) - old
    return changed[:140] + struct.pack("<I", group) + changed[144:]


@bad("JPEG 2000 of noise", "JPEG 2000")
def _(folder: Path) -> Path:
    return compressed(folder, uid.JPEG2000Lossless, lambda p: b"\xff\x4f\xff\x51" + bytes(50))


@bad("JPEG-LS of noise", "JPEG-LS")
def _(folder: Path) -> Path:
    return compressed(folder, uid.JPEGLSLossless, lambda p: b"\xff\xd8\xff\xf7" + bytes(50))


@bad("JPEG lossless of noise", "JPEG Lossless")
def _(folder: Path) -> Path:
    return compressed(folder, uid.JPEGLosslessSV1, lambda p: b"\xff\xd8\xff\xc3" + bytes(50))


@bad("video", "MPEG")
def _(folder: Path) -> Path:
    return compressed(folder, uid.MPEG4HP41, lambda p: bytes(60))


@bad("RLE of noise", "000.dcm")
def _(folder: Path) -> Path:
    return compressed(folder, uid.RLELossless, lambda p: bytes(80))


@bad("RLE cut", "002.dcm")
def _(folder: Path) -> Path:
    return change(rle(folder), 2, lambda content: content[:-60])


@bad("RLE bomb", "000.dcm")
def _(folder: Path) -> Path:
    header = struct.pack("<16I", 2, 64, 64 + 200, *[0] * 13)
    return compressed(folder, uid.RLELossless, lambda p: header + b"\x81\x00" * 200, Rows=65535, Columns=65535)


@bad("fragments without delimiter", "002.dcm")
def _(folder: Path) -> Path:
    return change(rle(folder), 2, lambda c: c.replace(struct.pack("<HHI", 0xFFFE, 0xE0DD, 0), b"")[:-4])


@bad("fragment length lies", "002.dcm")
def _(folder: Path) -> Path:
    item = struct.pack("<HH", 0xFFFE, 0xE000)

    def lie(content: bytes) -> bytes:
        place = content.rindex(item)
        return content[: place + 4] + struct.pack("<I", 0x7FFFFFF0) + content[place + 8 :]

    return change(rle(folder), 2, lie)


@bad("deflated bomb", "000.dcm")
def _(folder: Path) -> Path:
    deflated(_in(folder) / "000.dcm", bytes(1 << 28))
    return folder


@bad("deflated pixel bomb", "000.dcm")
def _(folder: Path) -> Path:
    head = without_meta(_bytes(image(voxels()[0])))
    cut = head.rindex(struct.pack("<HH2sH", 0x7FE0, 0x0010, b"OW", 0))
    body = head[:cut] + struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, 1 << 28) + bytes(1 << 28)
    deflated(_in(folder) / "000.dcm", body)
    return folder


def _in(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _bytes(item: Dataset) -> bytes:
    from io import BytesIO

    file = BytesIO()
    dcmwrite(file, item, enforce_file_format=True)
    return file.getvalue()


@bad("sequences nested 10000 deep", "002.dcm")
def _(folder: Path) -> Path:
    return change(series(folder), 2, lambda content: after_meta(content, nested(10000)))


@bad("group length bomb", "002.dcm")
def _(folder: Path) -> Path:
    return change(series(folder), 2, lambda content: content[:140] + struct.pack("<I", 0xFFFFFFF0) + content[144:])


@bad("text of 4 GB", "002.dcm")
def _(folder: Path) -> Path:
    lie = struct.pack("<HH2sHI", 0x0008, 0x0001, b"UN", 0, 0xFFFFFFF0)
    return change(series(folder), 2, lambda content: after_meta(content, lie))


@bad("frames bomb", "a.dcm")
def _(folder: Path) -> Path:
    return multiframe(folder / "a.dcm", lambda d: setattr(d, "NumberOfFrames", 2_000_000_000))


@bad("frames of words", "a.dcm")
def _(folder: Path) -> Path:
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    tag = Tag(0x00280008)
    return multiframe(
        folder / "a.dcm", lambda d: d._dict.update({tag: RawDataElement(tag, "IS", 4, b"many", 0, False, True)})
    )


@bad("frames without groups", "a.dcm")
def _(folder: Path) -> Path:
    return multiframe(folder / "a.dcm", lambda d: delattr(d, "PerFrameFunctionalGroupsSequence"))


@bad("fewer groups than frames", "a.dcm", "frames")
def _(folder: Path) -> Path:
    return multiframe(folder / "a.dcm", lambda d: d.PerFrameFunctionalGroupsSequence.pop())


@bad("frames in one place", "taken")
def _(folder: Path) -> Path:
    def edit(item: Dataset) -> None:
        for group in item.PerFrameFunctionalGroupsSequence:
            group.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 0]

    return multiframe(folder / "a.dcm", edit)


@bad("a frame without position", "ImagePositionPatient")
def _(folder: Path) -> Path:
    return multiframe(
        folder / "a.dcm", lambda d: delattr(d.PerFrameFunctionalGroupsSequence[2], "PlanePositionSequence")
    )


@bad("enhanced without a frame", "irregular spacing")
def _(folder: Path) -> Path:
    def edit(item: Dataset) -> None:
        del item.PerFrameFunctionalGroupsSequence[2]
        item.NumberOfFrames = SLICES - 1
        item.PixelData = voxels()[:-1].tobytes()

    return multiframe(folder / "a.dcm", edit)


@bad("enhanced time points", "time points")
def _(folder: Path) -> Path:
    def edit(item: Dataset) -> None:
        for index, group in enumerate(item.PerFrameFunctionalGroupsSequence):
            content = Dataset()
            content.TemporalPositionIndex = 1 + index // 3
            group.FrameContentSequence = [content]
            group.PlanePositionSequence[0].ImagePositionPatient = [0, 0, STEP * (index % 3)]

    return multiframe(folder / "a.dcm", edit)


@bad("truncated enhanced", "a.dcm", "truncated")
def _(folder: Path) -> Path:
    return change(multiframe(folder / "a.dcm"), 0, lambda content: content[:-100])


@bad("single enhanced frame", "single slice")
def _(folder: Path) -> Path:
    return multiframe(folder / "a.dcm", data=voxels()[:1])


@bad("report alone", "SR")
def _(folder: Path) -> Path:
    return other(folder, "a.dcm", uid.BasicTextSRStorage, "SR")


@bad("segmentation alone", "SEG")
def _(folder: Path) -> Path:
    segmentation(folder / "a.dcm")
    return folder


@bad("structure set alone", "RTSTRUCT")
def _(folder: Path) -> Path:
    return other(folder, "a.dcm", uid.RTStructureSetStorage, "RTSTRUCT")


@bad("dose alone", "RTDOSE")
def _(folder: Path) -> Path:
    item = image(voxels(), uid.RTDoseStorage)
    item.Modality, item.NumberOfFrames = "RTDOSE", SLICES
    save(item, folder / "a.dcm")
    return folder


@bad("empty folder", "no images")
def _(folder: Path) -> Path:
    return _in(folder)


@bad("text only", "no")
def _(folder: Path) -> Path:
    (_in(folder) / "notes.txt").write_text("nothing here")
    return folder


@bad("empty subfolders", "no")
def _(folder: Path) -> Path:
    _in(folder / "a" / "b")
    return folder


@bad("link that leads nowhere", "link", "link.dcm")
def _(folder: Path) -> Path:
    (series(folder) / "link.dcm").symlink_to("absent.dcm")
    return folder


@bad("link out of the folder", "link", "005.dcm")
def _(folder: Path) -> Path:
    series(folder / "in")
    (folder / "in" / "005.dcm").rename(folder / "outside.dcm")
    (folder / "in" / "005.dcm").symlink_to("../outside.dcm")
    return folder / "in"


@bad("link in a circle", "link", "a.dcm")
def _(folder: Path) -> Path:
    (series(folder) / "a.dcm").symlink_to("b.dcm")
    (folder / "b.dcm").symlink_to("a.dcm")
    return folder


@bad("pipe beside", "pipe", "006.dcm")
def _(folder: Path) -> Path:
    os.mkfifo(series(folder) / "006.dcm")
    return folder


@bad("folder named as a slice", "006.dcm")
def _(folder: Path) -> Path:
    _in(series(folder) / "006.dcm")
    return folder


@bad("a series and another in a subfolder", "2 series")
def _(folder: Path) -> Path:
    series(folder)
    series(folder / "more", put(SeriesInstanceUID="1.2.3.6"), data=voxels(1))
    return folder


# --------------------------------------------------------------------------------------------------- odd but valid ones


@dataclass(frozen=True)
class Odd:
    """How to write it, and what comes out: values by slice along the normal, affine in RAS+."""

    write: Write
    values: np.ndarray
    affine: np.ndarray


ODD: dict[str, Odd] = {}
AXIAL = np.array([[-0.5, 0, 0, 10], [0, -0.75, 0, -20], [0, 0, STEP, 30], [0, 0, 0, 1.0]])


def odd(name: str, write: Write, values: np.ndarray | None = None, affine: np.ndarray = AXIAL) -> None:
    ODD[name] = Odd(write, voxels() if values is None else values, affine)


def affine_of(orientation: Sequence[float], origin: Sequence[float] = (-10, 20, 30)) -> np.ndarray:
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    result = np.eye(4)
    result[:3, 0], result[:3, 1], result[:3, 2] = row * 0.5, column * 0.75, np.cross(row, column) * STEP
    result[:3, 3] = origin
    return np.diag([-1.0, -1, 1, 1]) @ result


def turned(*orientation: float) -> tuple[Write, None, np.ndarray]:
    return lambda folder: series(folder, orientation=orientation), None, affine_of(orientation)


_C, _S = np.cos(0.3), np.sin(0.3)
odd("axial", series)
odd("sagittal", *turned(0, 1, 0, 0, 0, -1))
odd("coronal", *turned(1, 0, 0, 0, 0, -1))
odd("oblique", *turned(_C, _S, 0, -_S * _C, _C * _C, _S))
odd("feet first", *turned(-1, 0, 0, 0, 1, 0))
odd(
    "descending",
    lambda f: series(f, step=(0, 0, -STEP)),
    voxels()[::-1],
    affine_of((1, 0, 0, 0, 1, 0), (-10, 20, 30 - 5 * STEP)),
)
odd("names by uid", lambda f: series(f, names="1.2.840.113619.2.{}"))
odd("names without suffix", lambda f: series(f, names="IM{:04d}"))
odd("names with .IMA", lambda f: series(f, names="A{:04d}.IMA"))
odd("names of Unicode and blanks", lambda f: series(f, names="Schädel MR {}.dcm"))
odd("implicit", lambda f: series(f, syntax=uid.ImplicitVRLittleEndian))
odd("rle", rle)
odd("monochrome1 CT", lambda f: series(f, put(PhotometricInterpretation="MONOCHROME1", Modality="CT")))
odd(
    "monochrome1",
    lambda f: series(f, put(PhotometricInterpretation="MONOCHROME1")),
    int(voxels().max()) + int(voxels().min()) - voxels().astype(int),
)
odd(
    "rescale per slice",
    lambda f: series(f, put(RescaleSlope=lambda i: i + 0.5, RescaleIntercept=lambda i: -i)),
    voxels() * (np.arange(SLICES) + 0.5)[:, None, None] - np.arange(SLICES)[:, None, None],
)
odd("negative slope", lambda f: series(f, put(RescaleSlope=-1, RescaleIntercept=0)), -voxels().astype(float))
odd("enhanced", lambda f: multiframe(f / "a.dcm"))
odd("enhanced without suffix", lambda f: multiframe(f / "IM1"))
odd("named parts", lambda f: series(f, put(SpecificCharacterSet="ISO_IR 192", PatientName="Müller^Äpfel")))
odd(
    "Japanese names",
    lambda f: series(f, put(SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName="Yamada^Tarou=山田^太郎")),
)
odd("unknown character set", lambda f: series(f, raw(-1, 0x00080005, b"ISO_IR 999", "CS")))
odd("no spacing between slices", lambda f: series(f, put(SliceThickness=1.0)))
odd("wrong spacing between slices", lambda f: series(f, put(SpacingBetweenSlices=0.3)))
odd("odd uids", lambda f: series(f, put(SeriesInstanceUID="1.2.03.4", SOPInstanceUID=lambda i: f"9.{i}")))
odd("series uid of letters", lambda f: series(f, put(SeriesInstanceUID="not-a-uid")))
odd("empty instance numbers", lambda f: series(f, put(InstanceNumber="")))
odd("no series number", lambda f: series(f, put(SeriesNumber=None)))
odd("acquisition number per slice", lambda f: series(f, put(AcquisitionNumber=lambda i: i + 1)))
odd("trigger time per slice", lambda f: series(f, put(TriggerTime=lambda i: 10.0 * i)))
odd(
    "private tags",
    lambda f: series(f, lambda i, d: d.private_block(0x0019, "ACME", create=True).add_new(1, "OB", b"\1\2")),
)
odd("12 bits stored", lambda f: series(f, put(BitsStored=12, HighBit=11)))
odd(
    "junk above the stored bits",
    lambda f: series(f, put(BitsStored=12, HighBit=11), data=voxels() | np.uint16(0xA000)),
)
odd(
    "12 bits signed",
    lambda f: series(f, put(BitsStored=12, HighBit=11, PixelRepresentation=1), data=(voxels() * 4) & np.uint16(0xFFF)),
    ((voxels().astype(int) * 4 & 0xFFF) ^ 0x800) - 0x800,
)
odd("8 bits", lambda f: series(f, data=voxels().astype(np.uint8)), voxels().astype(np.uint8))
odd("signed", lambda f: series(f, data=voxels().astype(np.int16) - 500), voxels().astype(int) - 500)
odd("32 bits", lambda f: series(f, data=voxels().astype(np.uint32) * 70000), voxels().astype(float) * 70000)
odd(
    "slight rounding of positions",
    lambda f: series(f, lambda i, d: setattr(d, "ImagePositionPatient", [-10, 20, 30 + STEP * i + 0.004 * (i % 2)])),
)
odd("long decimal strings", lambda f: series(f, raw(-1, 0x00280030, rb"0.7500000000000000000\0.5000000000000000000")))
odd("decimal comma free exponent", lambda f: series(f, raw(-1, 0x00280030, rb"7.5e-1\5E-1")))
odd("series in subfolder", lambda f: series(f / "PA0" / "ST0" / "SE0").parents[2])
odd("negative window, derived", lambda f: series(f, put(ImageType=["DERIVED", "SECONDARY", "MPR"], WindowWidth=-1)))
odd("SOP class of CT with modality MR", lambda f: series(f, kind=uid.CTImageStorage))
odd("secondary capture with geometry", lambda f: series(f, kind=uid.SecondaryCaptureImageStorage))
odd("enhanced CT", lambda f: multiframe(f / "a.dcm", lambda d: setattr(d, "SOPClassUID", uid.EnhancedCTImageStorage)))
odd("overlay plane", lambda f: series(f, lambda i, d: d.add_new(0x60003000, "OW", bytes(10))))


def _odd(name: str, values: np.ndarray | None = None, affine: np.ndarray = AXIAL) -> Callable[[Write], Write]:
    def keep(write: Write) -> Write:
        odd(name, write, values, affine)
        return write

    return keep


@_odd("big endian")
def _(folder: Path) -> Path:
    return series(folder, syntax=uid.ExplicitVRBigEndian, data=voxels().astype(">u2"))


@_odd("float pixels", voxels() / np.float32(3))
def _(folder: Path) -> Path:
    def edit(index: int, item: Dataset) -> None:
        for name in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
            delattr(item, name)
        item.BitsAllocated = 32
        item.FloatPixelData = (voxels()[index] / np.float32(3)).astype("<f4").tobytes()

    return series(folder, edit)


@_odd("deflated")
def _(folder: Path) -> Path:
    return series(folder, syntax=uid.DeflatedExplicitVRLittleEndian)


@_odd("system files beside")
def _(folder: Path) -> Path:
    series(folder)
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini", "README", "._001.dcm", "series.json", "VERSION"):
        (folder / name).write_bytes(b"\0\5\x16\7 something")
    (folder / "LOCKFILE").touch()
    return folder


@_odd("objects beside")
def _(folder: Path) -> Path:
    series(folder)
    other(folder, "sr.dcm", uid.BasicTextSRStorage, "SR")
    other(folder, "pr.dcm", uid.GrayscaleSoftcopyPresentationStateStorage, "PR")
    other(folder, "ko.dcm", uid.KeyObjectSelectionDocumentStorage, "KO")
    other(folder, "rt.dcm", uid.RTStructureSetStorage, "RTSTRUCT")
    other(folder, "pdf.dcm", uid.EncapsulatedPDFStorage, "DOC", EncapsulatedDocument=b"%PDF")
    segmentation(folder / "seg.dcm")
    item = image(voxels(), uid.RTDoseStorage)
    item.Modality, item.NumberOfFrames, item.SeriesInstanceUID = "RTDOSE", SLICES, "1.2.3.97"
    save(item, folder / "dose.dcm")
    return folder


@_odd("DICOMDIR beside")
def _(folder: Path) -> Path:
    series(folder, names="IM{:04d}")
    item = image(np.zeros((2, 2), np.uint8), uid.MediaStorageDirectoryStorage)
    for key in ("Rows", "Columns", "PixelData", "SeriesInstanceUID", "Modality"):
        delattr(item, key)
    item.DirectoryRecordSequence = DicomSequence([])
    save(item, folder / "DICOMDIR")
    return folder


@_odd("split over subfolders")
def _(folder: Path) -> Path:
    series(folder)
    for index in range(SLICES):
        part = _in(folder / f"part{index // 3}")
        (folder / f"{index:03d}.dcm").rename(part / f"{index:03d}.dcm")
    return folder


@_odd("links inside")
def _(folder: Path) -> Path:
    series(folder)
    (folder / "005.dcm").rename(_in(folder / ".store") / "object")
    (folder / "005.dcm").symlink_to(".store/object")
    return folder


@_odd("in folders 100 deep")
def _(folder: Path) -> Path:
    series(folder.joinpath(*["d"] * 100))
    return folder


@_odd("padding after the pixels")
def _(folder: Path) -> Path:
    return series(folder, lambda i, d: d.add_new(0xFFFCFFFC, "OB", bytes(64)))


@_odd("zeros behind the pixels")
def _(folder: Path) -> Path:
    return change(series(folder), 2, lambda content: content + bytes(512))


@_odd("private group and padding behind the pixels")
def _(folder: Path) -> Path:
    def edit(index: int, item: Dataset) -> None:
        item.private_block(0x7FE1, "ACME", create=True).add_new(1, "OB", b"\1\2")
        item.DataSetTrailingPadding = bytes(64)

    return series(folder, edit)


@_odd("concatenation of two enhanced objects")
def _(folder: Path) -> Path:
    for number, part in enumerate((slice(0, 3), slice(3, 6))):

        def edit(item: Dataset, first: int = 3 * number) -> None:
            for index, group in enumerate(item.PerFrameFunctionalGroupsSequence):
                group.PlanePositionSequence[0].ImagePositionPatient = [-10, 20, 30 + STEP * (first + index)]

        multiframe(folder / f"{number}.dcm", edit, data=voxels()[part])
    return folder
