"""How near a reconstruction is to its scan, inside the patient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def psnr(x: NDArray[Any], y: NDArray[Any], mask: NDArray[np.bool_], data_range: float = 1.0) -> float:
    """Peak signal-to-noise ratio in decibels, 10 log₁₀(range² / mean squared error), of the voxels of a mask.

    Model intensities have a range of 1: the 1st and 99th percentile of a scan's foreground are 0 and 1.

    >>> x = np.zeros((1, 4, 4, 4))
    >>> round(psnr(x, x + 0.1, np.ones((4, 4, 4), dtype=bool)), 6)
    20.0

    Args:
        x: Scan, (c, i, j, k).
        y: Its reconstruction, of the same shape.
        mask: (i, j, k).
        data_range: What counts as the whole range of intensities.

    Returns:
        Decibels; infinite where the two agree, NaN for an empty mask.
    """
    error = float(np.square(x[:, mask].astype(np.float64) - y[:, mask]).mean()) if mask.any() else math.nan
    if math.isnan(error):
        return math.nan
    return 10 * math.log10(data_range**2 / error) if error else math.inf


def ssim(x: NDArray[Any], y: NDArray[Any], mask: NDArray[np.bool_], data_range: float = 1.0) -> float:
    """Structural similarity (Wang et al. 2004) in cubes of 7 voxels, averaged over the voxels of a mask and channels.

    Args:
        x: Scan, (c, i, j, k), at least 7 voxels along every axis.
        y: Its reconstruction, of the same shape.
        mask: (i, j, k).
        data_range: What counts as the whole range of intensities.

    Returns:
        1 where the two agree; NaN for an empty mask.
    """
    from skimage.metrics import structural_similarity

    if not mask.any():
        return math.nan
    # Outside the mask both count as equal, so that what lies there says nothing at its rim.
    pairs = zip(x * mask, y * mask, strict=True)
    maps = [structural_similarity(a, b, win_size=7, data_range=data_range, full=True)[1] for a, b in pairs]
    return float(np.mean([found[mask] for found in maps]))
