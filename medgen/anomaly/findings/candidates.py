"""Candidate findings: the peaks of a heatmap that stand apart, the same on calibration scans and on new ones.

A peak is a voxel that is hotter than its 26 neighbours. It is a candidate of its own unless a hotter one speaks for it:

* by a bridge: on the way up to something hotter, the heat never falls below half of the peak's own height over
  the scan's background (the key saddle of topography; Grimaud's dynamics of a maximum, 1992). So a large lesion
  with many peaks on one plateau is one candidate.
* by nearness: a candidate that is hotter lies within ``separation_mm``. So the speckle around a peak is no list of its
  own.

Nothing of this depends on a threshold: a candidate exists or not, and has a strength, the heat of its peak. Raising a
threshold therefore only ever takes candidates away, which is what makes their number per healthy scan a risk that can
be controlled (:mod:`medgen.anomaly.findings.false_findings`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medgen.metrics.neighbourhood import connected_parts
from medgen.volume import Grid, Volume

LOWEST_PEAK = 2.0
"""Peaks must be above this heat (z) to be candidates: one in 44 healthy voxels is as hot, and every scan has dozens."""

BRIDGE = 0.5
"""Share of a peak's height over the background that a way to something hotter must keep to make both one candidate."""

# Voxels below this heat (z) belong to no candidate: half the height of the lowest peak over a background of 0.
_LOWEST_VOXEL = LOWEST_PEAK / 2


@dataclass(frozen=True, eq=False)
class Candidates:
    """The candidates of one scan, strongest first.

    Attributes:
        heat: (m,) heat (z) of the peaks, falling, float64.
        voxels: (m, 3) their voxels (i, j, k) in the heatmap, from 0.
        labels: (i, j, k) integers: the candidate that a voxel belongs to, from 1 in the order of ``heat``; 0 for none.
        background: Median heat of the scored voxels.
    """

    heat: NDArray[np.float64]
    voxels: NDArray[np.int64]
    labels: NDArray[np.integer]
    background: float

    def parts(self, heatmap: Volume, threshold: float) -> NDArray[np.integer]:
        """What is outlined of each candidate, (i, j, k): its number, 0 elsewhere.

        It is what is hotter than the threshold and at least half as far above the background as the candidate's peak,
        in one piece around the peak: in a scan that is hot all over, the threshold alone would outline the whole organ.

        Args:
            heatmap: The heatmap of the candidates.
            threshold: Heat (z) of findings.

        >>> heat = np.zeros((1, 9, 3, 3), np.float32)
        >>> heat[0, :, 1, 1] = 0, 3, 6, 9, 6, 3, 0, 0, 0
        >>> found = candidates_of(Volume(heat, Grid((9, 3, 3), np.eye(4))), separation_mm=10)
        >>> [int((found.parts(Volume(heat, Grid((9, 3, 3), np.eye(4))), level) > 0).sum()) for level in (2, 7)]
        [3, 1]
        """
        # A peak that is cooler than most of its scan has itself.
        level = np.maximum(threshold, np.minimum((self.background + self.heat) / 2, self.heat))
        values = np.nan_to_num(heatmap.data[0], nan=-np.inf)
        # In the heatmap's own precision: a level rounded to a coarser one could lie above the peak that it is of.
        own = np.concatenate([[np.inf], level]).astype(values.dtype)[self.labels]
        inside = np.where((values > threshold) & (values >= own), self.labels, 0).astype(self.labels.dtype)
        for number, box in enumerate(ndimage.find_objects(inside, max_label=len(self.heat)), start=1):
            if box is not None:
                whole = inside[box] == number
                pieces, count = connected_parts(whole)
                if count > 1:
                    peak = tuple(self.voxels[number - 1] - [axis.start for axis in box])
                    inside[box][whole & (pieces != pieces[peak])] = 0
        return inside


