"""Training curves, intervals and learning curves, drawn through matplotlib's object interface only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from medgen.report.figures.mosaic import sample_pairs

__all__ = ["HasInterval", "interval_plot", "learning_curve", "sample_pairs", "training_curves"]

_DPI = 110
_INK, _GRID = "#24292f", "#d9dee3"
# Okabe and Ito: distinct also for colour-blind readers.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#4d4d4d")
_VALIDATION = ("val_", "valid_", "validation_", "val/", "validation/", "val.", "validation.")
_NOT_METRICS = {"step", "epoch", "time", "seconds", "progress"}
_MOST_PANELS = 6


class HasInterval(Protocol):
    """Anything with an estimate and the ends of its confidence interval."""

    @property
    def estimate(self) -> float:
        """The estimate itself."""

    @property
    def low(self) -> float:
        """Lower end of the confidence interval."""

    @property
    def high(self) -> float:
        """Upper end of the confidence interval."""


def training_curves(histories: Mapping[str, Sequence[Mapping[str, Any]]], title: str = "") -> Figure:
    """One row of small panels per stage, one panel per quantity; validation is drawn into the panel it validates.

    Thin lines are the values as logged, bold lines their running median.

    Args:
        histories: Stage → entries with a ``step`` and numbers; quantities may be missing in some. ``val_loss`` (also
            ``validation_loss``, ``val/loss``) belongs to ``loss``; ``validation`` alone does too. That of a stage, as
            in ``stage/validation``, belongs to ``stage/loss``.
        title: One line above.
    """
    series = {stage: _series(entries) for stage, entries in histories.items()}
    series = {stage: panels for stage, panels in series.items() if panels}
    if not series:
        figure = _figure(7, 1.2)
        figure.text(0.5, 0.5, "no training steps were logged", ha="center", va="center", color=_INK)
        return figure
    columns = min(max(len(panels) for panels in series.values()), _MOST_PANELS)
    columns = max(columns, 2)
    figure = _figure(10.5, 0.2 + 2.0 * len(series) + (0.3 if title else 0))
    grid = figure.subplots(len(series), columns, squeeze=False)
    for row, (stage, panels) in enumerate(series.items()):
        for column in range(columns):
            axes = grid[row][column]
            if column >= len(panels):
                axes.set_axis_off()
                continue
            name = list(panels)[column]
            _curve_panel(axes, name, panels[name])
            if column == 0:
                axes.set_ylabel(stage, fontsize=9, weight="bold")
            if row == len(series) - 1:
                axes.set_xlabel("step", fontsize=8)
    if title:
        figure.suptitle(title, fontsize=11, weight="bold", color=_INK)
    return figure


def interval_plot(
    names: Sequence[str],
    intervals: Sequence[HasInterval],
    xlabel: str = "",
    *,
    reference: float | None = None,
    highlight: Sequence[int] = (),
    title: str = "",
) -> Figure:
    """Estimates with confidence intervals, one line each, first at the top.

    Args:
        names: One per interval.
        intervals: Objects with ``estimate``, ``low`` and ``high``; a NaN estimate is shown as "not available".
        xlabel: Quantity, unit and level of the intervals.
        reference: Value to mark with a vertical line, such as 0 for differences or the prevalence for precision.
        highlight: Indices drawn in colour.
        title: One line above.

    Raises:
        ValueError: If the lengths differ or are zero.
    """
    if len(names) != len(intervals) or not names:
        raise ValueError(f"expected as many names as intervals, found {len(names)} and {len(intervals)}")
    figure = _figure(8.5, 0.9 + 0.3 * len(names) + (0.3 if title else 0))
    axes = figure.subplots()
    for y, item in enumerate(intervals):
        colour = _COLOURS[1] if y in highlight else _COLOURS[0]
        if not math.isfinite(item.estimate):
            where: dict[str, Any] = {
                "transform": axes.get_yaxis_transform(),
                "va": "center",
                "fontsize": 8,
                "color": "#6b7280",
            }
            axes.text(0.99, y, "not available", ha="right", **where)
            continue
        if math.isfinite(item.low) and math.isfinite(item.high):
            axes.plot([item.low, item.high], [y, y], color=colour, lw=2, solid_capstyle="butt")
            axes.plot([item.low, item.high], [y, y], color=colour, marker="|", ms=8, ls="none")
        axes.plot([item.estimate], [y], color=colour, marker="o", ms=5)
    if reference is not None:
        axes.axvline(reference, color=_INK, lw=0.8, ls="dashed", zorder=0)
    axes.set_yticks(range(len(names)), list(names), fontsize=9)
    for index in highlight:
        axes.get_yticklabels()[index].set_fontweight("bold")
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(xlabel, fontsize=9)
    axes.grid(axis="x", color=_GRID, lw=0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    if title:
        axes.set_title(title, fontsize=11, weight="bold", loc="left")
    return figure


def learning_curve(
    sizes: Sequence[float],
    series: Mapping[str, Sequence[HasInterval | None]],
    xlabel: str = "training subjects",
    ylabel: str = "",
    title: str = "",
) -> Figure:
    """A quantity against the number of training subjects, one line with intervals per arm.

    Args:
        sizes: Numbers of subjects, shared by all arms; drawn on a log axis.
        series: Arm → one interval per size; None where the arm was not measured.
        xlabel: Text below.
        ylabel: Text at the left.
        title: One line above.

    Raises:
        ValueError: If an arm has more or fewer intervals than there are sizes.
    """
    figure = _figure(7.5, 4.2)
    axes = figure.subplots()
    for index, (name, intervals) in enumerate(series.items()):
        if len(intervals) != len(sizes):
            raise ValueError(f"arm {name!r}: expected {len(sizes)} intervals, found {len(intervals)}")
        # Side by side, so that intervals of several arms at one size stay readable.
        measured = [(size, item) for size, item in zip(sizes, intervals, strict=True) if item is not None]
        x = [size * 1.025 ** (index - (len(series) - 1) / 2) for size, _ in measured]
        middle = np.array([item.estimate for _, item in measured], dtype=np.float64)
        ends = np.array([[item.low, item.high] for _, item in measured], dtype=np.float64).reshape(-1, 2)
        error = np.abs(np.where(np.isfinite(ends), ends, middle[:, None]) - middle[:, None]).T
        colour = _COLOURS[index % len(_COLOURS)]
        axes.errorbar(x, middle, yerr=error, color=colour, marker="o", ms=4, lw=1.5, capsize=3, label=name)
    axes.set_xscale("log")
    axes.set_xticks(list(sizes), [f"{size:g}" for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel(xlabel, fontsize=9)
    axes.set_ylabel(ylabel, fontsize=9)
    axes.grid(color=_GRID, lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    if title:
        axes.set_title(title, fontsize=11, weight="bold", loc="left")
    return figure


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _series(entries: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Quantity → {"training" or "validation": (n, 2) array of step and value}; losses first."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for index, entry in enumerate(entries):
        step = float(entry.get("step", index))
        for key, value in entry.items():
            if key in _NOT_METRICS or isinstance(value, bool | str) or value is None:
                continue
            name, kind = _split(key)
            found.setdefault(name, {}).setdefault(kind, []).append((step, float(value)))
    order = sorted(found, key=lambda name: (name != "loss", "loss" not in name, list(found).index(name)))
    return {
        name: {kind: np.array(points, dtype=np.float64) for kind, points in found[name].items()}
        for name in order[:_MOST_PANELS]
    }


def _split(key: str) -> tuple[str, str]:
    if key in {"val", "valid", "validation"}:
        return "loss", "validation"
    if key.endswith("/validation"):
        # Of a stage.
        return f"{key.rpartition('/')[0]}/loss", "validation"
    for prefix in _VALIDATION:
        if key.startswith(prefix):
            return key.removeprefix(prefix), "validation"
    return key, "training"


def _curve_panel(axes: Axes, name: str, lines: Mapping[str, NDArray[np.float64]]) -> None:
    for kind, colour in (("training", _COLOURS[0]), ("validation", _COLOURS[1])):
        if kind not in lines:
            continue
        step, value = lines[kind].T
        if kind == "validation" or len(step) < 12:
            axes.plot(step, value, color=colour, lw=1.4, marker="o", ms=2.5, label=kind)
        else:
            axes.plot(step, value, color=colour, lw=0.5, alpha=0.35)
            axes.plot(step, _running_median(value), color=colour, lw=1.6, label=kind)
    finite = np.concatenate([points[:, 1] for points in lines.values()])
    finite = finite[np.isfinite(finite)]
    # The first steps of a loss are often a hundred times the rest and would flatten it.
    if finite.size > 20:
        low, high = np.percentile(finite, (0, 98))
        if high > low:
            axes.set_ylim(low - 0.05 * (high - low), high + 0.15 * (high - low))
    axes.set_title(name, fontsize=9)
    axes.tick_params(labelsize=7)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.grid(color=_GRID, lw=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    if len(lines) > 1:
        axes.legend(frameon=False, fontsize=7)


def _running_median(values: NDArray[np.float64]) -> NDArray[np.float64]:
    half = max(1, len(values) // 30)
    padded = np.pad(values, half, mode="reflect")
    result: NDArray[np.float64] = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1), axis=-1)
    return result
