"""A grid of small dot plots: a few series over the same conditions, one panel per group."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from medgen.report.figures.curves import _COLOURS, _GRID, _INK, _figure

_COLUMNS = 5


def dot_panels(
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    conditions: Sequence[str],
    ylabel: str = "",
    *,
    chance: Mapping[str, Sequence[float]] | None = None,
    title: str = "",
) -> Figure:
    """One panel per group, all on one scale from 0; each series has a dot per condition.

    Args:
        panels: Group → series → one value per condition; NaN leaves a gap. Series keep their colours in all panels.
        conditions: Labels of the horizontal axis.
        ylabel: Quantity.
        chance: Group → value per condition that a score without information reaches, drawn as a dash.
        title: One line above.

    Raises:
        ValueError: If there is no panel, or a series has more or fewer values than there are conditions.
    """
    lengths = {len(values) for series in panels.values() for values in series.values()}
    if not panels or lengths - {len(conditions)}:
        raise ValueError(f"expected panels of {len(conditions)} values, found {len(panels)} with {sorted(lengths)}")
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = _figure(2.3 * columns + 0.6, 1.9 * rows + 0.8)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    names = list(dict.fromkeys(name for series in panels.values() for name in series))
    places = np.arange(len(conditions), dtype=np.float64)
    highest = max((value for series in panels.values() for own in series.values() for value in own), key=_finite)
    for number, axes in enumerate(grid.ravel()[len(panels) :], start=len(panels)):
        axes.set_axis_off()
        # The panel above has no other to carry its labels.
        grid.ravel()[number - columns].tick_params(labelbottom=True)
    for axes, group in zip(grid.ravel(), panels, strict=False):
        for number, name in enumerate(names):
            if name not in panels[group]:
                continue
            # Side by side, so that equal values do not hide each other.
            shift = 0.22 * (number - (len(names) - 1) / 2)
            values = np.asarray(panels[group][name], dtype=np.float64)
            colour = _COLOURS[number % len(_COLOURS)]
            axes.vlines(places + shift, 0, np.nan_to_num(values), color=colour, lw=1.2, alpha=0.5)
            axes.plot(places + shift, values, color=colour, marker="o", ms=4, ls="none", label=name)
        if chance is not None and group in chance:
            axes.plot(places, chance[group], color=_INK, marker="_", ms=12, ls="none", label="chance")
        axes.set_title(group, fontsize=9)
        axes.set_ylim(0, 1.08 * _finite(highest) or 1.0)
        axes.set_xticks(places, list(conditions), fontsize=7, rotation=60)
        axes.tick_params(labelsize=7)
        axes.grid(axis="y", color=_GRID, lw=0.5)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel(ylabel, fontsize=8)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=8)
    if title:
        figure.suptitle(title, fontsize=11, weight="bold", color=_INK)
    return figure


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0
