"""Both pipelines on a simulated cohort: what ``medgen demo`` and ``make demo`` run."""

from __future__ import annotations

import json
import sys
from functools import partial
from importlib.resources import files
from pathlib import Path

from medgen.config import load_config
from medgen.data.simulation import simulate
from medgen.progress import bars
from medgen.report import demonstration
from medgen.runs.folder import RunSummary

from .anomaly import run as anomaly
from .anomaly.config import AnomalyRunConfig
from .augment import run as augment
from .augment.config import AugmentRunConfig
from .preflight import check_new

SUBJECTS = 40
SPACING_MM = 4.0


def settings(out: Path, device: str) -> tuple[AnomalyRunConfig, AugmentRunConfig]:
    """The configurations of both runs below ``out``: those that are shipped under the name ``simulated``."""
    configs = Path(str(files("medgen.configs")))
    common = [f"data={json.dumps(str(out / 'cohort'))}", f"device={device}"]
    first, second = (
        (configs / name / "simulated.yaml", [*common, f"out={json.dumps(str(out / name))}"])
        for name in ("anomaly", "augment")
    )
    return load_config(AnomalyRunConfig, *first), load_config(AugmentRunConfig, *second)


def run(out: Path, *, device: str, overwrite: bool, progress: bool) -> RunSummary:
    """Simulate 40 subjects, run ``anomaly`` and ``augment`` with the shipped ``simulated`` configurations.

    What will be done and how long it takes here is said first on the error stream, what to look at last.

    Args:
        out: Folder for ``cohort/``, ``anomaly/``, ``augment/`` and the MLflow store. An existing cohort of an earlier
            demo is used again, since it depends on nothing but its seed.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        overwrite: Replace the runs of an earlier demo.
        progress: Show progress bars.

    Raises:
        ConfigError: If the folder already holds runs and ``overwrite`` is not set.
    """
    for name in ("anomaly", "augment"):
        check_new(out / name, overwrite=overwrite)
    found, labelled = settings(out, device)
    seconds = demonstration.seconds_here()
    generators = labelled.generators.names
    print("\n".join(demonstration.opening(out, SUBJECTS, SPACING_MM, generators, seconds)), file=sys.stderr, flush=True)
    cohort = out / "cohort"
    if not (cohort / "manifest.csv").is_file():
        with bars(progress) as tick:
            simulate(cohort, n=SUBJECTS, seed=0, spacing=SPACING_MM, progress=partial(tick, "simulating the cohort"))
    first = anomaly.run(found, resume=False, overwrite=overwrite, progress=progress)
    second = augment.run(labelled, resume=False, overwrite=overwrite, progress=progress)
    lines = (*first.lines, *second.lines, "", *demonstration.closing(out))
    return RunSummary(out, max(first.exit_code, second.exit_code), lines)
