"""What every single score makes of a scan, beside the heatmap: maps on one scale, and values at one place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.detector import ScanResult
from medgen.anomaly.evaluation.measure import TestScan
from medgen.anomaly.scores.catalogue import get
from medgen.metrics.ranking import Ranked
from medgen.report.anomaly.heat.sources import and_words
from medgen.report.anomaly.pictures import Scored, marks_of, peak_of, picture_caption, shown_contrast
from medgen.report.figures.mosaic import LIMITS
from medgen.report.figures.panels import score_maps
from medgen.report.figures.small_png import small_png
from medgen.report.html import Report, fmt
from medgen.volume import Volume


def names_of(result: ScanResult) -> list[str]:
    """The voxel scores that were measured, those of the heatmap first.

    Without the controls that say nothing of a place, such as random numbers, unless the heatmap is made of them.
    """
    measured = result.measured
    beside = (name for name in measured.z if name not in measured.surprise and get(name).local)
    return [*measured.surprise, *beside]


def maps_of(result: ScanResult) -> dict[str, Volume]:
    """Normative z of the scores of :func:`names_of`, on the model grid, NaN where not scored."""
    measured, grid = result.measured, result.prepared.grid
    return {
        name: Volume(np.where(measured.region, measured.z[name], np.float32(np.nan))[None], grid)
        for name in names_of(result)
    }


def values_at(result: ScanResult, point: NDArray[np.float64]) -> dict[str, float]:
    """Normative z of the scores of :func:`names_of` at a world point, in the voxel that it lies in, highest first."""
    measured = result.measured
    place = np.rint(result.prepared.grid.to_voxel(point)).astype(int)
    i, j, k = (int(index) for index in np.clip(place, 0, np.array(measured.region.shape) - 1))
    values = {name: float(measured.z[name][i, j, k]) for name in names_of(result)}
    return dict(sorted(values.items(), key=lambda item: -item[1]))


def values_words(values: dict[str, float]) -> str:
    """How many scores agree that a place is unusual, and what each of them says.

    >>> values_words({"selfsup": 4.1, "descriptors": 3.3, "nll": 1.2})
    'Of 3 scores 2 have a z of 2 or more there: selfsup 4.1, descriptors 3.3, nll 1.2.'
    >>> values_words({"nll": 1.2})
    'The only score, nll, has a z of 1.2 there.'
    """
    if len(values) == 1:
        ((name, value),) = values.items()
        return f"The only score, {name}, has a z of {value:.1f} there."
    agreeing = sum(value >= LIMITS[0] for value in values.values())
    listed = ", ".join(f"{name} {value:.1f}" for name, value in values.items())
    have = "has" if agreeing == 1 else "have"
    return f"Of {len(values)} scores {agreeing or 'none'} {have} a z of {LIMITS[0]:g} or more there: {listed}."


def scores_block(report: Report, entry: Scored) -> None:
    """The maps of the single scores of a new scan at its hottest voxel, each with its value there."""
    result, point = entry.result, peak_of(entry.result)
    values, maps = values_at(result, point), maps_of(result)
    contrast = shown_contrast(result) or 0
    marked = bool(result.findings or result.unlisted)
    picture = score_maps(
        entry.scan,
        {"heat": result.heatmap, **{f"{name}  {values[name]:.1f}": own for name, own in maps.items()}},
        contour=marks_of(result) if marked else None,
        point=point,
        channel=contrast,
        heading=result.contrasts[contrast] if len(result.contrasts) > 1 else "scan",
        title=f"{entry.name}: single scores",
        contour_label="finding" if result.findings else "hot place",
    )
    beside = [name for name in maps if name not in result.measured.surprise]
    rest = (
        f"{and_words(beside)} stand beside the heatmap."
        if beside
        else "These are the scores of the heatmap; of a new scan no others are measured. The report of the run "
        "that made the model compares them with all others."
    )
    text = f"What single scores make of the hottest place. {values_words(values)} {_Z} {rest}"
    report.figure(small_png(picture), picture_caption(text), f"{entry.name}: single scores")


def example_maps(scan: TestScan, result: ScanResult, truth: Volume, point: NDArray[np.float64], title: str) -> bytes:
    """A PNG of an implanted test scan: the heatmap and the map of every score, each with its average precision.

    Args:
        scan: The test scan.
        result: What the detector says of it.
        truth: What was implanted, on any grid of its world.
        point: World point (RAS+ mm) of the slice.
        title: One line above.
    """
    region = result.measured.region
    inside = scan.truth[region]
    fused = f"heat  AP {fmt(average_precision(result.measured.heat[region], inside))}"
    maps = {fused: result.heatmap}
    for name, own in maps_of(result).items():
        mark = " *" if name in result.measured.surprise else ""
        ap = average_precision(result.measured.z[name][region], inside)
        maps[f"{name}{mark}  AP {fmt(ap)}"] = own
    image = Volume(scan.image.numpy(), scan.prepared.grid)
    contrast = shown_contrast(result) or 0
    heading = result.contrasts[contrast] if len(result.contrasts) > 1 else "scan"
    figure = score_maps(image, maps, contour=truth, point=point, channel=contrast, heading=heading, title=title)
    return small_png(figure)


def example_maps_caption() -> str:
    """What the pictures of :func:`example_maps` show."""
    return picture_caption(
        "The same scan: the heatmap, and the map of every single score; those of the heatmap are marked *. "
        f"AP: voxel average precision on this scan. {_Z} Axial slice through the implant."
    )


def average_precision(values: NDArray[np.float32], truth: NDArray[np.bool_]) -> float | None:
    """Voxel average precision on one scan; None where none of the implant is scored."""
    if not truth.any():
        return None
    return float(Ranked.of([values], [truth]).average_precision()[0])


# z of a score is not z of heat: the first is its distance from the healthy mean, the second how rare it is.
_Z = "Each score by its own normative z, before its healthy tail makes heat of it."
