"""Held-out evaluation: healthy test scans, the same scans with implants, and every score measured on both."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.detector import AnomalyDetector, ScanResult
from medgen.anomaly.heat_scores import truth_on_own_grid
from medgen.implants.implanted_scans import HEALTHY, EvaluationConfig, TestScan, scans_to_test
from medgen.metrics.ranking import half
from medgen.volume import Volume

FUSED = "fused"

__all__ = [
    "FUSED",
    "HEALTHY",
    "Evaluated",
    "EvaluationConfig",
    "Measurement",
    "TestScan",
    "measure",
    "reduce",
    "scans_to_test",
]


@dataclass(frozen=True, eq=False)
class Measurement:
    """A scored test scan, reduced to what metrics need: values inside the scored region, as flat arrays.

    Attributes:
        case, subject, kind, radius_mm, contrast: As in :class:`TestScan`.
        region: (i, j, k) boolean with v voxels, where the scan is scored.
        truth: (v,) boolean.
        rows: Name of a table row → (v,) float16 voxel scores; 11 bits rank voxels as well as 24 do.
        scores, p_values: Scan scores and their p-values, as in :class:`medgen.anomaly.detector.ScanResult`.
        hottest_in_truth: Heat of the hottest voxel of the truth, on the scan's own grid; −inf for a healthy scan and
            where none of it is scored. The implant is found where this is above the threshold.
        own_grid: On the scan's own grid, voxels above the threshold, of the truth, and of both.
    """

    case: str
    subject: str
    kind: str
    radius_mm: float
    contrast: float
    region: NDArray[np.bool_]
    truth: NDArray[np.bool_]
    rows: Mapping[str, NDArray[np.float16]]
    scores: Mapping[str, float]
    p_values: Mapping[str, float]
    hottest_in_truth: float = -math.inf
    own_grid: tuple[int, int, int] = (0, 0, 0)

    @property
    def has_finding(self) -> bool:
        """Whether any voxel is above the calibrated threshold."""
        return self.own_grid[0] > 0

    @property
    def is_found(self) -> bool:
        """Whether a voxel of the truth is above the calibrated threshold."""
        return self.own_grid[2] > 0


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A scored test scan: the scan, its result in its own space, the truth there, and what the metrics need."""

    scan: TestScan
    result: ScanResult
    truth: Volume
    measurement: Measurement


def measure(detector: AnomalyDetector, scans: Iterator[TestScan]) -> Iterator[Evaluated]:
    """Score test scans one by one."""
    for scan in scans:
        result = detector.result(scan.prepared, detector.measure(scan.image, scan.foreground))
        truth = truth_on_own_grid(scan.truth, scan.prepared, detector.preprocess)
        yield Evaluated(scan, result, truth, reduce(detector, scan, result, truth))


def reduce(detector: AnomalyDetector, scan: TestScan, result: ScanResult, truth: Volume) -> Measurement:
    """One scored test scan: voxel scores as flat arrays inside its region, and what was found on its own grid."""
    measured = result.measured
    region = measured.region
    rows: dict[str, NDArray[Any]] = {FUSED: measured.heat[region]}
    for name in measured.raw:
        rows[f"{name} (raw)"] = measured.raw[name][region]
        rows[f"{name} (z)"] = measured.z[name][region]
    heat, there = np.nan_to_num(result.heatmap.data[0], nan=-np.inf), truth.data[0] > 0
    hot = heat > detector.calibration.threshold
    return Measurement(
        case=scan.case,
        subject=scan.subject,
        kind=scan.kind,
        radius_mm=scan.radius_mm,
        contrast=scan.contrast,
        region=region,
        truth=scan.truth[region],
        rows={name: half(values) for name, values in rows.items()},
        scores=dict(result.scores),
        p_values=dict(result.p_values),
        hottest_in_truth=float(heat[there].max(initial=-np.inf)),
        own_grid=(int(hot.sum()), int(there.sum()), int((hot & there).sum())),
    )
