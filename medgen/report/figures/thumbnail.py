"""A small picture of a scan with its heat or labels, for a list of many scans: kilobytes, drawn in milliseconds."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from scipy.ndimage import binary_dilation

from medgen.report.figures import planes
from medgen.report.figures.colours import heat_picture, label_picture
from medgen.report.figures.mosaic import LIMITS, TRUTH, grey_scale
from medgen.volume import Grid, Volume

# Pixels of the longer side, and colours: greys and the heat scale.
SIDE = 96
_COLOURS = 64


def thumbnail(
    image: Volume, heatmap: Volume, point: ArrayLike, channel: int = 0, outline: Volume | None = None
) -> bytes:
    """The axial slice through a point as a PNG, the heat over the grey scan, patient's right on the left.

    Args:
        image: Scan, (c, i, j, k), drawn on the grey scale of the large pictures.
        heatmap: Scores, NaN where there is none; on any grid of the same world.
        point: World point (RAS+ mm).
        channel: Channel of the image that is drawn.
        outline: What is outlined, above 0; on any grid of the same world.
    """
    grid, grey = _slice(image, point, channel)
    pixels = _over(grey, heat_picture(planes.cut(heatmap, grid), LIMITS))
    if outline is not None:
        inside = planes.cut(outline, grid, 0) > 0
        pixels[binary_dilation(inside) & ~inside] = to_rgb(TRUTH)
    return _png(pixels)


def labelled_thumbnail(image: Volume, labels: Volume, point: ArrayLike, channel: int = 0) -> bytes:
    """The axial slice through a point as a PNG, the labels outlined over the grey scan, patient's right on the left.

    Args:
        image: Scan, (c, i, j, k), drawn on the grey scale of the large pictures.
        labels: Label numbers, (1, i, j, k), 0 for background; on any grid of the same world.
        point: World point (RAS+ mm).
        channel: Channel of the image that is drawn.
    """
    grid, grey = _slice(image, point, channel)
    return _png(_over(grey, label_picture(planes.cut(labels, grid, 0))))


def _slice(image: Volume, point: ArrayLike, channel: int) -> tuple[Grid, NDArray[np.float64]]:
    """The grid of the slice, and its grey values in [0, 1]."""
    (grid,) = planes.slices(image.grid, "axial", 1, point, planes.bounding_box(image))
    low, high = grey_scale(image, channel)
    return grid, np.clip((np.nan_to_num(planes.cut(image, grid, channel=channel), nan=low) - low) / (high - low), 0, 1)


def _over(grey: NDArray[np.float64], colours: NDArray[np.float64]) -> NDArray[np.float64]:
    opacity = colours[..., 3:]
    pixels: NDArray[np.float64] = grey[..., None] * (1 - opacity) + colours[..., :3] * opacity
    return pixels


def _png(pixels: NDArray[np.float64]) -> bytes:
    picture = Image.fromarray(np.round(255 * pixels).astype(np.uint8))
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    buffer = io.BytesIO()
    picture.quantize(_COLOURS, dither=Image.Dither.NONE).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
