"""Scan scores that are statistics of a heatmap, on the grid that the heatmap is written on.

Calibration scans and new scans go the same way: fused on the model grid, brought to the scan's own grid in one
resample, and measured there. So each score can be read off the heatmap's file again, and the hottest voxel of the file
is the one that decides whether there is a finding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.metrics.neighbourhood import connected_parts
from medgen.preprocessing.prepared import PreparedScan
from medgen.preprocessing.recipe import Preprocess
from medgen.volume import Volume

# One in 44 healthy voxels is hotter: low enough to hold an anomaly together, high enough to keep regions apart.
CLUSTER_HEAT = 2.0


def to_own_grid(
    values: NDArray[Any], region: NDArray[np.bool_], prepared: PreparedScan, preprocess: Preprocess
) -> Volume:
    """A map on the model grid, brought to the scan's own grid: linear, NaN where the model does not score.

    Args:
        values: (i, j, k) on the model grid.
        region: Where it is scored, same shape.
        prepared: The scan on the model grid, which knows the way back.
        preprocess: The recipe that it was prepared by.
    """
    return preprocess.restore(np.where(region, values, np.float32(np.nan)), prepared, order=1, fill=np.nan)


def truth_on_own_grid(truth: NDArray[np.bool_], prepared: PreparedScan, preprocess: Preprocess) -> Volume:
    """A mask on the model grid as 0 and 1 (uint8) on the scan's own grid, nearest neighbour."""
    return preprocess.restore(truth.astype(np.uint8), prepared, order=0, fill=0)


def heat_scores(heatmap: Volume, top_fraction: float) -> dict[str, float]:
    """The scan scores of a heatmap.

    Args:
        heatmap: One channel, z against healthy, NaN where not scored.
        top_fraction: Share of the scored voxels in ``top``.

    Returns:
        ``top`` (mean of the hottest voxels), ``max`` (the hottest), ``mean``, and ``cluster``: heat above 2 summed over
        the connected region (26 neighbours) above 2 where that sum is largest, in z times ml, so that it does not
        depend on the voxel size (Bullmore et al., "Global, voxel, and cluster tests, by theory and permutation", IEEE
        TMI 1999). −inf, and 0 for ``cluster``, where nothing is scored.
    """
    data = heatmap.data[0]
    inside = data[np.isfinite(data)]
    if not inside.size:
        return {"top": -np.inf, "max": -np.inf, "mean": -np.inf, "cluster": 0.0}
    count = max(1, round(top_fraction * inside.size))
    return {
        "top": float(np.partition(inside, -count)[-count:].mean(dtype=np.float64)),
        "max": float(inside.max()),
        "mean": float(inside.mean(dtype=np.float64)),
        "cluster": _cluster_mass(data) * heatmap.grid.voxel_volume / 1000,
    }


def _cluster_mass(data: NDArray[np.float32]) -> float:
    excess = np.maximum(np.nan_to_num(data, nan=-np.inf) - CLUSTER_HEAT, 0)
    labels, count = connected_parts(excess > 0)
    return float(np.bincount(labels.ravel(), weights=excess.ravel(), minlength=2)[1:].max()) if count else 0.0
