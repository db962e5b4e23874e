"""Pictures of grey scans with coloured overlays as PNGs of half the size: a palette of greys and of their colours."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

# Of 256 colours so many are evenly spaced greys: no grey of a scan moves by more than 2.1 of 255.
_GREYS = 64
# Channels of what counts as grey differ by this much at most, of 255.
_TINT = 8
# How much more a frequent colour weighs than a rare one: the thin outline of a lesion must stay, beside much heat.
_WEIGHT = 0.3


def small_png(figure: Figure | bytes) -> bytes:
    """A figure, or the bytes of a PNG, as a PNG of 256 colours, equal for equal pictures.

    Greys, which nearly all of a scan is, keep their brightness; other colours are gathered into groups by median cut
    and k-means (Heckbert, "Color image quantization for frame buffer display", SIGGRAPH 1982).
    """
    pixels = _drawn(figure)
    flat = pixels.reshape(-1, 3)
    grey = np.ptp(flat.astype(np.int16), axis=1) <= _TINT
    step = 255 / (_GREYS - 1)
    index = np.round(flat.mean(axis=1) / step).astype(np.uint8)
    palette = np.repeat(np.round(np.arange(_GREYS) * step)[:, None], 3, axis=1).astype(np.uint8)
    if not grey.all():
        colours, which = _groups(flat[~grey], 256 - _GREYS)
        index[~grey] = _GREYS + which
        palette = np.concatenate([palette, colours])
    picture = Image.fromarray(index.reshape(pixels.shape[:2]))
    picture.putpalette(palette.ravel().tolist())
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _drawn(figure: Figure | bytes) -> NDArray[np.uint8]:
    """The pixels (rows, columns, 3) of a figure as :func:`medgen.report.html.png` draws it, without a file between."""
    if isinstance(figure, bytes):
        return np.asarray(Image.open(io.BytesIO(figure)).convert("RGB"))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def _groups(pixels: NDArray[np.uint8], count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """At most ``count`` colours, (m, 3), and which of them is nearest to each of the pixels, (n, 3) → (n,)."""
    coarse = (pixels >> 3).astype(np.int32)
    _, which, sizes = np.unique(
        coarse[:, 0] << 10 | coarse[:, 1] << 5 | coarse[:, 2], return_inverse=True, return_counts=True
    )
    sums = [np.bincount(which, weights=pixels[:, channel]) for channel in range(3)]
    means = np.round(np.stack(sums, axis=1) / sizes[:, None]).astype(np.uint8)
    weighted = np.repeat(means, np.ceil(sizes**_WEIGHT).astype(int), axis=0)
    found = Image.fromarray(weighted[None]).quantize(count, kmeans=3, dither=Image.Dither.NONE)
    colours = np.reshape(found.getpalette() or [], (-1, 3))[:count].astype(np.uint8)
    away = (means[:, None].astype(np.int32) - colours[None].astype(np.int32)) ** 2
    return colours, away.sum(axis=-1).argmin(axis=1).astype(np.uint8)[which]
