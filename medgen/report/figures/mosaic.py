"""Mosaics of orthogonal slices with overlays, in radiological convention; see :mod:`medgen.report.figures.planes`.

Colours of a heatmap mean the same z in every picture with the same limits. Voxels without a score (NaN) and below the
lower limit are transparent, and a dotted line bounds the scored region, so that "not scored" never looks like "normal".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike, NDArray

from medgen.report.figures import planes as geometry
from medgen.report.figures.colours import difference_colours, heat_picture, heat_steps, label_colour, label_picture
from medgen.volume import Grid, Volume

LIMITS = (2.0, 8.0)
"""Default colour scale of heatmaps: from z = 2, where 2 % of healthy voxels lie above, to z = 8."""

_BACKGROUND, _INK = "#101419", "#d8dee5"
TRUTH, _STRONG, _SCORED = "#38e8ff", "#7dff5c", "#8d99a6"
_DPI = 110
_WIDTH = 10.5
_GAP = 0.05


@dataclass(frozen=True, eq=False)
class _Layers:
    """What is drawn on the slices of one scan."""

    image: Volume
    window: tuple[float, float]
    channel: int = 0
    heatmap: Volume | None = None
    limits: tuple[float, float] = LIMITS
    contour: Volume | None = None
    labels: Volume | None = None
    # How opaque labels are: little over a scan, wholly where there is none.
    tint: float = 0.16
    colours: str | Colormap = "gray"


def mosaic(
    image: Volume,
    *,
    heatmap: Volume | None = None,
    contour: Volume | None = None,
    labels: Volume | None = None,
    label_names: Mapping[int, str] | None = None,
    limits: tuple[float, float] | None = None,
    window: tuple[float, float] | None = None,
    title: str = "",
    slices: ArrayLike | None = None,
    rows: str = "axial,coronal,sagittal",
    n_slices: int = 5,
    channel: int = 0,
    crop: bool = True,
    heatmap_label: str = "z against healthy",
    contour_label: str = "truth",
) -> Figure:
    """Draw a scan as rows of slices; overlays may lie on other grids of the same world.

    Args:
        image: Scan, (c, i, j, k).
        heatmap: Scores, NaN where there is none.
        contour: Mask whose outline is drawn.
        labels: Integers, 0 background, drawn as outlines over a tint, with a legend.
        label_names: Label → name.
        limits: Colour scale of the heatmap; default :data:`LIMITS`, the same for every scan on purpose.
        window: Grey scale; default: 1st to 99.5th percentile of the object.
        title: One line above.
        slices: World point (RAS+ mm) that one slice of every row goes through; default: slices spread evenly.
        rows: Views, parted by commas.
        n_slices: Slices in each row.
        channel: Channel of the image to draw.
        crop: Whether to leave out the air around the object.
        heatmap_label: Text at the colour bar.
        contour_label: Text of the contour in the legend.

    Returns:
        A figure without global state; save it with ``figure.savefig`` or hand it to ``Report.figure``.
    """
    layers = _Layers(image, window or grey_scale(image, channel), channel, heatmap, limits or LIMITS, contour, labels)
    box = geometry.bounding_box(image) if crop else None
    views = [name.strip() for name in rows.split(",")]
    table = [(view, geometry.slices(image.grid, view, n_slices, slices, box)) for view in views]
    handles = _legend(layers, label_names or {}, contour_label)
    right = 0.75 if heatmap is not None else 0.1
    top, bottom = (0.42 if title else 0.1), (0.36 if handles else 0.08)
    sizes = [geometry.same_extent(grids) for _, grids in table]
    columns = max(size[0] for size in sizes)
    ruler = max((mm for mm in (1, 2, 5, 10, 20, 50, 100) if mm <= 0.25 * min(size[0] for size in sizes)), default=1)
    scale = (_WIDTH - right - 0.1 - _GAP * (n_slices - 1)) / (columns * n_slices)
    # A single small slice must not become a poster.
    scale = min(scale, 4.0 / max(size[1] for size in sizes))
    width = 0.1 + right + n_slices * columns * scale + _GAP * (n_slices - 1)
    height = top + bottom + sum(size[1] * scale for size in sizes) + _GAP * (len(sizes) - 1)
    figure = _figure(width, height)
    y = height - top
    for (view, grids), (across, down) in zip(table, sizes, strict=True):
        y -= down * scale
        for index, grid in enumerate(grids):
            x = 0.1 + index * (columns * scale + _GAP) + (columns - across) * scale / 2
            axes = _axes(figure, x, y, across * scale, down * scale)
            _panel(axes, layers, grid, view, ruler=ruler if index == 0 else 0)
        y -= _GAP
    if heatmap is not None:
        span = min(height - top - bottom, 4.0)
        middle = bottom + (height - top - bottom - span) / 2
        _colour_bar(figure, _axes(figure, width - right + 0.12, middle, 0.13, span), layers.limits, heatmap_label)
    if title:
        figure.text(0.1 / width, 1 - 0.25 / height, title, color=_INK, fontsize=11, va="center", weight="bold")
    _draw_legend(figure, handles, width, height)
    return figure


def comparison(
    image: Volume,
    *,
    heatmap: Volume,
    expected: Volume | None = None,
    difference: Volume | None = None,
    contour: Volume | None = None,
    point: ArrayLike,
    span: float | None = None,
    title: str = "",
    channel: int = 0,
    scan_label: str = "scan",
    contour_label: str = "finding",
) -> Figure:
    """A scan beside what was expected, their difference and the heat: three slices through one point.

    Args:
        image: Scan, (c, i, j, k).
        heatmap: Scores, NaN where there is none.
        expected: The pseudo-healthy scan in the scan's intensities, NaN where there is none; drawn with the scan's
            grey scale, or left out.
        difference: What the scan has more (above 0) or less than was expected, NaN where there is none, or left out.
        contour: What is outlined on the heat and on the difference: 1, or 2 where it is family-wise.
        point: World point (RAS+ mm) that the slices go through.
        span: The difference's colours go from −span to span, in the scan's intensities; default: half of the scan's
            grey scale.
        title: One line above.
        channel: Channel of the image, of what was expected and of the difference that is drawn.
        scan_label: Over the scan.
        contour_label: Text of the contour in the legend.
    """
    window = grey_scale(image, channel)
    span = span or (window[1] - window[0]) / 2
    columns = {scan_label: _Layers(image, window, channel)}
    if expected is not None:
        columns["pseudo-healthy"] = _Layers(expected, window, channel)
    if difference is not None:
        ends = (-span, span)
        columns["difference"] = _Layers(difference, ends, channel, contour=contour, colours=difference_colours())
    columns["heat"] = _Layers(image, window, channel, heatmap=heatmap, contour=contour)
    # Air enough for the letters to stand beside the patient.
    box = geometry.bounding_box(image, margin=14.0)
    grids = [geometry.slices(image.grid, view, 1, point, box)[0] for view in geometry.VIEWS]
    handles = _legend(columns["heat"], {}, contour_label)
    widest = geometry.same_extent(grids)[0]
    heights = [grid.shape[0] * grid.spacing[0] for grid in grids]
    right, top, bottom = 0.95, (0.42 if title else 0.1) + 0.25, 0.36
    # Room for four columns also where there are two: equal sizes from report to report.
    scale = min((_WIDTH - right - 0.1 - 3 * _GAP) / (4 * widest), 3.0 / max(heights))
    column = widest * scale + _GAP
    width = 0.1 + len(columns) * column + right
    height = top + bottom + sum(heights) * scale + _GAP * (len(grids) - 1)
    figure = _figure(width, height)
    ruler = max((mm for mm in (1, 2, 5, 10, 20, 50, 100) if mm <= 0.25 * widest), default=1)
    y = height - top
    for row, (view, grid) in enumerate(zip(geometry.VIEWS, grids, strict=True)):
        across, down = grid.shape[1] * grid.spacing[1] * scale, heights[row] * scale
        y -= down
        for place, layers in enumerate(columns.values()):
            axes = _axes(figure, 0.1 + place * column + (widest * scale - across) / 2, y, across, down)
            _panel(axes, layers, grid, view, ruler=ruler if place == 0 else 0, place=place == 0)
        y -= _GAP
    for place, heading in enumerate(columns):
        middle = 0.1 + place * column + widest * scale / 2
        figure.text(middle / width, (height - top + 0.14) / height, heading, color=_INK, fontsize=9, ha="center")
    tall = sum(heights) * scale
    bars = [(ScalarMappable(Normalize(*LIMITS), heat_steps()), "z against healthy", "max")]
    if difference is not None:
        scaled = ScalarMappable(Normalize(-span, span), difference_colours())
        bars.append((scaled, "difference, in the scan's intensities", "both"))
    for place, (colours, label, extend) in enumerate(bars):
        size = tall / len(bars) - 0.4
        foot = height - top - (place + 1) * tall / len(bars) + 0.2
        _bar(figure, _axes(figure, width - right + 0.12, foot, 0.13, size), colours, label, extend)
    if title:
        figure.text(0.1 / width, 1 - 0.2 / height, title, color=_INK, fontsize=11, va="center", weight="bold")
    _draw_legend(figure, handles, width, height)
    return figure


def sample_pairs(
    pairs: Sequence[tuple[Volume, Volume]],
    *,
    labels: Sequence[tuple[Volume | None, Volume | None]] | None = None,
    names: Sequence[tuple[str, str]] | None = None,
    label_names: Mapping[int, str] | None = None,
    headings: tuple[str, str] = ("synthetic", "nearest real scan"),
    title: str = "",
) -> Figure:
    """Synthetic scans beside the real ones they resemble most: middle axial, coronal and sagittal slices of both.

    Args:
        pairs: (synthetic, real) scans; each has its own grey scale, since real scans differ in units.
        labels: Their label maps, or None.
        names: Texts below each side, such as an id and a distance.
        label_names: Label → name.
        headings: Texts above the two sides.
        title: One line above.
    """
    if not pairs:
        raise ValueError("sample_pairs: expected at least one pair of scans")
    views = list(geometry.VIEWS)
    sides: list[list[tuple[_Layers, list[Grid]]]] = []
    for row, pair in enumerate(pairs):
        marks = labels[row] if labels else (None, None)
        sides.append([])
        for image, mark in zip(pair, marks, strict=True):
            box = geometry.bounding_box(image)
            grids = [geometry.slices(image.grid, view, 1, None, box)[0] for view in views]
            sides[-1].append((_Layers(image, grey_scale(image, 0), labels=mark), grids))
    handles = _legend(sides[0][0][0], label_names or {}, "")
    # Columns as wide as their widest slice; all slices at one scale.
    widths = [geometry.same_extent([grids[k] for row in sides for _, grids in row])[0] for k in range(len(views))]
    gutter, bottom, top = 0.3, (0.36 if handles else 0.08), (0.36 if title else 0.05) + 0.3
    half = (_WIDTH - 0.2 - gutter) / 2
    scale = min((half - 2 * _GAP) / sum(widths), 2.2 / widths[0])
    line = 0.22 if names else _GAP
    rows = [geometry.same_extent([grid for _, grids in row for grid in grids])[1] * scale for row in sides]
    height = top + bottom + sum(rows) + line * len(rows)
    figure = _figure(_WIDTH, height)
    y = height - top
    for row, tall in enumerate(rows):
        y -= tall
        for side, (layers, grids) in enumerate(sides[row]):
            start = x = 0.1 + side * (half + gutter)
            for grid, view, width in zip(grids, views, widths, strict=True):
                across, down = (length * scale for length in geometry.same_extent([grid]))
                place = (x + (width * scale - across) / 2, y + (tall - down) / 2)
                _panel(_axes(figure, *place, across, down), layers, grid, view, place=False)
                x += width * scale + _GAP
            if names:
                figure.text(start / _WIDTH, (y - 0.11) / height, names[row][side], color=_INK, fontsize=7, va="center")
            if row == 0:
                where = (start / _WIDTH, (height - top + 0.15) / height)
                figure.text(*where, headings[side], color=_INK, fontsize=9, va="center", weight="bold")
        y -= line
    if title:
        figure.text(0.1 / _WIDTH, 1 - 0.2 / height, title, color=_INK, fontsize=11, va="center", weight="bold")
    _draw_legend(figure, handles, _WIDTH, height)
    return figure


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor=_BACKGROUND)
    FigureCanvasAgg(figure)
    return figure


def _axes(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    """Axes at a place given in inches."""
    total_width, total_height = figure.get_size_inches()
    return figure.add_axes((x / total_width, y / total_height, width / total_width, height / total_height))


def _panel(axes: Axes, layers: _Layers, grid: Grid, view: str, ruler: int = 0, place: bool = True) -> None:
    picture = geometry.cut(layers.image, grid, 1, layers.channel)
    axes.imshow(picture, cmap=layers.colours, vmin=layers.window[0], vmax=layers.window[1], aspect="auto")
    if layers.labels is not None:
        marks = label_picture(geometry.cut(layers.labels, grid, 0), layers.tint)
        axes.imshow(marks, aspect="auto", interpolation="nearest")
    if layers.heatmap is not None:
        heat = geometry.cut(layers.heatmap, grid, 1)
        axes.imshow(heat_picture(heat, layers.limits), aspect="auto")
        _outline(axes, np.isfinite(heat), _SCORED, 0.6, "dotted")
    if layers.contour is not None:
        outlined = geometry.cut(layers.contour, grid, 0)
        _outline(axes, outlined > 0, TRUTH, 1.0, "solid")
        _outline(axes, outlined > 1, _STRONG, 1.0, "solid")
    axes.set_axis_off()
    shown = geometry.VIEWS[view]
    stroke = [withStroke(linewidth=1.8, foreground=_BACKGROUND)]
    style: dict[str, Any] = {"color": _INK, "transform": axes.transAxes, "path_effects": stroke}
    left, right, top, bottom = shown.letters
    letter = {**style, "fontsize": 8, "weight": "bold"}
    axes.text(0.015, 0.5, left, ha="left", va="center", **letter)
    axes.text(0.985, 0.5, right, ha="right", va="center", **letter)
    axes.text(0.5, 0.985, top, ha="center", va="top", **letter)
    axes.text(0.5, 0.015, bottom, ha="center", va="bottom", **letter)
    if place:
        # The slice's number in the file, not its world mm: the origin of a scan's world may lie far outside the head.
        axis, number = geometry.slice_number(layers.image.grid, grid, view)
        text = f"{axis} {number}"
        axes.text(0.015, 0.015, text, ha="left", va="bottom", **{**style, "fontsize": 7})
    if ruler:
        _ruler(axes, grid, ruler, stroke)


def _outline(axes: Axes, mask: NDArray[np.bool_], colour: str, width: float, style: str) -> None:
    # A contour of a mask that is all or nothing has no line, and matplotlib warns.
    if mask.any() and not mask.all():
        lines = axes.contour(mask.astype(np.float32), levels=[0.5], colors=[colour], linewidths=width, linestyles=style)
        if style == "solid":
            # Readable on bright and on bluish ground.
            lines.set_path_effects([withStroke(linewidth=width + 1.2, foreground=_BACKGROUND)])


def _ruler(axes: Axes, grid: Grid, length: int, stroke: list[Any]) -> None:
    end, share = 0.96, length / (grid.shape[1] * grid.spacing[1])
    axes.plot([end - share, end], [0.035, 0.035], color=_INK, lw=1.5, transform=axes.transAxes, path_effects=stroke)
    style: dict[str, Any] = {"transform": axes.transAxes, "path_effects": stroke, "fontsize": 6, "color": _INK}
    axes.text(end - share / 2, 0.05, f"{length} mm", ha="center", va="bottom", **style)


def _colour_bar(figure: Figure, axes: Axes, limits: tuple[float, float], label: str) -> None:
    _bar(figure, axes, ScalarMappable(Normalize(*limits), heat_steps()), label, "max")


def _bar(figure: Figure, axes: Axes, colours: ScalarMappable, label: str, extend: str) -> None:
    bar = figure.colorbar(colours, cax=axes, extend=extend)
    bar.set_label(label, color=_INK, fontsize=8)
    axes.tick_params(colors=_INK, labelsize=7)
    for spine in axes.spines.values():
        spine.set_edgecolor(_INK)


def _legend(layers: _Layers, names: Mapping[int, str], contour: str) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = []
    if layers.contour is not None:
        handles.append(Line2D([], [], color=TRUTH, lw=1.5, label=contour))
        if (layers.contour.data > 1).any():
            handles.append(Line2D([], [], color=_STRONG, lw=1.5, label=f"family-wise {contour}"))
    if layers.heatmap is not None and not np.isfinite(layers.heatmap.data).all():
        handles.append(Line2D([], [], color=_SCORED, lw=1, ls="dotted", label="scored region"))
    if layers.labels is not None:
        values = [int(value) for value in np.unique(layers.labels.data) if value > 0][:12]
        handles += [Patch(color=label_colour(value), label=names.get(value, f"label {value}")) for value in values]
    return handles


def _draw_legend(figure: Figure, handles: list[Line2D | Patch], width: float, height: float) -> None:
    if handles:
        place = (0.1 / width, 0.02 / height)
        figure.legend(
            handles=handles, loc="lower left", bbox_to_anchor=place, ncols=6, frameon=False, labelcolor=_INK, fontsize=8
        )


def grey_scale(image: Volume, channel: int) -> tuple[float, float]:
    """What is drawn black and white: the 1st and 99.5th percentile of the object, in the scan's intensities."""
    data = image.data[channel]
    values = data[tuple(slice(None, None, max(1, n // 96)) for n in data.shape)]
    values = values[np.isfinite(values)]
    if values.size == 0:
        return 0.0, 1.0
    # Air and the zeros of skull-stripped scans would otherwise decide the grey scale.
    object_ = values[values > values.min() + 0.02 * (np.percentile(values, 99.5) - values.min())]
    values = object_ if object_.size > 10 else values
    low, high = (float(v) for v in np.percentile(values, (1, 99.5)))
    low = min(low, float(values.min()) if low < 0.2 * high else low)
    return (low, high) if high > low else (low, low + 1)
