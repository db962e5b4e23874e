"""Small tables of shares as coloured cells, one panel each, on one colour scale from 0 to 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_DPI = 110
_INK = "#24292f"
# Text on cells darker than this is white.
_DARK = 0.55


def heat_tables(
    panels: Mapping[str, Sequence[Sequence[tuple[float, str]]]],
    rows: Sequence[str],
    columns: Sequence[str],
    xlabel: str = "",
    ylabel: str = "",
) -> Figure:
    """One table of coloured cells per panel, side by side.

    Args:
        panels: Title → rows of (share in [0, 1], text in the cell); a NaN share leaves the cell blank.
        rows: Names of the rows, from the top.
        columns: Names of the columns.
        xlabel: What the columns are.
        ylabel: What the rows are.

    Raises:
        ValueError: If there is no panel or one does not have a cell for every row and column.
    """
    if not panels:
        raise ValueError("expected at least one panel")
    for title, cells in panels.items():
        if len(cells) != len(rows) or any(len(row) != len(columns) for row in cells):
            raise ValueError(f"panel {title!r}: expected {len(rows)} rows of {len(columns)} cells")
    width = max(1.6, 0.6 * len(columns))
    figure = Figure(
        figsize=(0.8 + (width + 0.4) * len(panels), 1.1 + 0.45 * len(rows)),
        dpi=_DPI,
        facecolor="white",
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)
    for axes, (title, cells) in zip(grid[0], panels.items(), strict=True):
        shares = np.array([[share for share, _ in row] for row in cells], dtype=np.float64)
        axes.imshow(np.ma.masked_invalid(shares), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for y, row in enumerate(cells):
            for x, (share, text) in enumerate(row):
                colour = "white" if share > _DARK else _INK
                axes.text(x, y, text, ha="center", va="center", fontsize=9, color=colour)
        axes.set_xticks(range(len(columns)), list(columns), fontsize=8)
        axes.set_yticks(range(len(rows)), list(rows), fontsize=8)
        axes.set_xlabel(xlabel, fontsize=9)
        axes.set_title(title, fontsize=10, weight="bold", loc="left")
        axes.tick_params(length=0)
        axes.spines[["top", "right", "bottom", "left"]].set_visible(False)
    grid[0][0].set_ylabel(ylabel, fontsize=9)
    return figure
