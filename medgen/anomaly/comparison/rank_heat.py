"""Maps of any scale as heat: the normal quantile of a voxel's rank among healthy voxels.

Candidates are looked for above a heat of 2 and judged by half heights over the background
(:mod:`medgen.anomaly.findings.candidates`), which has a meaning for z alone. A raw residual, a probability and a z come
to one scale by the only thing they share, the order in which they put voxels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

from medgen.anomaly.findings.candidates import LOWEST_PEAK

# Every half-precision number by its bits.
_ALL = np.arange(1 << 16, dtype=np.uint16).view(np.float16)


class RankHeat:
    """Heat of the voxels of one row, from its voxels in healthy scans.

    A voxel that is as hot as or hotter than a share p of the n healthy voxels has the heat Φ⁻¹(p), ties in the middle,
    (r − ½) / n for the r-th. Between healthy voxels heat is interpolated. Beyond the hottest one ranks end; heat goes
    on along the straight line through the first voxel of heat 2 or more and the hottest, so that hotter voxels stay in
    order, and as far apart as on the row's own scale. Below the coolest one heat stays what it is there.

    Args:
        healthy: Voxel scores of the healthy scans, (v,) each, float16 and finite; at least one voxel.

    >>> heat = RankHeat([np.arange(1000, dtype=np.float16)])
    >>> [round(float(value), 2) for value in heat(np.array([0, 600, 999, 2000], np.float16))]
    [-3.29, 0.25, 3.29, 61.8]
    """

    def __init__(self, healthy: Sequence[NDArray[np.float16]]) -> None:
        values, counts = np.unique(np.concatenate(healthy).astype(np.float32), return_counts=True)
        share = (np.cumsum(counts) - counts / 2) / counts.sum()
        heat = special.ndtri(share)
        finite = np.isfinite(_ALL)
        every = np.where(finite, _ALL, 0).astype(np.float32)
        table = np.interp(every, values, heat)
        beyond = every > values[-1]
        table[beyond] = heat[-1] + _slope(values, heat) * (every[beyond] - values[-1])
        self._table = np.where(finite, table, np.nan).astype(np.float32)

    def __call__(self, values: NDArray[np.float16]) -> NDArray[np.float32]:
        """Heat of voxel scores of any shape."""
        return np.asarray(self._table[values.view(np.uint16)])


def _slope(values: NDArray[np.float32], heat: NDArray[np.float64]) -> float:
    """Heat per unit of the scores at the hot end of the healthy voxels; 1 where all are equal."""
    start = int(np.searchsorted(heat, LOWEST_PEAK))
    if start >= len(heat) - 1:
        # Fewer than 44 voxels, or ties at the hot end.
        start = 0
    rise = float(values[-1] - values[start])
    return float(heat[-1] - heat[start]) / rise if rise > 0 else 1.0
