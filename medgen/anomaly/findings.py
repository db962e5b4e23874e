"""Findings: connected regions of a heatmap above the calibrated threshold, measured in the scan's own space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medgen.anomaly.ensemble import Calibration
from medgen.anomaly.region_names import middle_of, regions
from medgen.metrics.neighbourhood import connected_parts
from medgen.preprocessing.prepared import PreparedScan, Template
from medgen.volume import Volume

COLUMNS = (
    "case", "finding", "region", "above_threshold_ml", "half_peak_extent_ml", "peak", "mean", "p_max", "channel",
    "channels", "voxel_i", "voxel_j", "voxel_k", "template_r_mm", "template_a_mm", "template_s_mm",
    "scan_r_mm", "scan_a_mm", "scan_s_mm",
)  # fmt: skip

# A channel takes part in a finding if fewer than one in a hundred healthy voxels surprise it as much: −log₁₀ p above 2.
_TAKES_PART = 2.0

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Finding:
    """One region above the threshold.

    Attributes:
        id: 1 for the region with the highest peak, and so on.
        above_threshold_ml: Volume of the part above the threshold, in the scan's own grid. It is no lesion's volume: of
            a lesion that is barely above the threshold, it is a few voxels.
        half_peak_extent_ml: Volume around the peak that is at least half as far above the scan's background (the median
            of its scored voxels) as the peak is, in one piece: the full width at half maximum, in three dimensions.
        peak, mean: Heat (z) at the peak and on average above the threshold.
        p_max: Family-wise conformal p-value of the peak: the share of healthy scans whose hottest voxel is as hot.
        peak_voxel: (i, j, k) of the peak in the scan's file, from 0.
        peak_ras: The same in RAS+ mm of the scan's own world, whose origin is wherever the scanner put it.
        peak_template: The peak in mm to the right, front and top of the middle of the organ in the cohort's template;
            None where the scan was not registered to one.
        channel: The channel with the smallest tail probability at the peak.
        channels: All channels with −log₁₀ p above 2 at the peak and that number, strongest first: "nll 4.1, pca 3.0".
        region: Where the peak lies, in words; see :func:`medgen.anomaly.region_names.regions`.
    """

    id: int
    above_threshold_ml: float
    half_peak_extent_ml: float
    peak: float
    mean: float
    p_max: float
    peak_voxel: tuple[int, int, int]
    peak_ras: Point
    peak_template: Point | None = None
    channel: str = ""
    channels: str = ""
    region: str = ""

    def to_plain(self) -> dict[str, Any]:
        """Plain data, keys as the attributes."""
        return asdict(self)

    def row(self, case: str) -> dict[str, Any]:
        """A row of ``findings.csv`` (see ``COLUMNS``)."""
        numbers = (self.above_threshold_ml, self.half_peak_extent_ml, self.peak, self.mean, self.p_max)
        places = [*self.peak_voxel, *(self.peak_template or (None, None, None)), *self.peak_ras]
        values = (case, self.id, self.region, *numbers, self.channel, self.channels, *places)
        return dict(zip(COLUMNS, values, strict=True))

    @property
    def position(self) -> str:
        """Where the peak is, in numbers that can be looked up, with what they are counted from."""
        i, j, k = self.peak_voxel
        if self.peak_template is None:
            r, a, s = self.peak_ras
            return f"voxel {i}, {j}, {k}; R {r:.0f}, A {a:.0f}, S {s:.0f} mm from the scan's own origin"
        r, a, s = self.peak_template
        return f"voxel {i}, {j}, {k}; R {r:.0f}, A {a:.0f}, S {s:.0f} mm from the template's middle"


def find(heatmap: Volume, calibration: Calibration) -> list[Finding]:
    """Connected regions (26 neighbours) with heat above the calibrated threshold, hottest first.

    Args:
        heatmap: One channel, NaN where not scored.
        calibration: Its threshold, and the hottest voxels of healthy scans for the p-values.
    """
    values = np.nan_to_num(heatmap.data[0], nan=-np.inf)
    labels, count = _labelled(heatmap, calibration.threshold)
    if not count:
        return []
    background = float(np.median(values[np.isfinite(values)]))
    found = []
    for index, box in enumerate(ndimage.find_objects(labels, max_label=count), start=1):
        inside = labels[box] == index
        corner = np.array([axis.start for axis in box])
        heats = np.where(inside, values[box], -np.inf)
        voxel = tuple((np.array(np.unravel_index(int(heats.argmax()), heats.shape)) + corner).tolist())
        found.append((float(heats.max()), int(inside.sum()), float(values[box][inside].mean(dtype=np.float64)), voxel))
    found.sort(key=lambda entry: (-entry[0], -entry[1]))
    litre = heatmap.grid.voxel_volume / 1000
    return [
        Finding(
            id=number,
            above_threshold_ml=size * litre,
            half_peak_extent_ml=_extent(values, voxel, (background + peak) / 2) * litre,
            peak=peak,
            mean=mean,
            p_max=calibration.p_value("max", peak),
            peak_voxel=voxel,
            peak_ras=_point(heatmap, voxel),
        )
        for number, (peak, size, mean, voxel) in enumerate(found, start=1)
    ]


def describe(
    found: Sequence[Finding],
    prepared: PreparedScan,
    surprise: Mapping[str, NDArray[np.float32]],
    template: Template | None,
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
    voxels = prepared.grid.to_voxel(prepared.native.to_world([finding.peak_voxel for finding in found]))
    # The template's own millimetres: a registered scan's are stretched by its registration.
    grid = prepared.grid if template is None else template.grid
    foreground = prepared.foreground if template is None else template.foreground.data[0] > 0
    words = regions(voxels, foreground, grid.spacing, registered=template is not None)
    from_middle = (voxels - middle_of(foreground)) * np.array(grid.spacing)
    inside = np.clip(np.rint(voxels).astype(int), 0, np.array(grid.shape) - 1)
    described = []
    for finding, region, place, away in zip(found, words, inside.tolist(), from_middle.tolist(), strict=True):
        at_peak = {name: float(values[tuple(place)]) for name, values in surprise.items()}
        order = sorted(at_peak, key=lambda name: -at_peak[name])
        channels = ", ".join(f"{name} {at_peak[name]:.1f}" for name in order if at_peak[name] > _TAKES_PART)
        there = None if template is None else (round(away[0], 1), round(away[1], 1), round(away[2], 1))
        described.append(replace(finding, region=region, channel=order[0], channels=channels, peak_template=there))
    return described


def outline(heatmap: Volume, threshold: float) -> Volume:
    """The regions that :func:`find` lists, as a mask of 0 and 1 (uint8) on the heatmap's grid."""
    labels, _ = _labelled(heatmap, threshold)
    return heatmap.with_data((labels > 0).astype(np.uint8)[None])


