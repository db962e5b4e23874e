"""Both pipelines on a simulated cohort, and a DICOM series through its model: what ``medgen demo`` runs."""

from __future__ import annotations

import csv
import json
import sys
from functools import partial
from importlib.resources import files
from pathlib import Path

import numpy as np

from medgen import __version__, io
from medgen.config import load_config
from medgen.data.simulation import simulate
from medgen.errors import ConfigError, DataError
from medgen.implants.scan import implant
from medgen.io.dicom.objects.synthetic import SyntheticScan
from medgen.io.dicom.objects.wanted import KINDS, check_wanted
from medgen.io.dicom.objects.write import write_synthetic
from medgen.progress import bars
from medgen.report import demonstration
from medgen.runs.folder import RunSummary
from medgen.seeds import numpy_rng
from medgen.system.files import sha256_file
from medgen.transforms.foreground import foreground_mask

from .anomaly import run as anomaly
from .anomaly import score as scoring
from .anomaly.config import AnomalyRunConfig
from .augment import run as augment
from .augment.config import AugmentRunConfig
from .given_scans import GivenScan
from .preflight import check_new, check_scans

SUBJECTS = 40
SPACING_MM = 4.0
# Of the demo's own lesion: large and bright enough for a model at 4 mm that was trained for a minute.
LESION_MM, LESION_CONTRAST = 18.0, 4.0
SERIES, SCORED = "series", "scored"
_CONFIGS = Path(str(files("medgen.configs")))


def settings(out: Path, device: str) -> tuple[AnomalyRunConfig, AugmentRunConfig]:
    """The configurations of both runs below ``out``: those that are shipped under the name ``simulated``."""
    common = [f"data={json.dumps(str(out / 'cohort'))}", f"device={device}"]
    first, second = (
        (_CONFIGS / name / "simulated.yaml", [*common, f"out={json.dumps(str(out / name))}"])
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
    _cohort(out, progress)
    first = anomaly.run(found, resume=False, overwrite=overwrite, progress=progress)
    second = augment.run(labelled, resume=False, overwrite=overwrite, progress=progress)
    lines = (*first.lines, *second.lines, "", *demonstration.closing(out))
    return RunSummary(out, max(first.exit_code, second.exit_code), lines)


def through_dicom(out: Path, series: Path | None = None, *, device: str, overwrite: bool, progress: bool) -> RunSummary:
    """Score a DICOM series with the demo's anomaly model: heatmap, DICOM objects and a viewer.

    The model of an earlier demo is used again; without one the cohort is simulated and the model trained.

    Args:
        out: Folder of the demo; results go to ``scored/`` in it.
        series: Folder with a series; None makes one, ``series/demo-scan``, of a simulated test scan with a lesion,
            which the model has not seen. ``series/seg.dcm`` is the lesion's outline.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        overwrite: Replace the results of an earlier scoring; the model stays.
        progress: Show progress bars.

    Raises:
        ConfigError: If highdicom is not installed, or there are results and ``overwrite`` is not set.
        DataError: If the series cannot be used.
    """
    check_wanted(KINDS)
    if series is not None:
        check_scans([series])
        if not GivenScan.is_series(series):
            raise DataError(
                f"{series}: found a file that is not DICOM; expected the folder of a series; check the path"
            )
        # What cannot be read is said now, and not after minutes of training.
        io.read(series)
    if (out / SCORED).exists() and not overwrite:
        raise ConfigError(f"{out / SCORED}: already there; pass --overwrite to replace it, the model stays")
    lines: tuple[str, ...] = ()
    if not (out / "anomaly" / "outputs.json").is_file():
        _cohort(out, progress)
        lines = anomaly.run(settings(out, device)[0], resume=True, overwrite=False, progress=progress).lines
    given = _demo_series(out) if series is None else series
    done = scoring.score(
        [given],
        model=out / "anomaly" / "model",
        out=out / SCORED,
        device=device,
        # The model knows simulated scans alone, and its gate refuses most of any scanner.
        ungated=series is not None,
        viewers="all",
        dicom=KINDS,
        overwrite=overwrite,
        progress=progress,
    )
    viewers = sorted((out / SCORED / "viewers").glob("*.html"))
    told = [f"viewer:   {path}" for path in viewers]
    if series is None:
        told = [f"series:   {given}: a simulated scan with a lesion, outlined in {out / SERIES / 'seg.dcm'}", *told]
    else:
        told.append(
            "the demo's model has seen simulated brains alone: results show how they look, and say nothing of this scan"
        )
    return RunSummary(out / SCORED, done.exit_code, (*lines, *done.lines, *told))


def _cohort(out: Path, progress: bool) -> None:
    """The cohort, which is simulated if it is not there."""
    cohort = out / "cohort"
    if not (cohort / "manifest.csv").is_file():
        with bars(progress) as tick:
            simulate(cohort, n=SUBJECTS, seed=0, spacing=SPACING_MM, progress=partial(tick, "simulating the cohort"))


def _demo_series(out: Path) -> Path:
    """A series of the first test scan with a bright lesion, written once; its folder."""
    folder = out / SERIES / "demo-scan"
    if (out / SERIES / "seg.dcm").is_file():
        return folder
    with (out / "anomaly" / "splits.csv").open(newline="", encoding="utf-8") as file:
        case = next(row["case"] for row in csv.DictReader(file) if row["part"] == "test")
    source = out / "cohort" / "images" / f"{case}.nii.gz"
    scan = io.read(source)
    made = implant(
        scan.data[0],
        foreground_mask(scan.data),
        "hyperintense",
        numpy_rng(0, "demo", case),
        radius_mm=LESION_MM,
        spacing=scan.grid.spacing,
        contrast=LESION_CONTRAST,
    )
    write_synthetic(
        out / SERIES,
        SyntheticScan(
            name=f"demo-{case}",
            images=[scan.with_data(np.asarray(made.image, np.float32)[None])],
            channels=["T1"],
            labels=scan.with_data(made.mask.astype(np.int64)[None]),
            label_names={1: "implanted lesion"},
            modality="MR",
            backend="simulation",
            generator=sha256_file(source),
            stamp="share",
            version=__version__,
        ),
        called=folder.name,
    )
    return folder
