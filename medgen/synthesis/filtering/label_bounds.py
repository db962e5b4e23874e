"""What labels are like in the real training scans: size, parts, place, brightness and neighbours, each with a bound."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medgen.errors import DataError
from medgen.metrics.neighbourhood import connected_parts
from medgen.preprocessing.dataset import Dataset

# Brightness of a label: these percentiles of its voxels, per channel.
PERCENTILES = (10, 50, 90)
# Labels nearer than this (largest step along an axis, in voxels) are beside each other, if they do not touch.
_BESIDE = 2


class Limits(Protocol):
    """Settings that bounds depend on, see :class:`medgen.synthesis.filtering.filter.FilterConfig`."""

    @property
    def volume_sd(self) -> float:
        """Standard deviations of log volume."""
        ...

    @property
    def component_margin(self) -> float:
        """Slack of the largest component's share."""
        ...

    @property
    def centroid_factor(self) -> float:
        """Factor on the largest real distance of a centroid."""
        ...

    @property
    def intensity_sd(self) -> float:
        """Standard deviations of the brightness percentiles."""
        ...


@dataclass(frozen=True)
class LabelBounds:
    """Limits of one label's size, place and brightness, measured on the real training scans.

    Attributes:
        log_volume: Lowest and highest natural logarithm of the volume in voxels.
        component: Least share of the largest connected component.
        centroid: Mean centroid in voxels, (3,).
        distance: Largest distance from it in voxels.
        optional: Whether some scans lack the label.
        brightness: Mean of the percentiles 10, 50 and 90 of the voxels over the scans, (c, 3).
        spread: Standard deviation that one more scan would have around it, (c, 3).
        deviation: Largest difference from ``brightness`` in units of ``spread``.
    """

    log_volume: tuple[float, float]
    component: float
    centroid: NDArray[np.float64]
    distance: float
    optional: bool
    brightness: NDArray[np.float64]
    spread: NDArray[np.float64]
    deviation: float

    @classmethod
    def fit(cls, real: Dataset, label: int, limits: Limits) -> LabelBounds:
        """Measure one label in scans that have masks, at least one of which has it."""
        volumes, components, centroids, levels = [], [], [], []
        for row in range(len(real)):
            mask = truth(real, row) == label
            if mask.any():
                component, centroid = measure(mask)
                volumes.append(math.log(mask.sum()))
                components.append(component)
                centroids.append(centroid)
                levels.append(percentiles(real.images[row].numpy(), mask))
        count = len(volumes)
        # A prediction interval: the mean itself is uncertain.
        inflation = math.sqrt(1 + 1 / count)
        mean = float(np.mean(volumes))
        # One scan has no spread of its own; a tenth of the volume is what segmenting it twice would give.
        reach = limits.volume_sd * inflation * max(float(np.std(volumes, ddof=1)) if count > 1 else 0.0, 0.1)
        low, high = min(mean - reach, *volumes), max(mean + reach, *volumes)
        centre = np.mean(centroids, axis=0)
        farthest = float(np.linalg.norm(np.array(centroids) - centre, axis=1).max())
        brightness = np.mean(levels, axis=0)
        # Where scans hardly differ, a fifth of the contrast of a scan: moving a structure of few thick slices by less
        # than a voxel changes its outer percentiles by about half of that.
        least = 0.2 * real.images.std(dim=(2, 3, 4)).mean(dim=0).numpy().astype(np.float64)[:, None]
        varied = np.std(levels, axis=0, ddof=1) if count > 1 else np.zeros_like(brightness)
        spread = np.maximum(varied, least) * inflation
        seen = max(float(np.abs((level - brightness) / spread).max()) for level in levels)
        return cls(
            log_volume=(low - 1e-9, high + 1e-9),
            component=max(min(components) - limits.component_margin, 0.0),
            centroid=centre,
            distance=limits.centroid_factor * farthest + 1.0,
            optional=count < len(real),
            brightness=brightness,
            spread=spread,
            deviation=max(limits.intensity_sd, seen) + 1e-9,
        )

    def unlike(self, image: NDArray[np.floating], mask: NDArray[np.bool_]) -> float:
        """Largest difference of a brightness percentile from the real mean, in standard deviations.

        Args:
            image: (c, i, j, k).
            mask: (i, j, k), not empty.
        """
        return float(np.abs((percentiles(image, mask) - self.brightness) / self.spread).max())

    def to_plain(self) -> dict[str, Any]:
        """The limits as lists and numbers, for JSON; :meth:`from_plain` reads them back."""
        return {
            key: value.tolist() if isinstance(value, np.ndarray) else list(value) if isinstance(value, tuple) else value
            for key, value in vars(self).items()
        }

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> LabelBounds:
        """Inverse of :meth:`plain`."""
        low, high = data["log_volume"]
        arrays = {key: np.array(data[key], dtype=np.float64) for key in ("centroid", "brightness", "spread")}
        return cls(**{**data, **arrays, "log_volume": (low, high)})


