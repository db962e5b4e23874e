"""Small pictures of findings: one row each, three slices through the peak, the scan beside the heat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from medgen.report.figures import planes as geometry
from medgen.report.figures.mosaic import (
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
from medgen.volume import Volume

# Inches: height of the line above each row, and the tallest slice.
_LINE, _TALL = 0.24, 1.35


def finding_slices(
    image: Volume,
    *,
    heatmap: Volume,
    contour: Volume,
    points: Sequence[ArrayLike],
    captions: Sequence[str],
    contour_label: str = "finding",
) -> Figure:
    """One row for each point: an axial, a coronal and a sagittal slice of the scan, then the same with its heat.

    Args:
        image: Scan, (c, i, j, k); channel 0 is drawn.
        heatmap: Scores, NaN where there is none.
        contour: What is outlined on the heat: 1, or 2 where it is family-wise.
        points: World points (RAS+ mm), (3,) each.
        captions: The line above each row.
        contour_label: Text of the outline in the legend.

    Raises:
        ValueError: If there are no points, or not as many captions.
    """
    if not points or len(points) != len(captions):
        raise ValueError(f"expected points with a caption each, found {len(points)} and {len(captions)}")
    window = grey_scale(image, 0)
    layers = (_Layers(image, window), _Layers(image, window, heatmap=heatmap, contour=contour))
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
    for grids, caption in zip(rows, captions, strict=True):
        figure.text(0.1 / width, (y - _LINE / 2) / height, caption, color=_INK, fontsize=8, va="center", weight="bold")
        y -= tall + _LINE
        x = 0.1
        for own in layers:
            for view, grid, (across, down) in zip(geometry.VIEWS, grids, extents * scale, strict=True):
                axes = _axes(figure, x, y + (tall - down) / 2, across, down)
                _panel(axes, own, grid, view, place=own is layers[0])
                x += across + _GAP
            x += _GAP
    _draw_legend(figure, _legend(layers[1], {}, contour_label), width, height)
    return figure
