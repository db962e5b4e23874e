"""Held-out evaluation: healthy test scans, the same scans with implants, and every score measured on both."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.detector import AnomalyDetector, ScanResult
from medgen.anomaly.evaluation.hits import hits_of
from medgen.anomaly.findings.false_findings import at_level
from medgen.anomaly.heat_scores import truth_on_own_grid
from medgen.implants.implanted_scans import HEALTHY, EvaluationConfig, TestScan, scans_to_test
from medgen.metrics.ranking import half
from medgen.volume import Volume

FUSED = "fused"
MOST_FALSE = 20.0
"""Candidates that would be listed only with more expected false findings are not kept."""

__all__ = [
    "FUSED",
    "HEALTHY",
    "MOST_FALSE",
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
            where none of it is scored.
        own_grid: On the scan's own grid, voxels above the family-wise threshold, of the truth, and of both.
        expected_false: (m,) expected false findings of the scan's candidates, strongest first, up to ``MOST_FALSE``.
        hits: (m,) whether each hits the implant, see :data:`medgen.anomaly.evaluation.hits.RULE`.
        untouched: Expected false findings of the strongest candidate of the untouched scan that hits the place of the
            implant; infinite if there is none.
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

    expected_false: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    hits: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool))
    untouched: float = math.inf

    @property
    def passes_family_wise(self) -> bool:
        """Whether any voxel is above the family-wise threshold."""
        return self.own_grid[0] > 0

    @property
    def is_found_family_wise(self) -> bool:
        """Whether a voxel of the truth is above the family-wise threshold."""
        return self.own_grid[2] > 0

    @property
    def on_implant(self) -> float:
        """Expected false findings of the strongest candidate that hits the implant; infinite if there is none."""
        return float(self.expected_false[self.hits].min(initial=math.inf))

    def is_found(self, level: float) -> bool:
        """Whether a finding hits the implant where so many false findings per healthy scan are expected."""
        return bool(at_level(self.on_implant, level))

    def is_found_untouched(self, level: float) -> bool:
        """Whether the place of the implant has a finding in the untouched scan."""
        return bool(at_level(self.untouched, level))

    def false_findings(self, level: float) -> int:
        """Findings that hit nothing."""
        return int((at_level(self.expected_false, level) & ~self.hits).sum())


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A scored test scan: the scan, its result in its own space, the truth there, and what the metrics need."""

    scan: TestScan
    result: ScanResult
    truth: Volume
    measurement: Measurement


def measure(detector: AnomalyDetector, scans: Iterator[TestScan]) -> Iterator[Evaluated]:
    """Score test scans one by one; each healthy scan comes before its implanted copies."""
    untouched: tuple[str, ScanResult] | None = None
    for scan in scans:
        measured = detector.measure(scan.image, scan.foreground, scan.prepared.attributes)
        result = detector.result(scan.prepared, measured)
        truth = truth_on_own_grid(scan.truth, scan.prepared, detector.preprocess)
        if scan.kind == HEALTHY:
            untouched = scan.case, result
        before = untouched[1] if untouched is not None and untouched[0] == scan.case else None
        yield Evaluated(scan, result, truth, reduce(detector, scan, result, truth, before))


def reduce(
    detector: AnomalyDetector, scan: TestScan, result: ScanResult, truth: Volume, untouched: ScanResult | None = None
) -> Measurement:
    """One scored test scan: voxel scores as flat arrays inside its region, and what was found on its own grid.

    Args:
        detector: What scored it.
        scan: The test scan.
        result: Its result.
        truth: The implant on the scan's own grid.
        untouched: The result of the scan without the implant, if known.
    """
    measured = result.measured
    region = measured.region
    rows: dict[str, NDArray[Any]] = {FUSED: measured.heat[region]}
    for name in measured.raw:
        rows[f"{name} (raw)"] = measured.raw[name][region]
        rows[f"{name} (z)"] = measured.z[name][region]
    heat, there = np.nan_to_num(result.heatmap.data[0], nan=-np.inf), truth.data[0] > 0
    hot = heat > detector.calibration.threshold
    expected, hits = _judged(detector, result, there)
    before = math.inf
    if untouched is not None and there.any():
        expected_before, hits_before = _judged(detector, untouched, there)
        before = float(expected_before[hits_before].min(initial=math.inf))
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
        expected_false=expected,
        hits=hits,
        untouched=before,
    )


def _judged(
    detector: AnomalyDetector, result: ScanResult, truth: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Expected false findings of the candidates and whether they hit, as far as anything is told of them."""
    expected = detector.calibration.healthy.expected_false(result.candidates.heat)
    kept = int(at_level(expected, MOST_FALSE).sum())
    hits = hits_of(result.candidates, result.heatmap, truth, detector.findings_threshold)
    return expected[:kept], hits[:kept]
