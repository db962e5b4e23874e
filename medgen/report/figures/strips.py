"""Film strips and animated pictures: one scan as it changes, in radiological convention."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from PIL import Image

from medgen.report.figures import planes as geometry
from medgen.report.figures.colours import label_colour
from medgen.report.figures.mosaic import (
    _GAP,
    _INK,
    _WIDTH,
    _axes,
    _draw_legend,
    _figure,
    _Layers,
    _panel,
    grey_scale,
)
from medgen.volume import Grid, Volume

_FAR = "#ff8c42"
# Inches of captions and margins; of the animated picture its height, dots per inch, and milliseconds per frame.
_CAPTION, _MARGIN, _LEGEND = 0.22, 0.1, 0.36
_TALL, _DPI, _PACE = 2.2, 72, 120
# How the 256 colours of a GIF are chosen: others drop the few orange pixels of a mark among many greys.
_RARE = Image.Quantize.MAXCOVERAGE


@dataclass(frozen=True, eq=False)
class Frame:
    """One step of a walk.

    Attributes:
        image: What is drawn in grey, (c, i, j, k); None where there are labels alone.
        labels: Label numbers, (1, i, j, k), drawn as colours; or None.
        caption: What stands above it.
        far: Whether it is marked.
    """

    image: Volume | None
    labels: Volume | None
    caption: str
    far: bool = False


def film_strip(
    frames: Sequence[Frame], *, title: str = "", label_names: Mapping[int, str] | None = None, far: str = "far"
) -> Figure:
    """Steps from left to right: an axial, a coronal and a sagittal slice of each, through one point, in one grey scale.

    Args:
        frames: The steps, on one grid.
        title: One line above.
        label_names: Label → name.
        far: What the mark says, in the legend; left out where no step is marked.
    """
    layers, rows = _scene(frames)
    handles: list[Line2D | Patch] = [
        Patch(color=label_colour(value), label=(label_names or {}).get(value, f"label {value}"))
        for value in _labels_in(frames)
    ]
    if any(frame.far for frame in frames):
        handles.append(Patch(facecolor="none", edgecolor=_FAR, label=far))
    sizes = [geometry.same_extent([grid]) for grid in rows.values()]
    column = (_WIDTH - 2 * _MARGIN + _GAP) / max(len(frames), 4)
    scale = (column - _GAP) / max(across for across, _ in sizes)
    top, bottom = (0.36 if title else 0.05) + _CAPTION, _LEGEND if handles else _MARGIN
    width = 2 * _MARGIN + column * len(frames) - _GAP
    height = top + bottom + sum(down * scale + _GAP for _, down in sizes)
    figure = _figure(width, height)
    y = height - top
    for row, ((view, grid), (across, down)) in enumerate(zip(rows.items(), sizes, strict=True)):
        y -= down * scale
        for number, layer in enumerate(layers):
            x = _MARGIN + number * column + (column - _GAP - across * scale) / 2
            axes = _axes(figure, x, y, across * scale, down * scale)
            ruler = _ruler_of(sizes) if number == 0 and row == 0 else 0
            _panel(axes, layer, grid, view, ruler=ruler, place=number == 0)
        y -= _GAP
    for number, frame in enumerate(frames):
        middle = (_MARGIN + number * column + (column - _GAP) / 2) / width
        style: dict[str, Any] = {"color": _FAR if frame.far else _INK, "fontsize": 8, "ha": "center", "va": "center"}
        figure.text(middle, (height - top + _CAPTION / 2) / height, frame.caption, **style)
        if frame.far:
            left, foot = _MARGIN + number * column - _GAP / 2, bottom
            place = (left / width, foot / height)
            _frame(figure, place, column / width, (height - top - bottom + _CAPTION) / height)
    if title:
        figure.text(_MARGIN / width, 1 - 0.18 / height, title, color=_INK, fontsize=11, va="center", weight="bold")
    _draw_legend(figure, handles, width, height)
    return figure


def animation(frames: Sequence[Frame]) -> bytes:
    """A GIF that goes through the steps and back, without end: three slices beside each other, the caption above."""
    layers, rows = _scene(frames)
    sizes = [geometry.same_extent([grid]) for grid in rows.values()]
    scale = _TALL / max(down for _, down in sizes)
    width = 2 * _MARGIN + sum(across * scale + _GAP for across, _ in sizes) - _GAP
    height = _MARGIN + _TALL + _CAPTION + 0.08
    pictures = []
    for layer, frame in zip(layers, frames, strict=True):
        figure = _figure(width, height)
        x = _MARGIN
        for (view, grid), (across, down) in zip(rows.items(), sizes, strict=True):
            axes = _axes(figure, x, _MARGIN + (_TALL - down * scale) / 2, across * scale, down * scale)
            _panel(axes, layer, grid, view, place=False)
            x += across * scale + _GAP
        colour = _FAR if frame.far else _INK
        figure.text(
            _MARGIN / width, 1 - (_CAPTION / 2 + 0.04) / height, frame.caption, color=colour, fontsize=9, va="center"
        )
        if frame.far:
            _frame(figure, (0.006, 0.006), 0.988, 0.988, 3.0)
        figure.set_dpi(_DPI)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[..., :3]
        pictures.append(Image.fromarray(np.ascontiguousarray(pixels)).quantize(256, _RARE, dither=Image.Dither.NONE))
    there_and_back = [*pictures, *pictures[-2:0:-1]]
    buffer = io.BytesIO()
    there_and_back[0].save(
        buffer, format="GIF", save_all=True, append_images=there_and_back[1:], duration=_PACE, loop=0, disposal=1
    )
    return buffer.getvalue()


def _scene(frames: Sequence[Frame]) -> tuple[list[_Layers], dict[str, Grid]]:
    """What is drawn of every step, in one grey scale, and the slice of every view."""
    given = [frame.image or frame.labels for frame in frames]
    known = [volume for volume in given if volume is not None]
    if len(known) != len(frames) or not frames:
        raise ValueError("expected at least one step, each with an image or labels")
    grid = known[0].grid
    images = [frame.image.data[:1] for frame in frames if frame.image is not None]
    # Of all steps together: the one with the widest range must not make the others grey.
    together = np.concatenate(images, axis=1) if images else np.zeros((1, 2, 2, 2), np.float32)
    window = grey_scale(Volume(together, Grid(together.shape[1:], np.eye(4))), 0)
    black = Volume(np.zeros((1, *grid.shape), np.float32), grid)
    layers = [
        _Layers(frame.image or black, window, labels=frame.labels, tint=0.16 if frame.image else 1.0)
        for frame in frames
    ]
    point = _middle(frames, grid)
    return layers, {view: geometry.slices(grid, view, 1, point)[0] for view in geometry.VIEWS}


def _middle(frames: Sequence[Frame], grid: Grid) -> np.ndarray:
    """The point that slices go through: the middle of the labels of all steps, else that of the grid."""
    marked = np.zeros(grid.shape)
    for frame in frames:
        if frame.labels is not None:
            marked += frame.labels.data[0] > 0
    if not marked.any():
        return grid.center
    voxels = [
        np.average(np.arange(size), weights=marked.sum(axis=tuple(a for a in range(3) if a != axis)))
        for axis, size in enumerate(grid.shape)
    ]
    return grid.to_world(np.array(voxels))


def _labels_in(frames: Sequence[Frame]) -> list[int]:
    found = {int(value) for frame in frames if frame.labels is not None for value in np.unique(frame.labels.data)}
    return sorted(found - {0})[:12]


def _ruler_of(sizes: Sequence[tuple[float, float]]) -> int:
    widest = max(across for across, _ in sizes)
    return max((mm for mm in (1, 2, 5, 10, 20, 50, 100) if mm <= 0.3 * widest), default=1)


def _frame(figure: Figure, corner: tuple[float, float], width: float, height: float, line: float = 1.5) -> None:
    style: dict[str, Any] = {"fill": False, "edgecolor": _FAR, "linewidth": line, "zorder": 10}
    figure.add_artist(Rectangle(corner, width, height, transform=figure.transFigure, **style))
