"""Findings: connected regions of a heatmap above the calibrated threshold, measured in the scan's own space."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from medgen.anomaly.calibration import p_value
from medgen.config import Config
from medgen.volume import Volume

COLUMNS = (
    "case", "finding", "volume_mm3", "peak", "mean", "p", "channel",
    "peak_r_mm", "peak_a_mm", "peak_s_mm", "centroid_r_mm", "centroid_a_mm", "centroid_s_mm",
)  # fmt: skip


class FindingsConfig(Config):
    """Which regions above the threshold are listed.

    Attributes:
        min_volume_mm3: Smaller regions are left out of the table (they stay in the heatmap).
    """

    min_volume_mm3: float = Field(default=0.0, ge=0)


@dataclass(frozen=True)
class Finding:
    """One region above the threshold.

    Attributes:
        id: 1 for the region with the highest peak, and so on.
        volume_mm3: Volume in the scan's own grid.
        peak, mean: Heat (z) at the peak and on average.
        p: Family-wise conformal p-value of the peak: the share of healthy scans whose hottest voxel is as hot.
        peak_ras, centroid_ras: Position in RAS+ mm of the scan's world.
        channel: The channel with the smallest tail probability at the peak.
    """

    id: int
    volume_mm3: float
    peak: float
    mean: float
    p: float
    peak_ras: tuple[float, float, float]
    centroid_ras: tuple[float, float, float]
    channel: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data, keys as the attributes."""
        return asdict(self)

    def row(self, case: str) -> dict[str, Any]:
        """A row of ``findings.csv`` (see ``COLUMNS``)."""
        places = [*self.peak_ras, *self.centroid_ras]
        values = (case, self.id, self.volume_mm3, self.peak, self.mean, self.p, self.channel, *places)
        return dict(zip(COLUMNS, values, strict=True))


def find(heatmap: Volume, threshold: float, maxima: NDArray[np.float64], config: FindingsConfig) -> list[Finding]:
    """Connected regions (26 neighbours) with heat above ``threshold``, hottest first.

    Args:
        heatmap: One channel, NaN where not scored.
        threshold: Calibrated threshold, in heat.
        maxima: (n,) hottest voxel of every healthy calibration subject, for the p-values.
        config: Which regions count.
    """
    values = heatmap.data[0]
    hot = np.nan_to_num(values, nan=-np.inf) > threshold
    labels, count = ndimage.label(hot, structure=np.ones((3, 3, 3)))
    found = []
    for index, box in enumerate(ndimage.find_objects(labels, max_label=count), start=1):
        inside = labels[box] == index
        volume = float(inside.sum()) * heatmap.grid.voxel_volume
        if volume < config.min_volume_mm3:
            continue
        corner = np.array([axis.start for axis in box])
        heats = np.where(inside, values[box], -np.inf)
        peak_voxel = np.array(np.unravel_index(int(heats.argmax()), heats.shape)) + corner
        centroid = np.argwhere(inside).mean(axis=0) + corner
        peak = float(heats.max())
        found.append((peak, volume, float(values[box][inside].mean()), peak_voxel, centroid))
    found.sort(key=lambda entry: (-entry[0], -entry[1]))
    return [
        Finding(
            id=number,
            volume_mm3=volume,
            peak=peak,
            mean=mean,
            p=p_value(maxima, peak),
            peak_ras=_point(heatmap, peak_voxel),
            centroid_ras=_point(heatmap, centroid),
        )
        for number, (peak, volume, mean, peak_voxel, centroid) in enumerate(found, start=1)
    ]


def _point(volume: Volume, voxel: NDArray[Any]) -> tuple[float, float, float]:
    right, anterior, superior = (round(float(value), 2) for value in volume.grid.to_world(voxel))
    return right, anterior, superior
