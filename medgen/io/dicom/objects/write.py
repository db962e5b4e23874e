"""Writing objects below one folder: the wanted ones of a scored series, and a synthetic scan with its labels."""

from __future__ import annotations

from collections.abc import Collection
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from medgen.faults import FaultyDataError, fail
from medgen.io.dicom.objects.scored import ScoredScan
from medgen.io.dicom.objects.source import SourceSeries
from medgen.io.dicom.objects.synthetic import SyntheticScan
from medgen.io.dicom.objects.wanted import PACKAGE
from medgen.io.quiet import quiet
from medgen.system.files import write_bytes

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


def write_objects(folder: Path, series: Path, scored: ScoredScan, kinds: Collection[str]) -> list[Path]:
    """Write objects that refer to a series.

    Args:
        folder: New files go here: ``seg.dcm``, ``pmap.dcm``, ``sc/0001.dcm`` and on, ``sr.dcm``.
        series: What the scan was read from: a folder with one series, or a file of it.
        scored: The scan, with what was found.
        kinds: Of :data:`medgen.io.dicom.objects.wanted.KINDS`; ``sr`` refers to segments, so that the segmentation is
            written with it.

    Returns:
        The files.

    Raises:
        FaultyDataError: If the series lacks what objects need of it, or cannot be read.
        DataError: If a file cannot be written.
    """
    with quiet():
        source = SourceSeries.read(series, scored.scan.grid)
        try:
            items = _made(source, scored, kinds)
        except FaultyDataError:
            raise
        except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
            # What it says may quote the header, and with it the patient.
            found = f"a header that {PACKAGE} cannot refer to ({type(error).__name__})"
            raise fail(series, found, "a series as the scanner wrote it", "export the original series") from error
        return [_write(item, folder / name) for name, item in items]


def write_synthetic(folder: Path, scan: SyntheticScan, called: str = "image") -> list[Path]:
    """Write the series of a scan and the segmentation of its labels.

    Args:
        folder: New files go here: ``image/0001.dcm`` and on (``image-2`` and on for further channels), ``seg.dcm``.
        scan: The scan.
        called: Another name for the folder of its slices.

    Returns:
        The files.

    Raises:
        DataError: If a file cannot be written.
    """
    from medgen.io.dicom.objects.label_segments import label_segments
    from medgen.io.dicom.objects.synthetic_series import synthetic_series

    written: list[Path] = []
    with quiet():
        every = synthetic_series(scan)
        for number, series in enumerate(every, start=1):
            name = called if number == 1 else f"{called}-{number}"
            written += [_write(item, folder / name / f"{at:04d}.dcm") for at, item in enumerate(series, start=1)]
        written.append(_write(label_segments(scan, every[0]), folder / "seg.dcm"))
    return written


def _made(source: SourceSeries, scored: ScoredScan, kinds: Collection[str]) -> list[tuple[str, Dataset]]:
    from medgen.io.dicom.objects.parametric_map import parametric_map
    from medgen.io.dicom.objects.secondary_capture import secondary_captures
    from medgen.io.dicom.objects.segmentation import segmentation
    from medgen.io.dicom.objects.structured_report import structured_report

    items: list[tuple[str, Dataset]] = []
    if {"seg", "sr"} & set(kinds):
        items.append(("seg.dcm", segmentation(source, scored)))
    if "pmap" in kinds:
        items.append(("pmap.dcm", parametric_map(source, scored)))
    if "sc" in kinds:
        captures = secondary_captures(source, scored)
        items += [(f"sc/{number:04d}.dcm", item) for number, item in enumerate(captures, start=1)]
    if "sr" in kinds:
        items.append(("sr.dcm", structured_report(source, scored, items[0][1])))
    return items


def _write(item: Dataset, path: Path) -> Path:
    buffer = BytesIO()
    item.save_as(buffer, enforce_file_format=True)
    write_bytes(path, buffer.getvalue())
    return path
