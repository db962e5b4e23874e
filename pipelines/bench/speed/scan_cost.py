"""What one scan costs to score, in its own process: ``python -m medgen.pipelines.bench.speed.scan_cost MODEL SCAN``.

Peak memory is that of a whole process, so a benchmark that has trained models cannot measure it in itself.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from medgen.errors import MedgenError
from medgen.system.memory import peak_bytes

from .commands import apart


@dataclass(frozen=True)
class Speed:
    """Cost of one scan.

    Attributes:
        command: What measured it.
        shape, spacing: Size (i, j, k) in voxels and voxel size in mm of the scan.
        threads: Threads of torch.
        load_s: Seconds to load the artifact.
        score_s: Seconds of ``AnomalyDetector.score_scan``, registration included.
        score_cpu_s: Processor time of the same, of all threads.
        peak_mb: Peak resident memory in 10⁶ bytes up to then, interpreter and libraries included.
        restoration_s: Seconds of the score ``restoration`` with one fold's models; None where no model offers it.
        restoration_steps: Its gradient steps.
        folds: Folds of the detector, each of which would restore.
    """

    command: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    threads: int
    load_s: float
    score_s: float
    score_cpu_s: float
    peak_mb: float
    restoration_s: float | None
    restoration_steps: int
    folds: int


def measure(model: Path, scan: Path) -> Speed:
    """Load an artifact, score a scan, restore it; meant for a fresh process.

    Raises:
        MedgenError: If the artifact or the scan cannot be used.
    """
    import torch

    from medgen import io
    from medgen.anomaly.artifact import from_artifact
    from medgen.anomaly.ensemble import inputs_for
    from medgen.anomaly.scores.catalogue import get
    from medgen.models.artifact import TrainedModel
    from medgen.training.trainer import device_of

    start = time.perf_counter()
    detector = from_artifact(TrainedModel.load(model, device_of("cpu")), model)
    loaded = time.perf_counter()
    volume = io.read(scan)
    begun, used = time.perf_counter(), time.process_time()
    result = detector.score_scan(volume)
    scored, worked, peak = time.perf_counter() - begun, time.process_time() - used, peak_bytes()
    models, seconds = detector.members[0].models, None
    if get("restoration").supports(models):
        image, foreground = torch.from_numpy(result.prepared.image), torch.from_numpy(result.prepared.foreground)
        inputs = inputs_for(models, image[None], foreground[None, None], detector.config, bf16=detector.bf16)
        begun = time.perf_counter()
        get("restoration")(inputs, {})
        seconds = time.perf_counter() - begun
    return Speed(
        command=f"python -m medgen.pipelines.bench.speed.scan_cost {model.parent.name}/{model.name} {scan.name}",
        shape=tuple(volume.grid.shape),
        spacing=tuple(round(float(size), 4) for size in volume.grid.spacing),
        threads=torch.get_num_threads(),
        load_s=loaded - start,
        score_s=scored,
        score_cpu_s=worked,
        peak_mb=peak / 1e6,
        restoration_s=seconds,
        restoration_steps=detector.config.restoration_steps,
        folds=len(detector.members),
    )


def measure_apart(model: Path, scan: Path) -> Speed:
    """:func:`measure` in a new Python process.

    Raises:
        DataError: If that process fails.
    """
    found = apart(f"{scan}: cannot be timed", "medgen.pipelines.bench.speed.scan_cost", model, scan)
    return Speed(**{**found, "shape": tuple(found["shape"]), "spacing": tuple(found["spacing"])})


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        print(json.dumps(asdict(measure(Path(sys.argv[1]), Path(sys.argv[2])))))
    except MedgenError as error:
        sys.exit(f"medgen: {error}")