def volume_ratio(labels: NDArray[np.integer], other: NDArray[np.integer], label: int) -> float:
    """Natural logarithm of a label's volume in one label map over that in another; one voxel is added to both.

    >>> volume_ratio(np.array([1, 1, 1]), np.array([1, 0, 2]), 1) == math.log(2)
    True
    """
    return math.log((int((labels == label).sum()) + 1) / (int((other == label).sum()) + 1))


def prediction_limits(values: Sequence[float], sd: float) -> tuple[float, float]:
    """Where one more value may lie: so many standard deviations from the mean, and as far as any value itself.

    A tenth is the least standard deviation, as for volumes (see :meth:`LabelBounds.fit`); NaN without values.

    >>> prediction_limits([0.2, 0.2], 1.0) == (0.2 - 0.1 * math.sqrt(1.5), 0.2 + 0.1 * math.sqrt(1.5))
    True
    """
    if not values:
        return math.nan, math.nan
    mean, spread = float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    reach = sd * math.sqrt(1 + 1 / len(values)) * max(spread, 0.1)
    return min(mean - reach, *values), max(mean + reach, *values)


@dataclass(frozen=True)
class Neighbours:
    """Which labels are next to each other.

    Attributes:
        always: Pairs that touch (26 neighbours) in every real scan that has both.
        never: Pairs that are nowhere nearer than three voxels in any real scan that has both.
    """

    always: frozenset[tuple[int, int]]
    never: frozenset[tuple[int, int]]

    @classmethod
    def fit(cls, real: Dataset, labels: Sequence[int]) -> Neighbours:
        """Look at the masks of real scans."""
        always: dict[tuple[int, int], bool] = {}
        never: dict[tuple[int, int], bool] = {}
        for row in range(len(real)):
            mask = truth(real, row)
            touching, beside = pairs_within(mask, 1), pairs_within(mask, _BESIDE)
            present = sorted(set(np.unique(mask).tolist()) & set(labels))
            for pair in itertools.combinations(present, 2):
                always[pair] = always.get(pair, True) and pair in touching
                never[pair] = never.get(pair, True) and pair not in beside
        return cls(
            frozenset(pair for pair, value in always.items() if value),
            frozenset(pair for pair, value in never.items() if value),
        )

    def wrong(self, labels: NDArray[np.integer]) -> list[tuple[int, int]]:
        """Pairs of labels, both present, that always touch and here are apart, or never come near and here touch.

        What is neither is left alone, and a gap of one voxel is no fault: few scans do not show all that is normal.
        """
        present = set(np.unique(labels).tolist())
        # A search goes over the scan once per step: only what there is a rule for is looked up.
        beside = pairs_within(labels, _BESIDE) if self.always else frozenset()
        touching = pairs_within(labels, 1) if self.never else frozenset()
        apart = {pair for pair in self.always if set(pair) <= present and pair not in beside}
        return sorted(apart | (self.never & touching))


def pairs_within(labels: NDArray[np.integer], reach: int) -> frozenset[tuple[int, int]]:
    """Pairs (a, b), a < b, of labels other than 0 with voxels at most ``reach`` steps apart along every axis.

    Args:
        labels: (i, j, k).
        reach: Steps; 1 is touching by face, edge or corner.
    """
    steps = [step for step in itertools.product(range(-reach, reach + 1), repeat=3) if step > (0, 0, 0)]
    base = int(labels.max()) + 1
    found: set[int] = set()
    for step in steps:
        here = labels[tuple(slice(max(-s, 0), n - max(s, 0)) for s, n in zip(step, labels.shape, strict=True))]
        there = labels[tuple(slice(max(s, 0), n - max(-s, 0)) for s, n in zip(step, labels.shape, strict=True))]
        differ = (here != there) & (here != 0) & (there != 0)
        one, other = here[differ].astype(np.int64), there[differ].astype(np.int64)
        found.update(np.unique(np.minimum(one, other) * base + np.maximum(one, other)).tolist())
    return frozenset((code // base, code % base) for code in found)


def percentiles(image: NDArray[np.floating], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Percentiles 10, 50 and 90 of an image (c, i, j, k) in a mask that is not empty, (c, 3)."""
    return np.percentile(image[:, mask].astype(np.float64), PERCENTILES, axis=1).T


def measure(mask: NDArray[np.bool_]) -> tuple[float, NDArray[np.float64]]:
    """Share of the largest connected component (26 neighbours) and centroid in voxels; NaN for an empty mask."""
    if not mask.any():
        return math.nan, np.full(3, math.nan)
    parts, count = connected_parts(mask)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    return float(sizes.max() / sizes.sum()), np.array(ndimage.center_of_mass(mask))


def truth(real: Dataset, row: int) -> NDArray[np.uint8]:
    """Mask of one scan, (i, j, k).

    Raises:
        DataError: If the scans have none.
    """
    if real.labels is None:
        raise DataError("synthesis needs training scans with masks")
    labels: NDArray[np.uint8] = real.labels[row, 0].numpy()
    return labels
