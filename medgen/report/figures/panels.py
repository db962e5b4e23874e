"""Rows of slices with a heading over each: one place, in every contrast of a scan, or as every single score sees it.

A lesion may be seen in one contrast alone, so a picture of another one shows heat where a reader sees nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import ArrayLike

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
    _legend,
    _panel,
    grey_scale,
)
from medgen.volume import Grid, Volume

MOST = 4
"""Contrasts of a scan that are drawn; with more, the first ones."""

# Panels that the width has room for, and inches of the tallest.
_COLUMNS = 6
_TALLEST = 2.2
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


def contrast_slices(
    image: Volume,
    names: Sequence[str],
    *,
    heatmap: Volume,
    contour: Volume | None = None,
    point: ArrayLike,
    title: str = "",
    views: Sequence[str] = ("axial", "coronal"),
    contour_label: str = "finding",
) -> Figure:
    """Every contrast through one point, on its own grey scale, and below it the same with the heat.

    The views are beside one another, those of many contrasts below one another.

    Args:
        image: Scan, (c, i, j, k), of which the first :data:`MOST` contrasts are drawn.
        names: What its contrasts are called, c of them.
        heatmap: Scores, NaN where there is none; on any grid of the same world.
        contour: What is outlined on the heat: 1, or 2 where it is family-wise.
        point: World point (RAS+ mm) that the slices go through.
        title: One line above.
        views: Views, in their order.
        contour_label: Text of the outline in the legend.

    Raises:
        ValueError: If the names are not as many as the contrasts.
    """
    if len(names) != len(image.data):
        raise ValueError(f"expected a name for each of {len(image.data)} contrasts, found {len(names)}")
    shown = list(enumerate(names[:MOST]))
    windows = [grey_scale(image, number) for number, _ in shown]
    box = geometry.bounding_box(image, margin=10.0)
    plain, hot = [], []
    for view in views:
        (grid,) = geometry.slices(image.grid, view, 1, point, box)
        own = [_Layers(image, window, number) for (number, _), window in zip(shown, windows, strict=True)]
        over = [replace(layers, heatmap=heatmap, contour=contour) for layers in own]
        plain.append([Panel(layers, grid, view, name) for layers, (_, name) in zip(own, shown, strict=True)])
        hot.append(
            [Panel(layers, grid, view, f"{name} and heat") for layers, (_, name) in zip(over, shown, strict=True)]
        )
    if len(shown) * len(views) <= _COLUMNS:
        rows = [[panel for row in part for panel in row] for part in (plain, hot)]
    else:
        rows = [row for pair in zip(plain, hot, strict=True) for row in pair]
    handles = _legend(hot[0][0].layers, {}, contour_label)
    return panels(rows, columns=4, handles=handles, title=title, tallest=_TALLEST)


def score_maps(
    image: Volume,
    maps: Mapping[str, Volume],
    *,
    contour: Volume | None = None,
    point: ArrayLike,
    channel: int = 0,
    heading: str = "scan",
    title: str = "",
    contour_label: str = "implant",
) -> Figure:
    """The axial slice through a point: the scan with what is outlined, then each map over it, outlined alike.

    Args:
        image: Scan, (c, i, j, k).
        maps: By the heading of its panel, a map of z; NaN where not scored; on any grids of the same world.
        contour: What is outlined: 1, or 2 where it is family-wise.
        point: World point (RAS+ mm) that the slice goes through.
        channel: Channel of the image that is drawn.
        heading: Over the scan.
        title: One line above.
        contour_label: Text of the outline in the legend.

    Raises:
        ValueError: If there is no map.
    """
    if not maps:
        raise ValueError("expected a map at least, found none")
    window = grey_scale(image, channel)
    (grid,) = geometry.slices(image.grid, "axial", 1, point, geometry.bounding_box(image))
    scan = Panel(_Layers(image, window, channel, contour=contour), grid, "axial", heading)
    drawn = [
        Panel(_Layers(image, window, channel, heatmap=own, contour=contour), grid, "axial", name)
        for name, own in maps.items()
    ]
    everything = [scan, *drawn]
    rows = [everything[start : start + _COLUMNS] for start in range(0, len(everything), _COLUMNS)]
    handles = _legend(drawn[0].layers, {}, contour_label)
    return panels(rows, columns=_COLUMNS, handles=handles, title=title, tallest=_TALLEST)
