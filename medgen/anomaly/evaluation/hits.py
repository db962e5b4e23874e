"""Whether a candidate finds an anomaly: the one rule of all evaluations of findings."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medgen.anomaly.findings.candidates import Candidates
from medgen.metrics.neighbourhood import TOUCHING
from medgen.volume import Volume

RULE = (
    "A finding hits an implant if its peak lies in the implant or touches it (one voxel), or if a voxel of its "
    "outlined part lies in it."
)


def hits_of(candidates: Candidates, heatmap: Volume, truth: NDArray[np.bool_], threshold: float) -> NDArray[np.bool_]:
    """Which candidates hit an anomaly, (m,); see :data:`RULE`.

    Args:
        candidates: Candidates of the heatmap, m of them.
        heatmap: One channel, NaN where not scored.
        truth: (i, j, k), the anomaly on the heatmap's grid.
        threshold: Heat (z) of findings.
    """
    found = np.zeros(len(candidates.heat), dtype=bool)
    if not truth.any():
        return found
    found |= _touch(candidates.voxels, truth)
    inside = candidates.parts(heatmap, threshold)[truth]
    found[np.unique(inside[inside > 0]).astype(np.int64) - 1] = True
    return found


def found_up_to(candidates: Candidates, heatmap: Volume, truth: NDArray[np.bool_]) -> float:
    """The heat below which every threshold has a finding on the anomaly, −inf if none has.

    A lower threshold only ever adds findings and enlarges what is outlined of them, so one number says at which
    thresholds :func:`hits_of` has a candidate that is hot enough to be a finding and hits. Where the peak itself does
    not touch the anomaly, it is the lowest heat on the best way from the peak to it inside the outlined part.

    Args:
        candidates: Candidates of the heatmap.
        heatmap: One channel, NaN where not scored.
        truth: (i, j, k), the anomaly on the heatmap's grid.

    >>> from medgen.anomaly.findings.candidates import candidates_of
    >>> from medgen.volume import Grid
    >>> heat = np.zeros((1, 9, 3, 3), np.float32)
    >>> heat[0, :, 1, 1] = 0, 3, 6, 9, 6, 5, 0, 0, 0
    >>> lesion = np.zeros((9, 3, 3), bool)
    >>> lesion[5, 1, 1] = True
    >>> volume = Volume(heat, Grid((9, 3, 3), np.eye(4)))
    >>> found_up_to(candidates_of(volume, separation_mm=10), volume, lesion)
    5.0
    """
    if not truth.any():
        return -math.inf
    values = heatmap.data[0]
    touching = _touch(candidates.voxels, truth)
    best = float(candidates.heat[touching].max(initial=-math.inf))
    owner, there = candidates.labels[truth], values[truth]
    for number in np.unique(owner[owner > 0]).tolist():
        if not touching[number - 1] and there[owner == number].max() > best:
            best = max(best, _reached(candidates, number, values, truth, best))
    return best


def _reached(
    candidates: Candidates, number: int, values: NDArray[np.floating], truth: NDArray[np.bool_], least: float
) -> float:
    """The lowest heat on the best way from a candidate's peak to the anomaly; −inf if it is below ``least``.

    The way leads through what can be outlined of the candidate. The best ways to all voxels are the peak's
    morphological reconstruction by dilation under the map (Vincent, IEEE Transactions on Image Processing 1993).
    """
    from skimage.morphology import reconstruction

    heat = float(candidates.heat[number - 1])
    level = np.float32(max(min((candidates.background + heat) / 2, heat), least))
    outlined = (candidates.labels == number) & (values >= level)
    (box,) = ndimage.find_objects(outlined.view(np.int8))
    outside = float(level) - 1.0
    under = np.where(outlined[box], values[box], outside)
    peak = np.full(under.shape, outside)
    place = tuple(candidates.voxels[number - 1] - [axis.start for axis in box])
    peak[place] = under[place]
    ways = reconstruction(peak, under, footprint=TOUCHING)[truth[box]]
    return float(ways[ways > outside].max(initial=-math.inf))


def _touch(voxels: NDArray[np.int64], truth: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which voxels (m, 3) lie in a mask with at least one voxel, or touch it, (m,)."""
    (box,) = ndimage.find_objects(truth.view(np.int8))
    start = np.array([axis.start for axis in box]) - 1
    grown = ndimage.binary_dilation(np.pad(truth[box], 1), structure=TOUCHING)
    inside = ((voxels >= start) & (voxels < start + grown.shape)).all(axis=1)
    found = np.zeros(len(voxels), dtype=bool)
    found[inside] = grown[tuple((voxels[inside] - start).T)]
    return found
