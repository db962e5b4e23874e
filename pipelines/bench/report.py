"""The text, numbers and pictures of a benchmark of anomaly detection."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from medgen.anomaly.comparison.findings_over_seeds import COMPARED, FindingRow
from medgen.anomaly.comparison.scans_over_seeds import ScanLevel
from medgen.anomaly.comparison.voxels_over_seeds import SIZES, Cell, LeftOut, PooledRow
from medgen.anomaly.evaluation.hits import RULE
from medgen.anomaly.evaluation.measure import FUSED
from medgen.anomaly.evaluation.sensitivity import Sensitivity
from medgen.metrics.interval import Interval
from medgen.report.figures.curves import interval_plot
from medgen.report.figures.dots import dot_panels
from medgen.report.html import png
from medgen.system.files import write_bytes, write_json, write_text

from .speed.scan_cost import Speed

_ALL = "all"


@dataclass(frozen=True)
class CohortResult:
    """All numbers of one cohort, pooled over its seeds.

    Attributes:
        name: Name of the cohort.
        grid: Voxels of the model grid.
        subjects, healthy, implanted: Distinct test subjects; scans of all seeds.
        prevalence: Chance level of AP.
        rows: The voxel table.
        compared: Fused row, best raw baseline, best baseline as normative z.
        cells, size_limits_mm: By kind, contrast and size, and where the tertiles of the radius lie.
        findings, calibrated: The table of findings; what the runs' own calibrated thresholds find.
        scan_score, target: Score of whole scans and target false-positive rate, as configured.
        scans, any_hot: Scan level; healthy subjects with any voxel above the threshold.
        controls, left_out: See :mod:`medgen.anomaly.comparison.voxels_over_seeds`.
    """

    name: str
    grid: tuple[int, ...]
    subjects: int
    healthy: int
    implanted: int
    prevalence: float
    rows: Sequence[PooledRow]
    compared: tuple[str, ...]
    cells: Sequence[Cell]
    size_limits_mm: tuple[float, float]
    findings: Sequence[FindingRow]
    calibrated: Sensitivity
    scan_score: str
    target: float
    scans: Sequence[ScanLevel]
    any_hot: Interval
    controls: Mapping[str, Interval]
    left_out: Sequence[LeftOut]


@dataclass(frozen=True)
class Bench:
    """A finished benchmark.

    Attributes:
        cohorts: Results.
        seeds: Seeds of the runs.
        command: What repeats it.
        quick: Whether the numbers mean nothing.
        notes: What was left out, in sentences.
        peer_words: Cohort, seed and peer → how it was fitted.
        speed: Cost of scoring one scan of the first run; None where it could not be measured.
    """

    cohorts: Sequence[CohortResult]
    seeds: tuple[int, ...]
    command: str
    quick: bool
    notes: Sequence[str]
    peer_words: Mapping[str, str]
    speed: Speed | None


def write(out: Path, bench: Bench) -> list[Path]:
    """Write ``anomaly.md``, ``anomaly.json`` and two PNG pictures per cohort; returns their paths."""
    pictures = {}
    for result in bench.cohorts:
        for name, figure in (("rows", _rows_picture(result)), ("kinds", _kinds_picture(result))):
            pictures[out / f"anomaly-{result.name}-{name}.png"] = png(figure)
    for path, data in pictures.items():
        write_bytes(path, data)
    write_text(out / "anomaly.md", markdown(bench))
    write_json(out / "anomaly.json", bench)
    return [out / "anomaly.md", out / "anomaly.json", *pictures]


def headlines(bench: Bench) -> list[str]:
    """Two lines per cohort: the fused map against the best baselines, by voxels and by findings."""
    lines = []
    for result in bench.cohorts:
        by_name = {row.name: row for row in result.rows}
        versus = ", ".join(f"{name} {_ci(by_name[name].ap)}" for name in result.compared[1:])
        lines.append(
            f"{result.name}: voxel AP fused {_ci(by_name[FUSED].ap)}, {versus}, chance {result.prevalence:.4f}"
        )
        level = COMPARED[0]
        found = {row.name: _ci(row.sensitivity[level], 3) for row in result.findings}
        versus = ", ".join(f"{name} {found[name]}" for name in result.compared)
        lines.append(f"{result.name}: implants found at {level:g} false findings per healthy scan: {versus}")
    return lines


def markdown(bench: Bench) -> str:
    """The whole text."""
    seeds = ", ".join(map(str, bench.seeds))
    parts = [
        "# Anomaly pipeline: benchmark",
        *(["**Made with `--quick`: a test of the command. These numbers mean nothing.**"] if bench.quick else []),
        f"```\n{bench.command}\n```",
        f"Seeds {seeds}, with the shipped configurations. Each seed is another split into development and test "
        "subjects, another training and other implants. Healthy scans of held-out test subjects against copies with "
        "one implant each. Brackets are 95 % intervals from resampling subjects; a subject tested under several seeds "
        "is one unit (the seeds themselves are not resampled). *raw*: the score as published; *z*: with the "
        "pipeline's normative z; all rows are smoothed alike. Voxels of all seeds share one ranking; *AP per seed* is "
        "the mean of the seeds' own. Difference and ratio are those of fused to the row, paired over subjects. p: "
        "sign-flip test on the subjects' AP differences, two-sided, adjusted for all baselines and peers (Holm).",
        *([_list(bench.notes)] if bench.notes else []),
    ]
    for result in bench.cohorts:
        parts += _cohort(result)
    if bench.peer_words:
        words = [f"{name}: {text}" for name, text in bench.peer_words.items()]
        parts += ["## How peers were fitted", _list(words)]
    if bench.speed is not None:
        parts += _speed(bench.speed)
    return "\n\n".join(parts) + "\n"


def _cohort(result: CohortResult) -> list[str]:
    grid = " x ".join(map(str, result.grid))
    low, high = result.size_limits_mm
    single = [cell for cell in result.cells if (cell.kind, cell.contrast, cell.size).count(_ALL) >= 2]
    crossed = [cell for cell in result.cells if cell not in single]
    parts = [
        f"## {result.name}",
        f"{result.subjects} test subjects, {result.healthy} healthy scans and {result.implanted} implanted copies over "
        f"all seeds, grid {grid}, prevalence (chance level of AP) {result.prevalence:.4f}.",
        "### Finding the voxels",
        _voxel_table(result.rows),
        f"![Voxel AP of every row](anomaly-{result.name}-rows.png)",
        "### Finding the lesions",
        "Share of the implants with a finding on them, by how many findings a held-out healthy scan has (subjects "
        f"averaged). {RULE} Each row's map is brought to one scale, the normal quantile of a voxel's rank among the "
        "voxels of the held-out healthy scans of its seed; its threshold is the lowest at which these scans have at "
        "most so many findings, redone in every resample. That threshold is known to a test only, and the same for "
        "all rows: the table compares maps.",
        _finding_table(result.findings),
        "*As calibrated*: what the runs list at so many expected false findings per healthy scan, in each scan's own "
        "space, by thresholds that have not seen the test scans. *untouched*: the same places in the scans without "
        f"implants. The runs list findings up to {result.calibrated.level:g}. Intervals of false findings are for "
        "counts that vary more than Poisson counts.",
        _calibrated_table(result.calibrated),
        "### By kind, contrast and size",
        f"Size by tertiles of the implants' radius: small up to {low:.1f} mm, large from {high:.1f} mm. Scan AUROC: "
        f"implanted scans against all healthy ones by `{result.scan_score}`. Chance is the prevalence.",
        _cell_table(single, result.compared, intervals=True),
        f"![AP by kind, contrast and size](anomaly-{result.name}-kinds.png)",
        "All combinations. Few scans each, so no intervals: they are in `anomaly.json`.",
        _cell_table(crossed, result.compared, intervals=False),
        "### Finding the scans",
        _scan_table(result.scans, result.target),
        "### Target against realised false-positive rate",
        "Share of healthy test subjects with p at or below the target; exact binomial intervals, a subject counted "
        f"once (with the share of seeds that flag it). Any voxel above the threshold for {100 * result.target:g} %: "
        f"{_ci(result.any_hot)}.",
        _rate_table(result.scans),
        "### Controls",
        "AP of the fused map over prevalence; chance is 1. *zero amplitude*: the untouched scan against the place "
        "where its copy has the implant. *permuted masks*: an implanted scan against another subject's implant.",
        _table(["control", "AP / prevalence"], [(name, _ci(value)) for name, value in result.controls.items()]),
    ]
    if result.left_out:
        parts += [
            "### Self-supervised score without the corruptions that are like the implant",
            "`selfsup` refitted on all development scans, raw, on the implants of each group. *learned*: all "
            "corruptions; *left out*: without the group's.",
            _table(
                ["corruptions left out", "implants", "scans", "AP learned", "AP left out", "AP zscore",
                 "learned - left out", "left out - zscore"],
                [
                    (", ".join(row.group), ", ".join(row.kinds), row.scans, *(_ci(value) for value in (
                        row.ap_with, row.ap_without, row.ap_zscore, row.loss, row.gain)))
                    for row in result.left_out
                ],
            ),
        ]  # fmt: skip
    return parts


def _voxel_table(rows: Sequence[PooledRow]) -> str:
    return _table(
        ["score", "form", "", "voxel AP", "AP per seed", "AUROC", "fused - row", "fused / row", "p (Holm)"],
        [
            (
                row.name.partition(" (")[0],
                row.form,
                row.role,
                _ci(row.ap),
                _number(row.ap_per_seed),
                _ci(row.auroc, 3),
                _ci(row.difference),
                _ci(row.ratio, 2),
                "" if row.p_holm is None else f"{row.p_holm:.2g}",
            )
            for row in rows
        ],
    )


def _finding_table(rows: Sequence[FindingRow]) -> str:
    levels = list(rows[0].sensitivity)
    return _table(
        ["score", "form", "", *(f"at {level:g}" for level in levels), *(f"fused - row at {at:g}" for at in COMPARED)],
        [
            (
                row.name.partition(" (")[0],
                row.form,
                row.role,
                *(_ci(row.sensitivity[level], 3) for level in levels),
                *(_ci(row.difference.get(level), 3) for level in COMPARED),
            )
            for row in rows
        ],
    )


def _calibrated_table(found: Sensitivity) -> str:
    return _table(
        ["expected false findings", "implants found", "share", "untouched", "measured in held-out healthy scans",
         "healthy subjects with a finding"],
        [
            (
                f"{share.level:g}",
                f"{share.found} of {found.everything.scans}",
                _ci(share.share, 3),
                share.untouched,
                _ci(false.measured, 2),
                f"{false.with_finding} of {false.measured.n}",
            )
            for share, false in zip(found.everything.shares, found.healthy, strict=True)
        ],
    )  # fmt: skip


def _cell_table(cells: Sequence[Cell], compared: Sequence[str], *, intervals: bool) -> str:
    def told(value: Interval, digits: int = 4) -> str:
        return _ci(value, digits) if intervals else _number(value.estimate, digits)

    return _table(
        ["kind", "contrast", "size", "scans", "prevalence", *(f"AP {name}" for name in compared), "scan AUROC"],
        [
            (
                cell.kind,
                cell.contrast,
                cell.size,
                cell.scans,
                f"{cell.prevalence:.4f}",
                *(told(cell.ap[name]) for name in compared),
                told(cell.scan_auroc, 3),
            )
            for cell in cells
        ],
    )


def _scan_table(rows: Sequence[ScanLevel], target: float) -> str:
    return _table(
        ["scan score", "AUROC", "AP", "FPR at 95 % TPR", f"detected at p ≤ {target:g}"],
        [(row.name, *(_ci(value, 3) for value in (row.auroc, row.ap, row.fpr_at_95, row.detected))) for row in rows],
    )


def _rate_table(rows: Sequence[ScanLevel]) -> str:
    targets = sorted({rate for row in rows for rate in row.realised})
    return _table(
        ["scan score", *(f"target {100 * rate:g} %" for rate in targets)],
        [(row.name, *(_ci(row.realised.get(rate), 3) for rate in targets)) for row in rows],
    )


def _speed(speed: Speed) -> list[str]:
    shape = " x ".join(map(str, speed.shape))
    spacing = " x ".join(f"{size:g}" for size in speed.spacing)
    rows: list[tuple[str, str]] = [
        ("scan", f"{shape} voxels of {spacing} mm"),
        ("`detector.score_scan`, preparation and registration included", f"{speed.score_s:.2f} s"),
        ("peak memory of the process, interpreter and libraries included", f"{speed.peak_mb:.0f} MB"),
        ("loading the artifact", f"{speed.load_s:.2f} s"),
        ("folds", str(speed.folds)),
        ("threads", str(speed.threads)),
    ]
    if speed.restoration_s is not None:
        text = f"`restoration`, {speed.restoration_steps} steps, one fold, apart"
        rows.append((text, f"{speed.restoration_s:.2f} s"))
    return ["## Speed and memory", f"```\n{speed.command}\n```", _table(["what", "value"], rows)]


def _rows_picture(result: CohortResult) -> Figure:
    names = [f"{row.name}, {row.role}" if row.role == "peer" else row.name for row in result.rows]
    return interval_plot(
        names,
        [row.ap for row in result.rows],
        "voxel AP with 95 % interval over subjects; dashed: prevalence",
        reference=result.prevalence,
        highlight=[0],
        title=f"{result.name}: all scores",
    )


def _kinds_picture(result: CohortResult) -> Figure:
    crossed = {
        (cell.kind, cell.contrast, cell.size): cell
        for cell in result.cells
        if _ALL not in (cell.kind, cell.contrast, cell.size)
    }
    contrasts = sorted({key[1] for key in crossed}, key=float)
    conditions = [(contrast, size) for contrast in contrasts for size in SIZES]
    kinds = sorted({key[0] for key in crossed})
    panels, chance = {}, {}
    for kind in kinds:
        cells = [crossed.get((kind, *condition)) for condition in conditions]
        panels[kind] = {
            name: [math.nan if cell is None else cell.ap[name].estimate for cell in cells] for name in result.compared
        }
        chance[kind] = [math.nan if cell is None else cell.prevalence for cell in cells]
    labels = [f"{size}, {contrast}" for contrast, size in conditions]
    title = f"{result.name}: AP by kind, size and contrast"
    return dot_panels(panels, labels, "voxel AP", chance=chance, title=title)


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(value) for value in line) + " |" for line in lines)


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"* {line}" for line in lines)


def _number(value: float, digits: int = 4) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "n/a"


def _ci(value: Interval | None, digits: int = 4) -> str:
    if value is None:
        return ""
    if not (math.isfinite(value.low) and math.isfinite(value.high)):
        return _number(value.estimate, digits)
    return f"{value.estimate:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"
