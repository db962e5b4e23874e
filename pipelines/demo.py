"""Both pipelines on a simulated cohort: what ``medgen demo`` and ``make demo`` run."""

from __future__ import annotations

from functools import partial
from importlib.resources import files
from pathlib import Path

from medgen.config import load_config
from medgen.data.simulation import simulate
from medgen.errors import ConfigError
from medgen.progress import bars
from medgen.runs.folder import RunSummary

from .anomaly import run as anomaly
from .anomaly.config import AnomalyRunConfig
from .augment import run as augment
from .augment.config import AugmentRunConfig

SUBJECTS = 40
SPACING_MM = 4.0


def run(out: Path, *, device: str, overwrite: bool, progress: bool) -> RunSummary:
    """Simulate 40 subjects, run ``anomaly`` and ``augment`` with the shipped ``simulated`` configurations.

    Args:
        out: Folder for ``cohort/``, ``anomaly/``, ``augment/`` and the MLflow store. An existing cohort of an earlier
            demo is used again, since it depends on nothing but its seed.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        overwrite: Replace the runs of an earlier demo.
        progress: Show progress bars.

    Raises:
        ConfigError: If the folder already holds runs and ``overwrite`` is not set.
    """
    runs = [out / "anomaly", out / "augment"]
    held = [folder for folder in runs if folder.exists() and any(folder.iterdir())]
    if held and not overwrite:
        raise ConfigError(f"{held[0]}: already holds a run; pass --overwrite to start again, or another --out")
    cohort = out / "cohort"
    if not (cohort / "manifest.csv").is_file():
        with bars(progress) as tick:
            simulate(cohort, n=SUBJECTS, seed=0, spacing=SPACING_MM, progress=partial(tick, "simulating the cohort"))
    configs = Path(str(files("medgen.configs")))
    common = [f"data={cohort}", f"device={device}"]
    settings = load_config(
        AnomalyRunConfig, configs / "anomaly" / "simulated.yaml", [*common, f"out={out / 'anomaly'}"]
    )
    first = anomaly.run(settings, resume=False, overwrite=overwrite, progress=progress)
    labelled = load_config(
        AugmentRunConfig, configs / "augment" / "simulated.yaml", [*common, f"out={out / 'augment'}"]
    )
    second = augment.run(labelled, resume=False, overwrite=overwrite, progress=progress)
    return RunSummary(out, max(first.exit_code, second.exit_code), (*first.lines, *second.lines))
