"""Gaussian smoothing inside a mask: normalised convolution, so values outside neither leak in nor pull edges down."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def smooth(values: NDArray[Any], mask: NDArray[np.bool_], sigma: float) -> NDArray[np.float32]:
    """Masked Gaussian average G(v·m) / G(m).

    Args:
        values: (i, j, k), finite where ``mask`` is True.
        mask: (i, j, k) boolean.
        sigma: Standard deviation in voxels; 0 changes nothing inside the mask.

    Returns:
        (i, j, k) float32; 0 outside the mask. A constant inside the mask stays that constant.

    Source: Knutsson and Westin, "Normalized and differential convolution", CVPR 1993.
    """
    inside = np.where(mask, values, 0).astype(np.float32, copy=False)
    if sigma <= 0:
        return inside
    weight = ndimage.gaussian_filter(mask.astype(np.float32), sigma, mode="constant", truncate=3)
    total = ndimage.gaussian_filter(inside, sigma, mode="constant", truncate=3)
    # Inside the mask the weight is at least the kernel's centre; the floor only guards the division outside.
    return np.where(mask, total / np.maximum(weight, 1e-6), np.float32(0)).astype(np.float32, copy=False)
