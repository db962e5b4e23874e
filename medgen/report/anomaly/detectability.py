"""Sections of the anomaly report that have a file of their own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from medgen.anomaly.evaluation.detectability import FOUND, Detectability
from medgen.anomaly.evaluation.hits import RULE
from medgen.anomaly.findings.region_names import SURFACE_MM
from medgen.report.figures.heattable import heat_tables
from medgen.report.html import Report
from medgen.system.files import write_csv

DETECTABILITY_COLUMNS = (
    "region", "kind", "contrast", "radius_mm", "subjects", "detected", "share", "low", "high",
)  # fmt: skip


def write_detectability(path: Path, result: Detectability) -> None:
    """Write ``detectability.csv``: one line per cell; share, low and high are empty where the implant fits nowhere."""
    rows: list[dict[str, Any]] = []
    for cell in result.cells:
        row = {key: getattr(cell, key) for key in DETECTABILITY_COLUMNS[:6]}
        if cell.share is not None:
            row |= {"share": cell.share.estimate, "low": cell.share.low, "high": cell.share.high}
        rows.append(row)
    write_csv(path, rows, DETECTABILITY_COLUMNS)


def detectability_section(report: Report, result: Detectability | None) -> None:
    """Minimum detectable lesion: smallest radii, picture and table; nothing if it was not measured."""
    if result is None:
        return
    report.section(
        "Minimum detectable lesion",
        "Dark and bright implants in held-out healthy scans, placed by region. Detected: a finding is on the implant. "
        f"{RULE} Each subject counts once in a cell, with exact two-sided 95 % intervals: few "
        f"subjects say little. Near the surface: within {SURFACE_MM:g} mm of it; left and right as the patient's.",
        layer="appendix",
    )
    report.table(
        ["region", "contrast (sd)", f"smallest radius detected in {100 * FOUND:g} % of the subjects tried"],
        [(item.region, f"{item.contrast:+g}", item.words) for item in result.smallest],
        "The smallest radius that, like every larger one that fits, is detected in so many of the subjects tried.",
    )
    regions = _distinct(cell.region for cell in result.cells)
    radii, contrasts = (
        sorted({cell.radius_mm for cell in result.cells}),
        sorted({cell.contrast for cell in result.cells}),
    )
    shares = {(cell.region, cell.radius_mm, cell.contrast): cell for cell in result.cells}
    panels = {
        region: [[_entry(shares.get((region, radius, contrast))) for contrast in contrasts] for radius in radii]
        for region in regions
    }
    report.figure(
        heat_tables(
            panels, [f"{radius:g}" for radius in radii], [f"{value:+g}" for value in contrasts], "contrast (sd)",
            "radius (mm)",
        ),
        "Detected implants and subjects tried; darker: a larger share. Blank: no implant of the size fits.",
        "Share of implants detected by region, radius and contrast",
    )  # fmt: skip
    report.table(
        ["region", "kind", "contrast (sd)", "radius (mm)", "subjects", "detected", "share"],
        [(c.region, c.kind, f"{c.contrast:+g}", c.radius_mm, c.subjects, c.detected, c.share) for c in result.cells],
    )


def _entry(cell: Any) -> tuple[float, str]:
    if cell is None or cell.share is None:
        return float("nan"), ""
    return cell.share.estimate, f"{cell.detected}/{cell.subjects}"


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
