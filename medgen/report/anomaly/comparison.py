"""Heatmaps of several methods against the truth: report, table and lines for the console."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medgen.anomaly.comparison.methods import RATES, Comparison
from medgen.metrics.interval import Interval
from medgen.report.figures.curves import interval_plot
from medgen.report.html import Report, fmt

LIMITS = """
- Every method is judged on the same voxels: those that any of them scores, and all voxels of the truth. A voxel without
a value (NaN) ranks below all others: an anomaly that is not scored is missed.
- The best Dice uses the threshold that is best on these scans: an upper limit.
- Lesions are found by clusters of the hottest 1 % of each scan's scored voxels, ranked by their hottest voxel.
- Intervals resample subjects. They say nothing about scans of another scanner, protocol or population.
- Research use only: no part of this is meant for a decision about a patient.
"""


def _columns(result: Comparison) -> list[tuple[str, dict[str, Interval]]]:
    """Method → every metric by name."""
    table = []
    for row in result.methods:
        own = {**row.voxel, "AP per scan": row.ap_per_scan, "FROC": row.froc}
        own |= {f"sensitivity at {rate} FP per scan": value for rate, value in row.sensitivity.items()}
        own |= {f"scan {what} ({key})": value for key, values in row.scan.items() for what, value in values.items()}
        own |= {f"AP, {by} {name}": value for by, parts in row.groups.items() for name, value in parts.items()}
        table.append((row.name, {**own, "coverage": row.coverage}))
    return table


def comparison_rows(result: Comparison) -> list[dict[str, Any]]:
    """One line per method and metric, then per pair and metric."""
    entries = [(name, metric, value) for name, own in _columns(result) for metric, value in own.items()]
    first = result.methods[0].name
    for pair in result.paired:
        for sign, values in {"-": pair.difference, "/": pair.ratio}.items():
            entries += [(f"{first} {sign} {pair.other}", metric, value) for metric, value in values.items()]
    rows = [
        {"method": name, "metric": metric, "estimate": v.estimate, "low": v.low, "high": v.high, "n": v.n}
        for name, metric, v in entries
    ]
    rows += [
        {"method": f"{first} - {pair.other}", "metric": key, "estimate": value, "n": result.subjects}
        for pair in result.paired
        for key, value in {"p (AP per scan)": pair.p, "p after Holm (AP per scan)": pair.p_holm}.items()
    ]
    return [{"method": first, "metric": "prevalence", "estimate": result.prevalence, "n": result.subjects}, *rows]


def _head(result: Comparison) -> str:
    return (
        f"{result.scans} scans with an anomaly, {result.healthy} without, {result.subjects} subjects; prevalence "
        f"{fmt(result.prevalence)} (chance level of AP)"
        + (f"; chance level of scan AP {fmt(result.chance_scan)}" if result.healthy else "")
    )


def comparison_lines(result: Comparison) -> list[str]:
    """The results as text, for the terminal: one line per metric, one column per method."""
    table = dict(_columns(result))
    cells = [["metric", *table]]
    cells += [[metric, *(fmt(own[metric]) for own in table.values())] for metric in next(iter(table.values()))]
    lines = [_head(result), *_aligned(cells)]
    for pair in result.paired:
        cells = [[f"{result.methods[0].name} against {pair.other}", "difference", "ratio"]]
        cells += [[key, fmt(value), fmt(pair.ratio[key])] for key, value in pair.difference.items()]
        lines += [*_aligned(cells), f"AP per scan: p = {fmt(pair.p)}, after Holm {fmt(pair.p_holm)} (sign flips)"]
    return lines


def _aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[k]) for row in cells) for k in range(len(cells[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def comparison_report(predictions: Path, truth: Path, seed: int, result: Comparison, notes: Sequence[str]) -> Report:
    """The report of methods that were compared on the same scans.

    Args:
        predictions: Folder of the first method's heatmaps.
        truth: Folder of the masks.
        seed: Seed of the resampling.
        result: The comparison.
        notes: What the reader has to know of the scans, in Markdown.
    """
    report = Report("Heatmaps against truth", _head(result))
    report.facts({"heatmaps": predictions, "truth": truth, "seed": seed})
    for note in notes:
        report.text(note)
    methods = result.methods
    report.section(
        "Voxels",
        "Pooled over all scans with an anomaly. Brackets: 95 %, resampling subjects. Chance level of AP: "
        f"{fmt(result.prevalence)}"
        + (f", with healthy scans {fmt(result.prevalence_all)}." if result.healthy else "."),
    )
    columns = ["method", *methods[0].voxel, "AP per scan", "coverage"]
    report.table(columns, [(row.name, *row.voxel.values(), row.ap_per_scan, row.coverage) for row in methods])
    report.figure(
        interval_plot(
            [row.name for row in methods], [row.voxel["AP"] for row in methods], "voxel AP", reference=result.prevalence
        ),
        "Average precision with 95 % intervals; the line is chance.",
    )
    report.section("Lesions", "Share of the lesions found at so many false positives per scan (FROC), and their mean.")
    columns = ["method", *(f"{rate:g} per scan" for rate in RATES), "mean"]
    report.table(columns, [(row.name, *row.sensitivity.values(), row.froc) for row in methods])
    if methods[0].scan:
        report.section("Scans", f"{result.scans} scans with an anomaly against {result.healthy} without.")
        scans = [(row.name, key, own["AUROC"], own["AP"]) for row in methods for key, own in row.scan.items()]
        report.table(
            ["method", "score", "AUROC", "AP"],
            scans,
            "max: hottest voxel; top: mean of the hottest 0.1 %. Chance: AUROC 0.5, AP "
            f"{fmt(result.chance_scan)} (the share of scans with an anomaly).",
        )
    if result.group_sizes:
        report.section("What is found")
    for by, sizes in result.group_sizes.items():
        rows = [(name, size, *(row.groups[by][name] for row in methods)) for name, size in sizes.items()]
        report.table([by, "scans", *(row.name for row in methods)], rows, f"Voxel AP by {by}.")
    for pair in result.paired:
        report.section(f"Against {pair.other}", "Differences and ratios; every resample draws the same subjects.")
        report.table(
            ["metric", "difference", "ratio"],
            [(key, value, pair.ratio[key]) for key, value in pair.difference.items()],
            f"{methods[0].name} minus, and over, {pair.other}. Sign-flip test of the AP per scan over subjects: "
            f"p = {fmt(pair.p)}; adjusted for the number of comparisons (Holm): {fmt(pair.p_holm)}.",
        )
    report.section("Limits", LIMITS)
    return report
