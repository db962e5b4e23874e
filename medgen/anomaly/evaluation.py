"""Held-out evaluation: healthy test scans, the same scans with implants, and every score measured on both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.detector import AnomalyDetector, Measured
from medgen.anomaly.implanted import HEALTHY, EvaluationConfig, TestScan, scans_to_test
from medgen.anomaly.ranking import half

FUSED = "fused"

__all__ = ["FUSED", "HEALTHY", "EvaluationConfig", "Measurement", "TestScan", "measure", "reduce", "scans_to_test"]


@dataclass(frozen=True, eq=False)
class Measurement:
    """A scored test scan, reduced to what metrics need: values inside the scored region, as flat arrays.

    Attributes:
        case, subject, kind, radius_mm, contrast: As in :class:`TestScan`.
        region: (i, j, k) boolean with v voxels, where the scan is scored.
        truth: (v,) boolean.
        rows: Name of a table row → (v,) float16 voxel scores; 11 bits rank voxels as well as 24 do.
        hot: (v,) boolean, heat above the calibrated threshold.
        scores, p_values: Scan scores (mean over folds) and their p-values.
    """

    case: str
    subject: str
    kind: str
    radius_mm: float
    contrast: float
    region: NDArray[np.bool_]
    truth: NDArray[np.bool_]
    rows: Mapping[str, NDArray[np.float16]]
    hot: NDArray[np.bool_]
    scores: Mapping[str, float]
    p_values: Mapping[str, float]


def measure(detector: AnomalyDetector, scans: Iterator[TestScan]) -> Iterator[tuple[TestScan, Measured, Measurement]]:
    """Score test scans one by one: the scan, its maps on the model grid, and what the metrics need of them."""
    for scan in scans:
        measured = detector.measure(scan.image, scan.foreground)
        yield scan, measured, reduce(detector, scan, measured)


def reduce(detector: AnomalyDetector, scan: TestScan, measured: Measured) -> Measurement:
    """One scored test scan as flat arrays inside its region."""
    region = measured.region
    rows: dict[str, NDArray[Any]] = {FUSED: measured.heat[region]}
    for name in measured.raw:
        rows[f"{name} (raw)"] = measured.raw[name][region]
        rows[f"{name} (z)"] = measured.z[name][region]
    return Measurement(
        case=scan.case,
        subject=scan.subject,
        kind=scan.kind,
        radius_mm=scan.radius_mm,
        contrast=scan.contrast,
        region=region,
        truth=scan.truth[region],
        rows={name: half(values) for name, values in rows.items()},
        hot=measured.heat[region] > detector.calibration.threshold,
        scores={name: float(np.mean(values)) for name, values in measured.scores.items()},
        p_values={name: detector.calibration.p_value(name, values) for name, values in measured.scores.items()},
    )
