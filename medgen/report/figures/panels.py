"""Rows of slices with a heading over each: the same place, seen in several ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from medgen.report.figures import planes as geometry
from medgen.report.figures.mosaic import (
    _GAP,
    _INK,
    _WIDTH,
    LIMITS,
    _axes,
    _colour_bar,
    _draw_legend,
    _figure,
    _Layers,
    _panel,
)
from medgen.volume import Grid

# Inches: the line over a row, and room for the colour bar.
_LINE, _BAR = 0.2, 0.75


@dataclass(frozen=True, eq=False)
class Panel:
    """One slice.

    Attributes:
        layers: What is drawn.
        grid: The pixels, from :func:`medgen.report.figures.planes.slices`.
        view: The view that they are of.
        heading: The line above.
    """

    layers: _Layers
    grid: Grid
    view: str
    heading: str


def panels(
    rows: Sequence[Sequence[Panel]], *, columns: int, handles: Sequence[Line2D | Patch], title: str, tallest: float
) -> Figure:
    """Draw rows of slices at one scale, beside the colour bar of heat.

    Args:
        rows: From the top; each has a panel at least.
        columns: Panels that the width has room for: fewer are drawn as large as so many, so that sizes do not change
            from report to report.
        handles: Entries of the legend.
        title: One line above all.
        tallest: Height in inches of the tallest slice at most.
    """
    sizes = [geometry.same_extent([panel.grid for panel in row]) for row in rows]
    widest, highest = max(size[0] for size in sizes), max(size[1] for size in sizes)
    room = max([columns, *map(len, rows)])
    scale = min((_WIDTH - _BAR - 0.1 - _GAP * (room - 1)) / (room * widest), tallest / highest)
    across = max(len(row) for row in rows) * (widest * scale + _GAP)
    top, bottom = (0.42 if title else 0.1), (0.36 if handles else 0.08)
    width, height = 0.1 + across + _BAR, top + bottom + sum(size[1] * scale + _LINE + _GAP for size in sizes)
    # The legend and the title, of bold letters of a tenth of an inch, need some inches of their own.
    width = max(width, 5.0, 0.2 + 0.1 * len(title))
    figure = _figure(width, height)
    ruler = max((mm for mm in (1, 2, 5, 10, 20, 50, 100) if mm <= 0.25 * widest), default=1)
    y = height - top
    for number, (row, (_, tall)) in enumerate(zip(rows, sizes, strict=True)):
        y -= tall * scale + _LINE
        for place, panel in enumerate(row):
            own, down = (length * scale for length in geometry.same_extent([panel.grid]))
            left = 0.1 + place * (widest * scale + _GAP)
            axes = _axes(figure, left + (widest * scale - own) / 2, y + (tall * scale - down) / 2, own, down)
            _panel(axes, panel.layers, panel.grid, panel.view, ruler=0 if number or place else ruler, place=place == 0)
            where = ((left + widest * scale / 2) / width, (y + tall * scale + _LINE / 2) / height)
            figure.text(*where, panel.heading, color=_INK, fontsize=8, ha="center", va="center")
        y -= _GAP
    span = min(height - top - bottom - 0.2, 4.0)
    middle = bottom + (height - top - bottom - span) / 2
    _colour_bar(figure, _axes(figure, 0.1 + across + 0.1, middle, 0.13, span), LIMITS, "z against healthy")
    if title:
        figure.text(0.1 / width, 1 - 0.22 / height, title, color=_INK, fontsize=11, va="center", weight="bold")
    _draw_legend(figure, list(handles), width, height)
    return figure
