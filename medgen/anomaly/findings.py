"""Findings: connected regions of a heatmap above the calibrated threshold, measured in the scan's own space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from medgen.anomaly.calibration import p_value
from medgen.anomaly.places import regions
from medgen.config import Config
from medgen.prepared import Prepared, Template
from medgen.volume import Volume

COLUMNS = (
    "case", "finding", "region", "volume_mm3", "peak", "mean", "p", "channel", "channels",
    "peak_r_mm", "peak_a_mm", "peak_s_mm", "centroid_r_mm", "centroid_a_mm", "centroid_s_mm",
)  # fmt: skip

# A channel takes part in a finding if fewer than one in a hundred healthy voxels surprise it as much: −log₁₀ p above 2.
_TAKES_PART = 2.0


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
        channels: All channels with −log₁₀ p above 2 at the peak and that number, strongest first: "nll 4.1, pca 3.0".
        region: Where the peak lies, in words; see :func:`medgen.anomaly.places.regions`.
    """

    id: int
    volume_mm3: float
    peak: float
    mean: float
    p: float
    peak_ras: tuple[float, float, float]
    centroid_ras: tuple[float, float, float]
    channel: str = ""
    channels: str = ""
    region: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data, keys as the attributes."""
        return asdict(self)

    def row(self, case: str) -> dict[str, Any]:
        """A row of ``findings.csv`` (see ``COLUMNS``)."""
        places = [*self.peak_ras, *self.centroid_ras]
        numbers = (self.volume_mm3, self.peak, self.mean, self.p)
        values = (case, self.id, self.region, *numbers, self.channel, self.channels, *places)
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
    labels, count = _labelled(heatmap, threshold)
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


def describe(
    found: Sequence[Finding], prepared: Prepared, surprise: Mapping[str, NDArray[np.float32]], template: Template | None
) -> list[Finding]:
    """The findings with their region in words and the channels that are surprised at their peak.

    Args:
        found: Findings of one scan.
        prepared: The scan on the model grid.
        surprise: Per channel −log₁₀ p on the model grid, (i, j, k).
        template: What the scan was registered to; None if the model grid is only centred on it.
    """
    if not found:
        return []
    voxels = prepared.grid.to_voxel([finding.peak_ras for finding in found])
    # The template's own millimetres: a registered scan's are stretched by its registration.
    grid = prepared.grid if template is None else template.grid
    foreground = prepared.foreground if template is None else template.foreground.data[0] > 0
    words = regions(voxels, foreground, grid.spacing, registered=template is not None)
    inside = np.clip(np.rint(voxels).astype(int), 0, np.array(grid.shape) - 1)
    described = []
    for finding, region, place in zip(found, words, inside.tolist(), strict=True):
        at_peak = {name: float(values[tuple(place)]) for name, values in surprise.items()}
        order = sorted(at_peak, key=lambda name: -at_peak[name])
        channels = ", ".join(f"{name} {at_peak[name]:.1f}" for name in order if at_peak[name] > _TAKES_PART)
        described.append(replace(finding, region=region, channel=order[0], channels=channels))
    return described


def outline(heatmap: Volume, threshold: float, config: FindingsConfig) -> Volume:
    """The regions that :func:`find` lists, as a mask of 0 and 1 (uint8) on the heatmap's grid."""
    labels, _ = _labelled(heatmap, threshold)
    large = np.bincount(labels.ravel()) * heatmap.grid.voxel_volume >= config.min_volume_mm3
    large[0] = False
    return heatmap.with_data(large[labels].astype(np.uint8))


def summary(found: Sequence[Finding], maxima: NDArray[np.float64]) -> str:
    """One line on a scan: how many regions, where and how large the hottest is, and how it compares with healthy scans.

    Args:
        found: Findings of the scan, hottest first.
        maxima: (n,) hottest voxel of every healthy calibration subject.
    """
    if not found:
        return "no region above the threshold"
    first = found[0]
    cooler = int((maxima < first.peak).sum())
    healthy = f"all {cooler}" if cooler == len(maxima) else f"{cooler} of {len(maxima)}"
    start = "1 region:" if len(found) == 1 else f"{len(found)} regions, the hottest:"
    where = first.region.replace(", cortex", " cortex")
    return f"{start} {where}, {millilitres(first.volume_mm3)}, hotter than {healthy} healthy scans"


def millilitres(volume_mm3: float) -> str:
    """A volume with two significant digits and its unit: ``"2.1 ml"``, ``"0.034 ml"``, ``"120 ml"``."""
    return f"{float(f'{volume_mm3 / 1000:.2g}'):g} ml"


def _labelled(heatmap: Volume, threshold: float) -> tuple[NDArray[np.int32], int]:
    hot = np.nan_to_num(heatmap.data[0], nan=-np.inf) > threshold
    labels, count = ndimage.label(hot, structure=np.ones((3, 3, 3)))
    return labels, int(count)


def _point(volume: Volume, voxel: NDArray[Any]) -> tuple[float, float, float]:
    right, anterior, superior = (round(float(value), 2) for value in volume.grid.to_world(voxel))
    return right, anterior, superior
