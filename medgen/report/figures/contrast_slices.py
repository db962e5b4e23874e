"""The contrasts of a scan beside one another, as they are and with the heat: what is dark in T1 may be bright in FLAIR.

A lesion may be seen in one contrast alone, so a picture of another one shows heat where a reader sees nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from medgen.report.figures import planes as geometry
from medgen.report.figures.mosaic import _Layers, _legend, grey_scale
from medgen.report.figures.panels import Panel, panels
from medgen.volume import Volume

MOST = 4
"""Contrasts of a scan that are drawn; with more, the first ones."""

# Panels that the width has room for, and inches of the tallest.
_BESIDE = 6
_TALLEST = 2.4


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
    if len(shown) * len(views) <= _BESIDE:
        rows = [[panel for row in part for panel in row] for part in (plain, hot)]
    else:
        rows = [row for pair in zip(plain, hot, strict=True) for row in pair]
    handles = _legend(hot[0][0].layers, {}, contour_label)
    return panels(rows, columns=4, handles=handles, title=title, tallest=_TALLEST)
