"""Pictures of scans with their heat, and the table of findings below them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly import findings
from medgen.anomaly.detector import AnomalyDetector, ScanResult
from medgen.anomaly.evaluation.measure import HEALTHY, TestScan
from medgen.anomaly.pseudo_healthy import as_seen
from medgen.report.figures.mosaic import LIMITS, comparison, mosaic
from medgen.report.html import Report, png
from medgen.volume import Volume


@dataclass(frozen=True, eq=False)
class Example:
    """A picture of a test scan for the report; the scan and its maps are not held.

    Attributes:
        kind: Of the scan: healthy, or what was implanted.
        picture: A PNG.
        caption: What is seen.
        title: The scan, and what was found in it.
    """

    kind: str
    picture: bytes
    caption: str
    title: str


@dataclass(frozen=True, eq=False)
class Scored:
    """A new scan, its result, and its pseudo-healthy version if a model makes one."""

    name: str
    scan: Volume
    result: ScanResult
    pseudo: Volume | None = None


def example(scan: TestScan, result: ScanResult) -> Example:
    """A test scan on the model grid in its own world, with its heat and the true outline of what was implanted."""
    image = Volume(scan.image.numpy(), scan.prepared.grid)
    healthy = scan.kind == HEALTHY
    truth = None if healthy else image.with_data(scan.truth.astype(np.uint8))
    point = peak_of(result) if healthy or truth is None else _middle(truth)
    what = "healthy" if healthy else f"{scan.kind}, radius {scan.radius_mm:.1f} mm, contrast {scan.contrast:g}"
    title = f"{scan.case}: {what}; p (max) = {result.p_values['max']:.3f}, findings: {len(result.findings)}"
    figure = mosaic(image, heatmap=result.heatmap, contour=truth, slices=point, title=title, rows="axial,coronal")
    through = "the hottest voxel" if healthy else "the implant"
    return Example(scan.kind, png(figure), picture_caption(f"On the model grid; slices through {through}."), title)


def pictures_section(report: Report, examples: Sequence[Example], detector: AnomalyDetector) -> None:
    """Some of the test scans with their heat and the true outline of what was implanted."""
    report.section(
        "Heatmaps",
        "Unselected: the first test scans and the first implant of each kind. Colours start at z = "
        f"{LIMITS[0]:g}; findings need {detector.calibration.threshold:.2f}.",
    )
    for shown in examples:
        report.figure(shown.picture, shown.caption, shown.title)


def comparison_section(report: Report, entry: Scored, detector: AnomalyDetector) -> None:
    """Scan, pseudo-healthy scan, difference and heat side by side, through the hottest voxel."""
    result, difference = entry.result, None
    if entry.pseudo is not None:
        seen = as_seen(result.prepared, detector.preprocess)
        difference = seen.with_data(seen.data - entry.pseudo.data)
    contour = findings.outline(result.heatmap, detector.calibration.threshold)
    figure = comparison(
        entry.scan,
        heatmap=result.heatmap,
        expected=entry.pseudo,
        difference=difference,
        contour=contour if result.findings else None,
        point=peak_of(result),
        # In the scan's own terms: half the range between the percentiles that it was scaled by.
        span=result.prepared.scale[0][1] / 2,
        title=entry.name,
    )
    text = "Three slices through the hottest voxel, in the scan's own space."
    if entry.pseudo is not None:
        text += (
            " Pseudo-healthy: the scan as models that know healthy scans only rebuild it. Difference: the scan, at the"
            " models' resolution, minus that; orange is brighter than rebuilt, blue darker."
        )
    report.figure(figure, picture_caption(text), f"{entry.name}: comparison")


def findings_section(report: Report, result: ScanResult) -> None:
    """The findings of a scan as a table; nothing if there are none."""
    rows = [
        (
            f.id,
            f.region,
            findings.millilitres(f.half_peak_extent_ml),
            findings.millilitres(f.above_threshold_ml),
            f.peak,
            f.p_max,
            f.channels or None,
            f.position,
        )
        for f in result.findings
    ]
    if rows:
        columns = [
            "finding", "region", "extent at half the peak", "part above the threshold", "peak z", "p (max)", "channels",
            "position of the peak",
        ]  # fmt: skip
        report.table(
            columns,
            rows,
            "Extent: where the heat is at least half as far above the scan's background as the peak is; the part above "
            "the threshold is smaller, and neither is a lesion's volume. p (max): share of healthy scans whose hottest "
            "voxel is at least as hot (family-wise). channels: those that at most 1 % of healthy voxels surprise as "
            "much as the peak does, each with its -log10 p. Voxels are counted from 0, in the file's order.",
        )


def picture_caption(text: str) -> str:
    """A caption with what every heatmap needs: sides, how slices count, what the colours mean."""
    return (
        f"{text} Radiological convention: the patient's right is on the left; i, j, k: slice number along that axis of "
        f"the picture's grid, from 0. Heat: z against healthy, fixed scale from {LIMITS[0]:g} to {LIMITS[1]:g}; "
        "transparent: below, or not scored (outside the dotted line)."
    )


def peak_of(result: ScanResult) -> NDArray[np.float64]:
    """World point of the hottest voxel."""
    data = np.nan_to_num(result.heatmap.data[0], nan=-np.inf)
    return result.heatmap.grid.to_world(np.unravel_index(int(data.argmax()), data.shape))


def _middle(mask: Volume) -> NDArray[np.float64]:
    """World point of the mask's voxel that is nearest to its centre of mass."""
    voxels = np.argwhere(mask.data[0] > 0)
    if not len(voxels):
        return mask.grid.center
    return mask.grid.to_world(voxels[np.linalg.norm(voxels - voxels.mean(axis=0), axis=1).argmin()])
