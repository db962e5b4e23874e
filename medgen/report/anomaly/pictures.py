"""Pictures of scans with their heat, and the table of findings below them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.detector import AnomalyDetector, ScanResult
from medgen.anomaly.evaluation.measure import HEALTHY, TestScan
from medgen.anomaly.findings import listing
from medgen.anomaly.findings.listing import Finding
from medgen.anomaly.pseudo_healthy import as_seen
from medgen.report.figures.finding_slices import finding_slices
from medgen.report.figures.mosaic import LIMITS, comparison, mosaic
from medgen.report.html import Report, png
from medgen.volume import Volume

# Findings with a picture; the table lists all.
SHOWN = 10


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

    @property
    def cleaned(self) -> Volume:
        """The scan after the steps of its preparation on its own grid; the scan where there were none."""
        return self.result.prepared.cleaned or self.scan


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


def suspect_picture(case: str, result: ScanResult) -> bytes:
    """A PNG of a development scan that stands out, on the model grid, through its hottest voxel."""
    image = Volume(result.measured.image, result.prepared.grid)
    title = f"{case}: hottest voxel {result.scores['max']:.2f}"
    return png(mosaic(image, heatmap=result.heatmap, slices=peak_of(result), title=title, rows="axial,coronal"))


def pictures_section(report: Report, examples: Sequence[Example], detector: AnomalyDetector) -> None:
    """Some of the test scans with their heat and the true outline of what was implanted."""
    report.section(
        "Heatmaps",
        "Unselected: the first test scans and the first implant of each kind. Colours start at z = "
        f"{LIMITS[0]:g}; findings need {detector.findings_threshold:.2f}, family-wise ones "
        f"more than {detector.calibration.threshold:.2f}.",
    )
    for shown in examples:
        report.figure(shown.picture, shown.caption, shown.title)


def comparison_section(report: Report, entry: Scored, detector: AnomalyDetector) -> None:
    """Scan, pseudo-healthy scan, difference and heat side by side, through the hottest voxel."""
    result, difference = entry.result, None
    if entry.pseudo is not None:
        seen = as_seen(result.prepared, detector.preprocess)
        difference = seen.with_data(seen.data - entry.pseudo.data)
    figure = comparison(
        entry.scan,
        heatmap=result.heatmap,
        expected=entry.pseudo,
        difference=difference,
        contour=marks_of(result) if result.findings or result.unlisted else None,
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


def findings_section(report: Report, entry: Scored) -> None:
    """The findings of a scan as a table, with a small picture of each; of one with doubts, its hot places."""
    found = entry.result.findings
    if entry.result.unlisted:
        _unlisted(report, entry)
    if not found:
        return
    report.table(
        ["finding", "family-wise", "where", "unusual", "expected false", "p (max)", "peak z", "size", "channels",
         "position of the peak"],
        [
            (
                f.id,
                f.family_wise,
                f.region,
                f.unusual,
                f.expected_false,
                f.p_max,
                f.peak,
                f"{listing.millilitres(f.half_peak_extent_ml)}; {listing.millilitres(f.above_threshold_ml)}",
                f.channels or None,
                f.position,
            )
            for f in found
        ],
        "Strongest first. expected false: findings as strong as this that a healthy scan has on average. family-wise: "
        "whether p (max), the share of healthy scans whose hottest voxel is as hot, is at or below the target. "
        "unusual: where its outline leans to, in standard deviations of healthy scans there. size: around the peak, "
        "where the heat is at least half as far above the scan's background; and its outline, which is also above the "
        "threshold. Neither is a lesion's volume. channels: those that at most 1 % of healthy voxels surprise as much "
        "as the peak does, each with its -log10 p. Voxels are counted from 0, in the file's order.",
    )  # fmt: skip
    shown = found[:SHOWN]
    captions = [f"{f.id}  {f.region}; {f.unusual}{'; family-wise' if f.family_wise else ''}" for f in shown]
    rest = f" The first {SHOWN} of {len(found)} findings." if len(found) > SHOWN else ""
    _slices(report, entry, shown, captions, f"each finding, the scan beside its heat.{rest}", "findings")


def _unlisted(report: Report, entry: Scored) -> None:
    """The hot places of a scan of which nothing is claimed: where they are and what they look like, without any p."""
    found, why = entry.result.unlisted, entry.result.doubts.why
    report.table(
        [f"hot place ({why})", "where", "unusual", "peak z", "size", "channels", "position of the peak"],
        [
            (
                f.id,
                f.region,
                f.unusual,
                f.peak,
                f"{listing.millilitres(f.half_peak_extent_ml)}; {listing.millilitres(f.above_threshold_ml)}",
                f.channels or None,
                f.position,
            )
            for f in found
        ],
        "Not findings: hot places without a p-value and without a number of false findings, which hold for scans like "
        "the healthy ones only. unusual, size and channels as of findings.",
    )
    shown = found[:SHOWN]
    captions = [f"{f.id}  {f.region}; {f.unusual}; {why}" for f in shown]
    _slices(report, entry, shown, captions, "each hot place, the scan beside its heat.", "hot places")


def _slices(
    report: Report, entry: Scored, shown: Sequence[Finding], captions: Sequence[str], through: str, what: str
) -> None:
    figure = finding_slices(
        entry.scan,
        heatmap=entry.result.heatmap,
        contour=marks_of(entry.result),
        points=[np.array(f.peak_ras) for f in shown],
        captions=captions,
    )
    report.figure(figure, picture_caption(f"Slices through the peak of {through}"), f"{entry.name}: {what}")


def marks_of(result: ScanResult) -> Volume:
    """What pictures outline: 1 in the parts of findings and of hot places, 2 where a finding is family-wise."""
    marks = [1 + finding.family_wise for finding in result.findings] or [1] * len(result.unlisted)
    value = np.array([0, *marks], dtype=np.uint8)
    return result.regions.with_data(value[result.regions.data])


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