def candidates_of(heatmap: Volume, separation_mm: float) -> Candidates:
    """The candidates of a heatmap.

    Voxels are given to peaks by steepest ascent over 26 neighbours, and the peaks' voxels to the candidate that speaks
    for them. Equal heats are told apart by the order of the file.

    Args:
        heatmap: One channel, z against healthy, NaN where not scored.
        separation_mm: Distance in mm of the scan's space within which a hotter candidate speaks for a peak.

    >>> grid = Grid((30, 5, 5), np.eye(4))
    >>> heat = np.zeros((1, 30, 5, 5), np.float32)
    >>> heat[0, [2, 6, 25], 2, 2] = 5, 4, 3
    >>> found = candidates_of(Volume(heat, grid), separation_mm=10)
    >>> found.heat.tolist(), found.voxels[:, 0].tolist()
    ([5.0, 3.0], [2, 25])
    """
    values = heatmap.data[0]
    finite = np.isfinite(values)
    background = float(np.median(values[finite])) if finite.any() else 0.0
    labels = np.zeros(values.shape, dtype=np.int32)
    basins = _basins(values)
    if not len(basins.peaks):
        return Candidates(np.zeros(0), np.zeros((0, 3), dtype=np.int64), labels, background)
    voxels = np.stack(np.unravel_index(basins.peaks, values.shape), axis=1).astype(np.int64)
    heat = values.ravel()[basins.peaks].astype(np.float64)
    owner = _owners(heat, voxels, basins, heatmap.grid, background, separation_mm)
    chosen = np.flatnonzero(owner == np.arange(len(owner)))
    number = np.zeros(len(owner) + 1, dtype=np.int32)
    number[chosen] = np.arange(1, len(chosen) + 1)
    # The last place is that of peaks that belong to none.
    labels.ravel()[basins.voxels] = number[owner][basins.basin]
    return Candidates(heat[chosen], voxels[chosen], labels, background)


@dataclass(frozen=True, eq=False)
class _Basins:
    """The peaks of a map, hottest first, and what lies between them.

    Attributes:
        voxels: (v,) flat index of every voxel that is hot enough.
        basin: (v,) the peak that steepest ascent leads to, from 0.
        peaks: (p,) flat index of every peak.
        saddle: (p,) heat of the highest pass to something hotter; −inf if there is none.
        above: (p,) the hottest peak beyond that pass; −1 if there is none.
    """

    voxels: NDArray[np.int64]
    basin: NDArray[np.int64]
    peaks: NDArray[np.int64]
    saddle: NDArray[np.float64]
    above: NDArray[np.int64]


