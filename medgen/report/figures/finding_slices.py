"""Small pictures of findings: one row each, three slices through the peak, the scan beside the heat.

Of a scan of several contrasts it is the contrast in which the finding is most unusual; where that is not known, all of
them are shown, smaller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike, NDArray

from medgen.report.figures import planes as geometry
from medgen.report.figures.mosaic import (
    _BACKGROUND,
    _GAP,
    _INK,
    _WIDTH,
    _axes,
    _draw_legend,
    _figure,
    _Layers,
    _legend,
    _panel,
    grey_scale,
)
from medgen.report.figures.panels import MOST
from medgen.volume import Grid, Volume

# Inches: height of the line above each row, and the tallest slice.
_LINE, _TALL = 0.24, 1.35


def finding_slices(
    image: Volume,
    *,
    heatmap: Volume,
    contour: Volume,
    points: Sequence[ArrayLike],
    captions: Sequence[str],
    contrasts: Sequence[int | None] = (),
    names: Sequence[str] = (),
    contour_label: str = "finding",
) -> Figure:
    """One row for each point: an axial, a coronal and a sagittal slice of the scan, then the same with its heat.

    Args:
        image: Scan, (c, i, j, k).
        heatmap: Scores, NaN where there is none.
        contour: What is outlined on the heat: 1, or 2 where it is family-wise.
        points: World points (RAS+ mm), (3,) each.
        captions: The line above each row.
        contrasts: For each point the contrast that is drawn, from 0; None for the axial slice of each of the first
            :data:`~medgen.report.figures.panels.MOST`, beside the heat on the first. Default: the first.
        names: What the contrasts are called, written on the slices where there are several.
        contour_label: Text of the outline in the legend.

    Raises:
        ValueError: If there are no points, or not as many captions.
    """
    if not points or len(points) != len(captions):
        raise ValueError(f"expected points with a caption each, found {len(points)} and {len(captions)}")
    chosen = list(contrasts) or [0] * len(points)
    if len(chosen) != len(points) or (len(image.data) > 1 and len(names) != len(image.data)):
        raise ValueError(
            f"expected a contrast for each of {len(points)} points and {len(image.data)} names, found {len(chosen)} "
            f"and {len(names)}"
        )
    windows = [grey_scale(image, number) for number in range(len(image.data))]
    plain = [_Layers(image, window, number) for number, window in enumerate(windows)]
    hot = [replace(own, heatmap=heatmap, contour=contour) for own in plain]
    box = geometry.bounding_box(image)
    rows = [[geometry.slices(image.grid, view, 1, point, box)[0] for view in geometry.VIEWS] for point in points]
    extents: NDArray[np.float64] = np.array(
        [(grid.shape[1] * grid.spacing[1], grid.shape[0] * grid.spacing[0]) for grid in rows[0]]
    )
    scale = min((_WIDTH - 0.2 - 7 * _GAP) / (2 * extents[:, 0].sum()), _TALL / extents[:, 1].max())
    tall, foot = extents[:, 1].max() * scale, 0.36
    width = 0.2 + 2 * extents[:, 0].sum() * scale + 7 * _GAP
    height = foot + len(points) * (tall + _LINE)
    figure = _figure(width, height)
    y = height
    for grids, caption, contrast in zip(rows, captions, chosen, strict=True):
        figure.text(0.1 / width, (y - _LINE / 2) / height, caption, color=_INK, fontsize=8, va="center", weight="bold")
        y -= tall + _LINE
        x = 0.1
        if contrast is None:
            x = _every_contrast(figure, plain[:MOST], grids[0], names, (x, y, extents[:, 0].sum() * scale, tall))
        else:
            name = names[contrast] if len(plain) > 1 else ""
            x = _three_views(figure, plain[contrast], grids, (x, y, tall), extents * scale, name)
        _three_views(figure, hot[contrast or 0], grids, (x, y, tall), extents * scale)
    _draw_legend(figure, _legend(hot[0], {}, contour_label), width, height)
    return figure


def _three_views(
    figure: Figure,
    layers: _Layers,
    grids: Sequence[Grid],
    place: tuple[float, float, float],
    sizes: NDArray[np.float64],
    name: str = "",
) -> float:
    """Draw one layer in all views from a place (x, y, height of the row), and return where the next may begin."""
    x, y, tall = place
    for number, (view, grid, (across, down)) in enumerate(zip(geometry.VIEWS, grids, sizes, strict=True)):
        axes = _axes(figure, x, y + (tall - down) / 2, across, down)
        _panel(axes, layers, grid, view, place=layers.heatmap is None)
        if name and number == 0:
            _name(axes, name)
        x += across + _GAP
    return x + _GAP


def _every_contrast(
    figure: Figure,
    layers: Sequence[_Layers],
    grid: Grid,
    names: Sequence[str],
    room: tuple[float, float, float, float],
) -> float:
    """Draw the axial slice of several contrasts in the room (x, y, width, height) of three views."""
    x, y, width, tall = room
    width += 2 * _GAP
    across, down = geometry.same_extent([grid])
    scale = min((width - (len(layers) - 1) * _GAP) / (len(layers) * across), tall / down)
    for place, (own, name) in enumerate(zip(layers, names, strict=False)):
        left = x + place * (across * scale + _GAP)
        axes = _axes(figure, left, y + (tall - down * scale) / 2, across * scale, down * scale)
        _panel(axes, own, grid, "axial", place=place == 0)
        _name(axes, name)
    return x + width + 2 * _GAP


def _name(axes: Axes, name: str) -> None:
    stroke = [withStroke(linewidth=1.8, foreground=_BACKGROUND)]
    style: dict[str, Any] = {"transform": axes.transAxes, "path_effects": stroke, "fontsize": 7, "color": _INK}
    axes.text(0.02, 0.98, name, ha="left", va="top", **style)