def summary(found: Sequence[Finding], calibration: Calibration) -> str:
    """One line on a scan: how many regions, where and how large the hottest is, and how it compares with healthy scans.

    Args:
        found: Findings of the scan, hottest first.
        calibration: The healthy calibration subjects.
    """
    if not found:
        return "no region above the threshold"
    first, maxima = found[0], calibration.maxima
    cooler = int((maxima < first.peak).sum())
    healthy = f"all {cooler}" if cooler == len(maxima) else f"{cooler} of {len(maxima)}"
    start = "1 region:" if len(found) == 1 else f"{len(found)} regions, the hottest:"
    where = first.region.replace(", cortex", " cortex")
    size = f"{millilitres(first.half_peak_extent_ml)} at half its peak"
    part = f"{millilitres(first.above_threshold_ml)} above the threshold"
    return f"{start} {where}, {size} ({part}), hotter than {healthy} healthy scans"


def millilitres(volume_ml: float) -> str:
    """A volume with two significant digits and its unit: ``"2.1 ml"``, ``"0.034 ml"``, ``"120 ml"``."""
    return f"{float(f'{volume_ml:.2g}'):g} ml"


def _labelled(heatmap: Volume, threshold: float) -> tuple[NDArray[np.int32], int]:
    hot = np.nan_to_num(heatmap.data[0], nan=-np.inf) > threshold
    return connected_parts(hot)


def _extent(values: NDArray[np.floating], voxel: tuple[int, ...], level: float) -> int:
    """Voxels of the connected region at or above ``level`` that holds a voxel."""
    labels, _ = connected_parts(values >= level)
    return int((labels == labels[voxel]).sum())


def _point(volume: Volume, voxel: tuple[int, ...]) -> Point:
    right, anterior, superior = (round(float(value), 2) for value in volume.grid.to_world(voxel))
    return right, anterior, superior
