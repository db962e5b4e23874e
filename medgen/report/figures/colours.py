"""Colours of heat, differences and labels, the same in every picture."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import Colormap, LinearSegmentedColormap, ListedColormap, to_rgb
from numpy.typing import NDArray

# Distinct on grey also for colour-blind readers (Okabe and Ito).
_LABELS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#cc79a7", "#d55e00", "#0072b2", "#b8b8ff")

STEPS = 6
"""Flat steps of the colours of heat: with limits of 2 and 8 a colour stands for one z."""

_FAINTEST, _STRONGEST = 0.25, 0.95

# How opaque the outline of a label is.
_OUTLINE = 0.85


def heat_colours() -> Colormap:
    """Dark red to pale yellow: brightness grows with z, and none of it is grey."""
    return LinearSegmentedColormap.from_list("heat", mpl.colormaps["hot"](np.linspace(0.25, 0.93, 256)))


def difference_colours() -> Colormap:
    """Blue (darker than expected) over near-black (as expected) to orange (brighter): safe for colour-blind eyes."""
    ends = ["#9bdcff", "#2b8fd0", "#161b22", "#d97a1c", "#ffd27a"]
    return LinearSegmentedColormap.from_list("difference", ends)


def heat_steps() -> Colormap:
    """The colours of heat in :data:`STEPS` flat steps, as pictures have them."""
    return ListedColormap(heat_colours()(np.linspace(0, 1, STEPS)))


def heat_picture(heat: NDArray[Any], limits: tuple[float, float]) -> NDArray[np.float64]:
    """RGBA of a heatmap slice, in steps: transparent where NaN or below the lower limit, more opaque with rising z.

    What is a little above the lower limit is a veil that the scan shows through: there it takes more to be a finding.

    Args:
        heat: Scores, (rows, columns).
        limits: Lower and upper end of the colour scale.

    Returns:
        Array of shape (rows, columns, 4) in [0, 1].
    """
    share = np.clip((np.nan_to_num(heat, nan=-np.inf) - limits[0]) / (limits[1] - limits[0]), -1, 1)
    step = np.minimum(np.floor(np.clip(share, 0, 1) * STEPS), STEPS - 1) / (STEPS - 1)
    rgba = np.asarray(heat_colours()(step), dtype=np.float64)
    rgba[..., 3] = np.where(share >= 0, _FAINTEST + (_STRONGEST - _FAINTEST) * step, 0)
    return rgba


def label_picture(labels: NDArray[Any], tint: float = 0.16) -> NDArray[np.float64]:
    """Label numbers, (rows, columns), as colours, (rows, columns, 4) in [0, 1]: an outline over a tint.

    The scan shows through. The outline is one pixel wide: the pixels of a label that have another label, or background,
    below or to the right of them, or background on another side.

    Args:
        labels: Whole numbers, 0 for background, which is transparent.
        tint: How opaque the inside of a label is.
    """
    rgba = np.zeros((*labels.shape, 4))
    for value in np.unique(labels[labels > 0]):
        rgba[labels == value, :3] = to_rgb(label_colour(int(value)))
    around = np.pad(labels, 1, mode="edge")
    above, left, below, right = around[:-2, 1:-1], around[1:-1, :-2], around[2:, 1:-1], around[1:-1, 2:]
    edge = (labels != below) | (labels != right) | (above == 0) | (left == 0)
    rgba[..., 3] = np.where(labels > 0, np.where(edge, _OUTLINE, tint), 0)
    return rgba


def label_colour(value: int) -> str:
    """The colour of a label number from 1 on; they repeat after eight."""
    return _LABELS[(value - 1) % len(_LABELS)]
