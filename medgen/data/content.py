"""What the voxels of a file say it is, where its name does not: a label map, a copy of another scan.

No verdict on a scan alone: whoever asks compares it with its neighbours, since a cohort may hold label maps only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

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
# Share of a scan's variance that a copy of it may not explain. Real rescans of one person, put on one grid by their
# headers, leave 0.7 and more unexplained.
_UNLIKE = 1e-4
# The variance that rounding to whole numbers adds, with half as much again, and the most that is put down to it.
_ROUNDED, _UNLIKE_AT_MOST = 1.5 / 12, 0.005
# Share of a scan's range within which values may have been rounded to one.
_SAME = 0.01
# Places at which all pairs of scans are compared first.
_GLANCE = 96
# Of these, so many are the same for all, and so many looks are taken at a time.
_COMMON, _AT_A_TIME = 256, 512


@dataclass(frozen=True, eq=False)
class Traits:
    """What is kept of a scan's content for comparisons.

    Attributes:
        grid: Where it lies.
        labels: Whether it looks like a label map.
        shape: Number of voxels along the axes of the body, in whichever order they are stored.
        sample: Values of the first channel at places of the body that depend on this shape alone, (n,) float64.
        whole: Whether these are whole numbers, as of a scan that was rounded.
    """

    grid: Grid
    labels: bool
    shape: tuple[int, ...]
    sample: NDArray[np.float64]
    whole: bool

    @cached_property
    def surroundings(self) -> tuple[float, ...]:
        """Values that may stand for "nothing here": the most frequent one, 0, and the lowest."""
        values, counts = np.unique(self.sample, return_counts=True)
        return tuple(dict.fromkeys([float(values[counts.argmax()]), 0.0, float(values[0])]))


def traits(image: Volume) -> Traits:
    """What is kept of an image, (c, i, j, k)."""
    data = image.data[0]
    axes = image.grid.axes
    # A copy may be stored from another corner, or with its axes in another order.
    data = np.flip(data, tuple(axis for axis, (_, sign) in enumerate(axes) if sign < 0))
    data = data.transpose(np.argsort([world for world, _ in axes]))
    places = np.linspace(0, data.size - 1, _SAMPLES).astype(np.int64)
    # Steps of one length would follow the axes.
    places = np.unique((places + (places * 2654435761) % max(1, data.size // _SAMPLES)) % data.size)
    sample = data[np.unravel_index(places, data.shape)].astype(np.float64)
    whole = bool(np.array_equal(sample, np.round(sample)))
    return Traits(image.grid, looks_like_labels(image), data.shape, sample, whole)


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


def label_map_words(image: Volume) -> str:
    """Why an image, (c, i, j, k), whose channels all look like label maps is no scan, in a sentence; else empty.

    For those who know that scans are expected here, and that this one is unlike them.
    """
    channels = [image.with_data(image.data[row : row + 1]) for row in range(len(image.data))]
    if not all(map(looks_like_labels, channels)):
        return ""
    return (
        "few whole numbers in connected pieces, as a label map has; expected a scan like those of the model; give the "
        "scan that it belongs to"
    )


def is_copy(one: Traits, other: Traits) -> bool:
    """Whether two scans are one, but for the order in which they are stored, a scale, an offset and rounding."""
    return one.shape == other.shape and _follows(one, other, np.ones(len(one.sample), bool))


def stripped_to(copy: Traits, whole: Traits) -> float | None:
    """What stands around a scan that is another one without its surroundings, such as 0; None if it is no such copy.

    Inside, it is the other scan but for what :func:`is_copy` allows.
    """
    if copy.shape != whole.shape:
        return None
    for value in copy.surroundings:
        kept = copy.sample != value
        emptied = whole.sample[~kept]
        # What is one value in the other scan, too, or was rounded to one, has not been removed.
        if len(emptied) < _ENOUGH:
            continue
        removed = np.abs(emptied - np.median(emptied)) > _SAME * np.ptp(whole.sample)
        if removed.sum() >= _ENOUGH and _follows(copy, whole, kept):
            return value
    return None


def _follows(copy: Traits, whole: Traits, kept: NDArray[np.bool_]) -> bool:
    """Whether one scan is a line through the other at some places."""
    if kept.sum() < _ENOUGH:
        return False
    x, y = whole.sample[kept], copy.sample[kept]
    # A line through two clusters is no likeness.
    if min(len(np.unique(x)), len(np.unique(y))) < _ENOUGH // 3:
        return False
    x, y = x - x.mean(), y - y.mean()
    xx, yy, xy = float(x @ x), float(y @ y), float(x @ y)
    if xy <= 0:
        return False
    # What rounding of either one makes of a copy, in units of its variance.
    rounded = sum(len(x) * _ROUNDED / square for own, square in ((whole, xx), (copy, yy)) if own.whole)
    return 1 - xy * xy / (xx * yy) <= max(_UNLIKE, min(rounded, _UNLIKE_AT_MOST))


def perhaps_copies(scans: Sequence[Traits]) -> list[tuple[int, int]]:
    """Pairs of scans, by their places in a list, of which the first may be a copy of the second, whole or stripped.

    A look at a few places of each that spares nearly all pairs of a large cohort the whole comparison. All pairs are
    looked at, in products of matrices: 10,000 scans of one shape take some ten seconds.
    """
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, own in enumerate(scans):
        groups[own.shape].append(index)
    pairs: set[tuple[int, int]] = set()
    for members in groups.values():
        if len(members) < 2:
            continue
        samples = np.stack([scans[index].sample for index in members])
        common = np.arange(0, samples.shape[1], max(1, samples.shape[1] // _COMMON))
        # Around 0, so that sums of squares lose no digits to the offset of the scale.
        seen = samples[:, common] - samples[:, common].mean(axis=1, keepdims=True)
        looks: list[tuple[int, NDArray[np.bool_]]] = []
        for place, index in enumerate(members):
            for kept in _kept_places(scans[index]):
                if kept[common].sum() >= _ENOUGH:
                    looks.append((place, kept[common]))
                elif kept.sum() >= _ENOUGH:
                    # Of a small organ too little is among the common places: at places of its own then.
                    pairs |= {(index, members[other]) for other in _alike(samples, place, kept)}
        for first in range(0, len(looks), _AT_A_TIME):
            some = looks[first : first + _AT_A_TIME]
            alike = _alike_at(seen, np.array([place for place, _ in some]), np.stack([kept for _, kept in some]))
            pairs |= {(members[some[look][0]], members[other]) for other, look in zip(*np.nonzero(alike), strict=True)}
    return sorted((copy, whole) for copy, whole in pairs if copy != whole)


def _kept_places(own: Traits) -> list[NDArray[np.bool_]]:
    """Where a scan may have something of another one: everywhere, or where its surroundings are not."""
    return [np.ones(len(own.sample), bool), *(own.sample != value for value in own.surroundings)]


def _alike(samples: NDArray[np.float64], place: int, kept: NDArray[np.bool_]) -> list[int]:
    """The rows of ``samples`` (n, places) that one of them follows where it is kept."""
    some = np.flatnonzero(kept)
    some = some[:: max(1, len(some) // _GLANCE)]
    found = _alike_at(samples[:, some], np.array([place]), np.ones((1, len(some)), bool))
    return [int(row) for row in np.flatnonzero(found[:, 0])]


def _alike_at(samples: NDArray[np.float64], places: NDArray[np.int64], kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether each row of ``samples`` (n, m) is about a line of row ``places[l]`` where ``kept[l]`` is, (n, looks)."""
    weight = kept.astype(np.float64).T
    own = samples[places].T * weight
    count, total = weight.sum(axis=0), own.sum(axis=0)
    own_spread = np.square(own).sum(axis=0) - total**2 / count
    sums = samples @ weight
    spread = np.square(samples) @ weight - sums**2 / count
    both = samples @ own - sums * total / count
    # What is one value there follows nothing: its spread is rounding.
    least = 1e-12 * (np.square(samples) @ weight) + 1e-30
    correlation = both / np.sqrt(np.maximum(spread, least) * np.maximum(own_spread, 1e-30))
    return np.asarray((correlation * abs(correlation) >= 1 - 2 * _UNLIKE_AT_MOST) & (spread > least))
