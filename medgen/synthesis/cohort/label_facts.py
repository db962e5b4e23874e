"""Is a label an organ or focal disease? Decided from how it varies between scans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from medgen.metrics.neighbourhood import connected_parts
from medgen.preprocessing.dataset import Dataset
from medgen.transforms.foreground import foreground_box

# Of 137 structures in twelve brains none varies in place by more than 0.04 of the brain's size; stroke lesions do by
# 0.09. Lesions on both sides may have a constant centroid, but then they are many.
_POSITION = 0.06
_COMPONENTS = 2.5
# Small organs vary in size too, but not in place.
_VARIATION = 0.5
_PRESENCE = 0.95
_SHARE = 0.25


@dataclass(frozen=True)
class LabelFacts:
    """How one label lies in labelled scans.

    Attributes:
        label: Its number.
        presence: Share of the scans that have it.
        components: Mean number of connected components (26 neighbours, at least 4 voxels) where it is present.
        share: Median volume as a share of the foreground.
        variation: Coefficient of variation of its volume, over the scans that have it.
        position: Standard deviation of its centroid in the foreground's bounding box (sides 1), root mean square over
            the axes.
        scans: Scans that have it.
        parts: Components in all scans together.
        extent: 90th percentile of the components' bounding boxes, voxels along i, j, k.
    """

    label: int
    presence: float
    components: float
    share: float
    variation: float
    position: float
    scans: int
    parts: int
    extent: tuple[int, int, int] = (0, 0, 0)

    @property
    def focal(self) -> bool:
        """Whether neither its place nor its size or presence is constant, and it is not most of the scan."""
        elsewhere = self.position > _POSITION or self.components > _COMPONENTS
        varies = self.variation > _VARIATION or self.presence < _PRESENCE
        return elsewhere and varies and self.share < _SHARE

    @property
    def sentence(self) -> str:
        """One line with the numbers."""
        numbers = (
            f"{self.components:.1f} components per scan, {self.share:.2%} of the foreground, volume varies by "
            f"{self.variation:.0%}, centroid by {self.position:.2f} of the foreground's size, in {self.presence:.0%} "
            "of the scans"
        )
        return f"label {self.label} looks like {'focal disease' if self.focal else 'an organ'} ({numbers})"


def label_facts(data: Dataset, labels: Sequence[int]) -> tuple[LabelFacts, ...]:
    """Statistics of every label over labelled scans on one grid.

    Args:
        data: Labelled scans.
        labels: Label numbers without 0.
    """
    return tuple(_facts(data, label) for label in labels)


def _facts(data: Dataset, label: int) -> LabelFacts:
    volumes, shares, places, counts, extents = [], [], [], [], []
    for row in range(len(data)):
        mask = np.zeros(data.shape, dtype=bool) if data.labels is None else data.labels[row, 0].numpy() == label
        if not mask.any():
            continue
        foreground = data.foregrounds[row, 0].numpy()
        low, high = foreground_box(foreground)
        parts, count = connected_parts(mask)
        sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
        # Single voxels at a border are resampling, not structure; the largest part always counts.
        counts.append(max(int((sizes >= 4).sum()), 1))
        boxes = ndimage.find_objects(parts)
        extents += [[side.stop - side.start for side in box] for box, n in zip(boxes, sizes, strict=True) if n >= 4]
        volumes.append(float(mask.sum()))
        shares.append(float(mask.sum()) / max(float(foreground.sum()), 1.0))
        places.append((np.array(ndimage.center_of_mass(mask)) - low) / np.maximum(high - low, 1))
    number = len(volumes)
    i, j, k = (int(n) for n in np.percentile(extents, 90, axis=0)) if extents else (0, 0, 0)
    return LabelFacts(
        label=int(label),
        presence=number / max(len(data), 1),
        components=float(np.mean(counts)) if counts else 0.0,
        share=float(np.median(shares)) if shares else 0.0,
        variation=float(np.std(volumes, ddof=1) / np.mean(volumes)) if number > 1 else 0.0,
        position=float(np.sqrt(np.var(places, axis=0, ddof=1).mean())) if number > 1 else 0.0,
        scans=number,
        parts=int(sum(counts)),
        extent=(i, j, k),
    )
