"""What counts as touching: voxels that share a face, an edge or a corner (26 neighbours), the same everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

TOUCHING = np.ones((3, 3, 3))


def connected_parts(mask: NDArray[Any]) -> tuple[NDArray[np.int32], int]:
    """Connected parts of a mask (i, j, k), numbered from 1 with 0 outside, and how many there are.

    >>> connected_parts(np.eye(3)[None].astype(bool))[1]
    1
    """
    parts, count = ndimage.label(mask, structure=TOUCHING)
    return parts, int(count)
