"""Pictures of test scans: the heat, the true outline of what was implanted, and what single scores make of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medgen.anomaly.detector import AnomalyDetector, ScanResult
from medgen.anomaly.evaluation.measure import HEALTHY, Measurement, TestScan
from medgen.implants.implanted_scans import ImplantConfig
from medgen.report.anomaly.heat.single_scores import example_maps, example_maps_caption
from medgen.report.anomaly.pictures import peak_of, picture_caption, slices_of
from medgen.report.figures.mosaic import LIMITS
from medgen.report.figures.planes import middle_point
from medgen.report.figures.small_png import small_png
from medgen.report.figures.thumbnail import thumbnail
from medgen.report.html import Link, Report, Thumbnail
from medgen.report.viewer.page import Place
from medgen.volume import Volume

# Implanted scans of which the maps of single scores are shown: each is a picture of twenty maps.
_WITH_MAPS = 4
# Healthy scans that are shown.
_HEALTHY_SHOWN = 2


@dataclass(frozen=True, eq=False)
class CaseRow:
    """What the table of cases says of a test scan.

    Attributes:
        measurement: What was found in it.
        hottest: Heat (z) of its hottest voxel.
        thumbnail: A PNG of the slice through it, or through the middle of the implant, which is outlined.
        page: Path of the page to look through it, relative to the report; empty if there is none.
    """

    measurement: Measurement
    hottest: float
    thumbnail: bytes
    page: str = ""

    @classmethod
    def of(cls, scan: TestScan, result: ScanResult, measurement: Measurement, page: str = "") -> CaseRow:
        """What is kept of a scan."""
        image, truth = _image_and_truth(scan)
        point = peak_of(result) if truth is None else middle_point(truth.data[0] > 0, truth.grid)
        small = thumbnail(image, result.heatmap, point, outline=truth)
        return cls(measurement, result.scores["max"], small, page)


def cases_section(report: Report, rows: Sequence[CaseRow], level: float) -> None:
    """Every test scan in a line: what is in it, whether it was found, and what else was listed.

    Args:
        report: The report.
        rows: One for each test scan.
        level: Expected false findings per healthy scan of the run.
    """
    report.section(
        "Test scans",
        f"Each held-out scan as it is, and its copies with implants; findings up to {level:g} expected false ones per "
        "healthy scan. Click a heading to sort, or type a word such as lesion or missed.",
        layer="cases",
    )
    report.table(
        ["slice", "scan", "what", "radius (mm)", "contrast", "outcome", "elsewhere", "max", "p (max)"],
        [
            (
                Thumbnail(row.thumbnail, _slice_words(row.measurement)),
                Link(row.measurement.case, row.page) if row.page else row.measurement.case,
                row.measurement.kind,
                None if row.measurement.kind == HEALTHY else row.measurement.radius_mm,
                None if row.measurement.kind == HEALTHY else row.measurement.contrast,
                outcome(row.measurement, level),
                row.measurement.false_findings(level),
                row.hottest,
                row.measurement.p_values.get("max"),
            )
            for row in rows
        ],
        "The slice goes through the middle of the implant, which is outlined, of a healthy scan through its hottest "
        "voxel. elsewhere: findings that are not on the implant, all of a healthy scan's."
        + (" Linked scans open in a page to look through them." if any(row.page for row in rows) else ""),
        sortable=True,
    )


def outcome(measurement: Measurement, level: float) -> str:
    """What became of a test scan in a word or two: found, missed, or of a healthy scan clear or false findings."""
    if measurement.kind == HEALTHY:
        return "false finding" if measurement.false_findings(level) else "clear"
    if not measurement.is_found(level):
        return "missed"
    return "found, family-wise" if measurement.is_found_family_wise else "found"


@dataclass(frozen=True, eq=False)
class Example:
    """A picture of a test scan for the report; the scan and its maps are not held.

    Attributes:
        kind: Of the scan: healthy, or what was implanted.
        picture: A PNG.
        caption: What is seen.
        title: The scan, and what was found in it.
        maps: A PNG of the single scores' maps; empty if they are not shown.
    """

    kind: str
    picture: bytes
    caption: str
    title: str
    maps: bytes = b""


def shown_at_most(config: ImplantConfig) -> int:
    """How many scans the report shows where there are enough of every kind; see :func:`is_shown`."""
    return _HEALTHY_SHOWN + len(config.kinds)


def is_shown(scan: TestScan, examples: Sequence[Example]) -> bool:
    """Whether the report shows a scan: two healthy ones and the first of each kind of implant, unselected."""
    return sum(example.kind == scan.kind for example in examples) < (_HEALTHY_SHOWN if scan.kind == HEALTHY else 1)


def example(scan: TestScan, result: ScanResult, before: Sequence[Example] = ()) -> Example:
    """A test scan on the model grid in its own world, with its heat and the true outline of what was implanted.

    Args:
        scan: The scan.
        result: What the detector says of it.
        before: The examples so far: of the first implanted ones the maps of single scores are drawn.
    """
    image, truth = _image_and_truth(scan)
    healthy = scan.kind == HEALTHY
    point = peak_of(result) if truth is None else middle_point(truth.data[0] > 0, truth.grid)
    what = "healthy" if healthy else f"{scan.kind}, radius {scan.radius_mm:.1f} mm, contrast {scan.contrast:g}"
    title = f"{scan.case}: {what}; p (max) = {result.p_values['max']:.3f}, findings: {len(result.findings)}"
    through = "the hottest voxel" if healthy else "the implant"
    picture = small_png(slices_of(image, result, point, title, truth))
    maps = b""
    if truth is not None and sum(bool(own.maps) for own in before) < _WITH_MAPS:
        maps = example_maps(scan, result, truth, point, f"{scan.case}: {what}; single scores")
    caption = picture_caption(f"On the model grid; slices through {through}.")
    return Example(scan.kind, picture, caption, title, maps)


def pictures_section(report: Report, examples: Sequence[Example], detector: AnomalyDetector) -> None:
    """Some of the test scans with their heat and the true outline of what was implanted."""
    report.section(
        "Heatmaps",
        "Unselected: the first test scans and the first implant of each kind. Colours start at z = "
        f"{LIMITS[0]:g}; findings need {detector.findings_threshold:.2f}, family-wise ones "
        f"more than {detector.calibration.threshold:.2f}. Below the first {_WITH_MAPS} implants stand the maps of all "
        "single scores.",
        layer="cases",
    )
    for shown in examples:
        report.figure(shown.picture, shown.caption, shown.title)
        if shown.maps:
            report.figure(shown.maps, example_maps_caption(), f"{shown.title}: single scores")


def implant_place(scan: TestScan) -> Place | None:
    """Where the implant of a scan is, for a viewer's list; None of a healthy scan."""
    _, truth = _image_and_truth(scan)
    if truth is None:
        return None
    x, y, z = (float(value) for value in middle_point(truth.data[0] > 0, truth.grid))
    return Place("Implant", f"{scan.kind}, radius {scan.radius_mm:.1f} mm, contrast {scan.contrast:g}", (x, y, z))


def _image_and_truth(scan: TestScan) -> tuple[Volume, Volume | None]:
    """A test scan and the mask of its implant, on the model grid; no mask of a healthy scan."""
    image = Volume(scan.image.numpy(), scan.prepared.grid)
    return image, None if scan.kind == HEALTHY else image.with_data(scan.truth.astype(np.uint8))


def _slice_words(measurement: Measurement) -> str:
    through = "its hottest voxel" if measurement.kind == HEALTHY else "its implant"
    return f"Slice of {measurement.case} through {through}"