def _basins(values: NDArray[np.floating]) -> _Basins:
    """Peaks and passes by one sort of the hot voxels and look-ups of their neighbours: no loop over voxels."""
    # As files hold it: its bits then sort as it does.
    padded = np.pad(np.asarray(values, dtype=np.float32), 1, constant_values=-np.inf)
    hot = np.flatnonzero(padded >= _LOWEST_VOXEL)
    heat = padded.ravel()[hot]
    count = len(hot)
    # Hottest first, then in the order of the file; ranks from 1 (coolest), 0 is "not hot".
    order = np.sort((-heat.view(np.int32)).astype(np.int64) << 32 | np.arange(count)) & 0xFFFFFFFF
    rank = np.empty(count, dtype=np.int32)
    rank[order] = np.arange(count, 0, -1, dtype=np.int32)
    everywhere = np.zeros(padded.shape, dtype=np.int32)
    everywhere.ravel()[hot] = rank
    up = order[count - _highest_around(everywhere).ravel()[hot]]
    while not np.array_equal(further := up[up], up):
        up = further
    # A peak leads to itself. Numbered by falling heat.
    peaks = order[up[order] == order]
    number = np.zeros(count, dtype=np.int64)
    number[peaks] = np.arange(len(peaks))
    basin = number[up]
    basins = np.full(padded.size, -1, dtype=np.int32)
    basins[hot] = basin
    keys, heights = [], []
    for step in (int(np.dot(step, padded.strides)) // padded.itemsize for step in product((-1, 0, 1), repeat=3)):
        if step > 0:
            there = basins[hot + step]
            pass_ = np.flatnonzero((there >= 0) & (there != basin))
            first, second = basin[pass_], there[pass_].astype(np.int64)
            keys.append(np.minimum(first, second) * len(peaks) + np.maximum(first, second))
            heights.append(np.minimum(rank[pass_], everywhere.ravel()[hot[pass_] + step]))
    saddle, above = _passes(np.concatenate(keys), np.concatenate(heights), len(peaks))
    height = np.where(saddle > 0, heat[order[count - np.maximum(saddle, 1)]] if count else 0.0, -np.inf)
    place = np.stack(np.unravel_index(hot, padded.shape)) - 1
    flat = np.ravel_multi_index(tuple(place), values.shape) if count else hot
    return _Basins(flat, basin, flat[peaks], height, above)


def _highest_around(ranks: NDArray[np.int32]) -> NDArray[np.int32]:
    """The highest of every voxel and its 26 neighbours, (i, j, k), for ranks with an edge of zeros."""
    for axis in range(ranks.ndim):
        along = np.moveaxis(ranks, axis, 0)
        ranks = ranks.copy()
        highest = np.moveaxis(ranks, axis, 0)
        np.maximum(highest[1:], along[:-1], out=highest[1:])
        np.maximum(highest[:-1], along[1:], out=highest[:-1])
    return ranks


def _passes(
    keys: NDArray[np.int64], heights: NDArray[np.int32], peaks: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rank of the highest pass from each peak to something hotter, 0 for none, and the hottest peak beyond it.

    Basins are joined from the highest pass downwards (Kruskal); where two groups meet, the cooler group's hottest peak
    has found its pass. ``keys`` hold the two basins of every contact, ``heights`` its rank.
    """
    saddle, above = np.zeros(peaks, dtype=np.int64), np.full(peaks, -1, dtype=np.int64)
    keys, which = np.unique(keys, return_inverse=True)
    highest = np.zeros(len(keys), dtype=np.int32)
    np.maximum.at(highest, which, heights)
    parent = list(range(peaks))

    def top(peak: int) -> int:
        while parent[peak] != peak:
            parent[peak] = parent[parent[peak]]
            peak = parent[peak]
        return peak

    falling = np.argsort(-highest, kind="stable")
    for key, height in zip(keys[falling].tolist(), highest[falling].tolist(), strict=True):
        hotter, cooler = sorted((top(key // peaks), top(key % peaks)))
        if hotter != cooler:
            parent[cooler] = hotter
            saddle[cooler], above[cooler] = height, hotter
    return saddle, above


def _owners(
    heat: NDArray[np.float64],
    voxels: NDArray[np.int64],
    basins: _Basins,
    grid: Grid,
    background: float,
    separation_mm: float,
) -> NDArray[np.int64]:
    """The candidate that speaks for each peak, itself if it is one; −1 for none."""
    points = np.asarray(grid.to_world(voxels))
    bridged = basins.saddle >= background + BRIDGE * (heat - background)
    owner = np.full(len(heat), -1, dtype=np.int64)
    chosen: list[int] = []
    for peak in range(len(heat)):
        above = int(basins.above[peak])
        if above >= 0 and bridged[peak] and owner[above] >= 0:
            owner[peak] = owner[above]
            continue
        if chosen:
            away = np.linalg.norm(points[chosen] - points[peak], axis=1)
            if away.min() <= separation_mm:
                owner[peak] = chosen[int(away.argmin())]
                continue
        # Above it, not at it: where the threshold of findings is as low, a finding has a voxel above the threshold.
        if heat[peak] > LOWEST_PEAK:
            owner[peak] = peak
            chosen.append(peak)
    return owner
