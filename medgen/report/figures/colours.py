"""Colours of heat, differences and labels, the same in every picture."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import Colormap, LinearSegmentedColormap, to_rgb
from numpy.typing import NDArray

# Distinct on grey also for colour-blind readers (Okabe and Ito).
_LABELS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#cc79a7", "#d55e00", "#0072b2", "#b8b8ff")


def heat_colours() -> Colormap:
    """Dark red to pale yellow: brightness grows with z, and none of it is grey."""
    return LinearSegmentedColormap.from_list("heat", mpl.colormaps["hot"](np.linspace(0.25, 0.93, 256)))


def difference_colours() -> Colormap:
    """Blue (darker than expected) over near-black (as expected) to orange (brighter): safe for colour-blind eyes."""
    ends = ["#9bdcff", "#2b8fd0", "#161b22", "#d97a1c", "#ffd27a"]
    return LinearSegmentedColormap.from_list("difference", ends)


def heat_picture(heat: NDArray[Any], limits: tuple[float, float]) -> NDArray[np.float64]:
    """RGBA of a heatmap slice: transparent where NaN or below the lower limit, more opaque with rising z.

    Args:
        heat: Scores, (rows, columns).
        limits: Lower and upper end of the colour scale.

    Returns:
        Array of shape (rows, columns, 4) in [0, 1].
    """
    share = np.clip((np.nan_to_num(heat, nan=-np.inf) - limits[0]) / (limits[1] - limits[0]), -1, 1)
    rgba = np.asarray(heat_colours()(np.clip(share, 0, 1)), dtype=np.float64)
    rgba[..., 3] = np.where(share >= 0, 0.55 + 0.4 * np.clip(share, 0, 1), 0)
    return rgba


def label_picture(labels: NDArray[Any]) -> NDArray[np.float64]:
    """Label numbers, (i, j), as colours, (i, j, 4) in [0, 1]; background is transparent."""
    rgba = np.zeros((*labels.shape, 4))
    for value in np.unique(labels[labels > 0]):
        rgba[labels == value] = (*to_rgb(label_colour(int(value))), 0.5)
    return rgba


def label_colour(value: int) -> str:
    """The colour of a label number from 1 on; they repeat after eight."""
    return _LABELS[(value - 1) % len(_LABELS)]
