"""The test scans of an anomaly run: scored, their files written, and what metrics and pictures need of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from medgen.anomaly.comparison.methods import Comparison, ScanFacts, ScanScores, compare, reduce_scan
from medgen.anomaly.detector import AnomalyDetector
from medgen.anomaly.evaluation.measure import FUSED, HEALTHY, Measurement, TestScan, measure, scans_to_test
from medgen.anomaly.pseudo_healthy import as_seen
from medgen.preprocessing.dataset import Dataset
from medgen.preprocessing.prepared import PreparedScan
from medgen.report.anomaly.pictures import Example
from medgen.runs.folder import RunFolder
from medgen.runs.progress import Tick
from medgen.volume import Volume

from .evaluate import BOOTSTRAP, SEED
from .outputs import ScanFiles

if TYPE_CHECKING:
    from .config import AnomalyRunConfig


def evaluate(
    config: AnomalyRunConfig,
    detector: AnomalyDetector,
    development: Dataset,
    test: Dataset,
    folder: RunFolder,
    tick: Tick,
) -> tuple[list[Measurement], list[Example], Comparison]:
    """Score healthy and implanted test scans, write their files, keep what metrics and pictures need.

    The last of the result are the metrics of the heatmaps' files, as ``medgen anomaly evaluate`` computes them.
    """
    scans = scans_to_test(test, development, detector.preprocess.spacing, config.evaluation, config.seed)
    total = len(test) * (1 + config.evaluation.per_scan)
    files = ScanFiles(folder.out)
    measurements: list[Measurement] = []
    examples: list[Example] = []
    on_own_grid: list[tuple[ScanFacts, ScanScores]] = []
    for done, entry in enumerate(measure(detector, scans), start=1):
        scan, result = entry.scan, entry.result
        files.add(
            scan.name,
            result,
            subject=scan.subject,
            kind=scan.kind,
            radius_mm=scan.radius_mm,
            contrast=scan.contrast,
        )
        files.add_truth(scan.name, entry.truth)
        truth_voxels, voxels, own = reduce_scan({FUSED: result.heatmap.data[0]}, entry.truth.data[0] > 0)
        known = ScanFacts(scan.name, scan.subject, truth_voxels, voxels, scan.kind, scan.radius_mm, scan.contrast)
        on_own_grid.append((known, own[FUSED]))
        measurements.append(entry.measurement)
        if _shown(scan, examples):
            _write_pseudo_healthy(scan, scan.prepared, detector, files)
            examples.append(Example(scan, Volume(scan.image.numpy(), scan.prepared.grid), result))
        tick("scoring test scans", done, total)
    files.close()
    # In the order of the files, with what evaluate takes by default: its intervals are these to the last digit.
    on_own_grid.sort(key=lambda pair: f"{pair[0].name}.nii.gz")
    listed, scores = (list(part) for part in zip(*on_own_grid, strict=True))
    return measurements, examples, compare(listed, {FUSED: scores}, BOOTSTRAP, SEED)


def _write_pseudo_healthy(scan: TestScan, prepared: PreparedScan, detector: AnomalyDetector, files: ScanFiles) -> None:
    # An implanted scan exists on the model grid only, so the difference is taken from what it looks like from there.
    own = replace(prepared, image=scan.image.numpy(), foreground=scan.foreground[0].numpy())
    pseudo = detector.pseudo_healthy(own)
    if pseudo is not None:
        seen = as_seen(own, detector.preprocess)
        files.add_pseudo_healthy(scan.name, pseudo, seen.with_data(seen.data - pseudo.data))


def _shown(scan: TestScan, examples: Sequence[Example]) -> bool:
    """Whether the report shows a scan: two healthy ones and the first of each kind of implant, unselected."""
    return sum(example.scan.kind == scan.kind for example in examples) < (2 if scan.kind == HEALTHY else 1)
