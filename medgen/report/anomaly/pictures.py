"""Pictures of scans with their heat, and the table of findings below them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from medgen.anomaly.detector import AnomalyDetector, ScanResult
from medgen.anomaly.findings import listing
from medgen.anomaly.findings.listing import Finding
from medgen.anomaly.pseudo_healthy import as_seen
from medgen.report.figures.finding_slices import finding_slices
from medgen.report.figures.mosaic import LIMITS, comparison, mosaic
from medgen.report.figures.panels import MOST, contrast_slices
from medgen.report.figures.small_png import small_png
from medgen.report.html import Report
from medgen.volume import Volume

# Findings with a picture; the table lists all.
SHOWN = 10


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


def suspect_picture(case: str, result: ScanResult) -> bytes:
    """A PNG of a development scan that stands out, on the model grid, through its hottest voxel."""
    image = Volume(result.measured.image, result.prepared.grid)
    title = f"{case}: hottest voxel {result.scores['max']:.2f}"
    return small_png(slices_of(image, result, peak_of(result), title))


def slices_of(
    image: Volume,
    result: ScanResult,
    point: NDArray[np.float64],
    title: str,
    contour: Volume | None = None,
    contour_label: str = "truth",
) -> Figure:
    """Axial and coronal slices of a scan with its heat through a point: of several contrasts, each beside the others.

    Args:
        image: The scan, on its own or on the model grid.
        result: Its heat, and what its contrasts are called.
        point: World point (RAS+ mm).
        title: One line above.
        contour: What is outlined.
        contour_label: Text of the outline in the legend.
    """
    heat = result.heatmap
    if len(image.data) > 1:
        names = result.contrasts
        return contrast_slices(
            image, names, heatmap=heat, contour=contour, point=point, title=title, contour_label=contour_label
        )
    return mosaic(
        image,
        heatmap=heat,
        contour=contour,
        slices=point,
        title=title,
        rows="axial,coronal",
        contour_label=contour_label,
    )


def contrasts_figure(report: Report, entry: Scored) -> None:
    """Every contrast of a scan through the hottest voxel, as it is and with the heat."""
    result, names = entry.result, entry.result.contrasts
    marked = bool(result.findings or result.unlisted)
    label = "finding" if result.findings else "hot place"
    contour = marks_of(result) if marked else None
    figure = slices_of(entry.scan, result, peak_of(result), f"{entry.name}: contrasts", contour, label)
    which = f"The first {MOST} of {len(names)} contrasts" if len(names) > MOST else "Every contrast"
    text = f"{which} through the hottest voxel, above without and below with the heat."
    report.figure(small_png(figure), picture_caption(text), f"{entry.name}: contrasts")


def shown_contrast(result: ScanResult) -> int | None:
    """The contrast in which the hottest place of a scan is most unusual, from 0; None where that is not known.

    It is known where the place is a finding, or would be one, and clearly differs from healthy scans in a contrast.
    """
    places = [*result.findings, *result.unlisted]
    if len(result.contrasts) == 1:
        return 0
    return places[0].contrast if places else None


def comparison_section(report: Report, entry: Scored, detector: AnomalyDetector) -> None:
    """Scan, pseudo-healthy scan, difference and heat side by side, through the hottest voxel."""
    result, difference = entry.result, None
    contrast = shown_contrast(result) or 0
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
        span=result.prepared.scale[contrast][1] / 2,
        title=entry.name,
        channel=contrast,
        scan_label=result.contrasts[contrast] if len(result.contrasts) > 1 else "scan",
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
        ["finding", "family-wise", "where", "unusual", "expected false", "p (max)", "peak z", "size", "scores",
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
        "threshold. Neither is a lesion's volume. scores: those of the heatmap that at most 1 % of healthy voxels "
        "surprise as much as the peak does, each with its -log10 p. mm are as viewers of the scan show "
        "them; voxels count from 0, in the file's order.",
    )  # fmt: skip
    shown = found[:SHOWN]
    captions = [f"{f.id}  {f.region}; {f.unusual}{'; family-wise' if f.family_wise else ''}" for f in shown]
    rest = f" The first {SHOWN} of {len(found)} findings." if len(found) > SHOWN else ""
    _slices(report, entry, shown, captions, f"each finding, the scan beside its heat.{rest}", "findings")


def _unlisted(report: Report, entry: Scored) -> None:
    """The hot places of a scan of which nothing is claimed: where they are and what they look like, without any p."""
    found, why = entry.result.unlisted, entry.result.doubts.why
    report.table(
        [f"hot place ({why})", "where", "unusual", "peak z", "size", "scores", "position of the peak"],
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
        "the healthy ones only. unusual, size and scores as of findings.",
    )
    shown = found[:SHOWN]
    captions = [f"{f.id}  {f.region}; {f.unusual}; {why}" for f in shown]
    _slices(report, entry, shown, captions, "each hot place, the scan beside its heat.", "hot places")


def _slices(
    report: Report, entry: Scored, shown: Sequence[Finding], captions: Sequence[str], through: str, what: str
) -> None:
    several = len(entry.result.contrasts) > 1
    which = (
        " Of the contrasts, that in which the place is most unusual; all where it clearly is in none."
        if several
        else ""
    )
    figure = finding_slices(
        entry.scan,
        heatmap=entry.result.heatmap,
        contour=marks_of(entry.result),
        points=[np.array(f.peak_ras) for f in shown],
        captions=captions,
        contrasts=[f.contrast for f in shown],
        names=entry.result.contrasts,
    )
    report.figure(
        small_png(figure), picture_caption(f"Slices through the peak of {through}{which}"), f"{entry.name}: {what}"
    )


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
