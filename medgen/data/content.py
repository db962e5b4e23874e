"""What the voxels of a file say it is, where its name does not: a label map, a copy of another scan without its skull.

No verdict on a scan alone: whoever asks compares it with its neighbours, since a cohort may hold label maps only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medgen.volume import Grid, Volume

# FreeSurfer's largest parcellations have about 200 numbers.
_MOST_LABELS = 300
# Share of labelled voxels whose neighbour has the same label: above 0.8 in thin structures, below 0.1 in noise.
_CONSTANT = 0.6
_SAMPLES = 2048
# Of the sampled voxels, how many must be kept and how many must have been removed before a scan counts as a copy.
_ENOUGH = 24


@dataclass(frozen=True, eq=False)
class Traits:
    """What is kept of a scan's content for comparisons.

    Attributes:
        grid: Where it lies.
        labels: Whether it looks like a label map.
        sample: Values of the first channel at places that depend on the shape alone, (2048,) float32.
    """

    grid: Grid
    labels: bool
    sample: NDArray[np.float32]


def traits(image: Volume) -> Traits:
    """What is kept of an image, (c, i, j, k)."""
    size = int(np.prod(image.grid.shape))
    places = np.linspace(0, size - 1, _SAMPLES).astype(np.int64)
    # Steps of one length would follow the axes.
    places = np.unique((places + (places * 2654435761) % max(1, size // _SAMPLES)) % size)
    sample = image.data[0][np.unravel_index(places, image.grid.shape)].astype(np.float32)
    return Traits(image.grid, looks_like_labels(image), sample)


def looks_like_labels(image: Volume) -> bool:
    """Whether an image, (c, i, j, k), has few whole numbers in connected pieces, as label maps have.

    >>> data = np.zeros((1, 8, 8, 8)); data[0, 2:6, 2:6, 2:6] = 3
    >>> looks_like_labels(Volume(data, Grid((8, 8, 8), np.eye(4))))
    True
    """
    if image.data.shape[0] != 1:
        return False
    data = image.data[0]
    low, high = float(data.min()), float(data.max())
    if low < -(1 << 31) or not np.isfinite(high) or high >= 1 << 31:
        return False
    if low == high:
        return low == 0
    # Most images are told by a few thousand voxels.
    some = data.ravel()[:: max(1, data.size // 50_000)]
    if data.dtype.kind == "f" and not np.array_equal(some, np.round(some)):
        return False
    if len(np.unique(some)) > _MOST_LABELS or (data.dtype.kind == "f" and not np.array_equal(data, np.round(data))):
        return False
    values, counts = np.unique(data, return_counts=True)
    # Some programs write -1, or another negative number, where nothing is labelled.
    labelled = data > 0 if low >= 0 else data != values[counts.argmax()]
    shares = []
    for axis in range(3):
        first = np.moveaxis(data, axis, 0)
        inside = np.moveaxis(labelled, axis, 0)[:-1]
        shares.append(float((first[:-1] == first[1:])[inside].mean()) if inside.any() else 0.0)
    # Slices may be thicker than what they cut.
    return len(values) <= _MOST_LABELS and float(np.mean(sorted(shares)[1:])) >= _CONSTANT


def is_stripped_copy(copy: Traits, whole: Traits) -> bool:
    """Whether a scan is another one with zeros around: equal where it is not 0, and 0 where the other is not."""
    if len(copy.sample) != len(whole.sample):
        return False
    kept = copy.sample != 0
    # Most pairs of scans end here.
    if not np.allclose(copy.sample[kept][:16], whole.sample[kept][:16], rtol=1e-3, atol=0):
        return False
    if not copy.grid.same_as(whole.grid):
        return False
    if kept.sum() < _ENOUGH or len(np.unique(copy.sample[kept])) < _ENOUGH // 3:
        return False
    removed = (whole.sample != 0) & ~kept
    return removed.sum() >= _ENOUGH and bool(np.allclose(copy.sample[kept], whole.sample[kept], rtol=1e-3, atol=0))
