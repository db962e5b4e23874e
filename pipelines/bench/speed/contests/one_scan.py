"""What a user waits for and pays for one scan: start-up, a head of 1 mm by all default scores, further scans."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from ..commands import command, shipped
from ..contest import Entry, Figure, Settings, Table
from ..scan_cost import measure_apart

# Grid, folds, draws and network of the shipped configuration of whole brains, trained for a moment: what a score costs
# does not depend on what the weights have learnt.
_DETECTOR = (
    "preprocess.shape=[80,104,80]",
    "preprocess.spacing=[2,2,2]",
    "preprocess.align=affine",
    "anomaly.folds=4",
    "anomaly.likelihood_samples=8",
    "model.widths=[16,32,64]",
    "model.latent=12",
    "training.steps=4",
    "evaluation.per_scan=1",
)
_SUBJECTS, _COHORT_MM, _HEAD_MM = 14, 4.0, 1.0
_SECONDS, _MEGABYTES, _START_UP = 5.0, 1500.0, 3.0
# Scans of the short and of the long scoring whose peaks are compared.
_SHORT, _LONG = 3, 11
_STARTS = (("--help",), ("anomaly", "run", "no-such-configuration"), ("anomaly", "run", "oasis", "folds=nonsense"))


def entries(settings: Settings) -> Iterator[Entry]:
    """Processor time and memory of processes of their own."""
    starts = {" ".join(("medgen", *words)): {"seconds": command(*words, may_fail=True).seconds} for words in _STARTS}
    yield Figure(
        "start-up", max(row["seconds"] for row in starts.values()), "s", _START_UP, notes=("The slowest of the table.",)
    )
    yield Table("start-up: processor time", starts)
    cohort, run, heads = (settings.scratch / name for name in ("cohort", "run", "heads"))
    command(
        "data", "simulate", str(cohort), "-n", str(_SUBJECTS), "--spacing", "8" if settings.quick else f"{_COHORT_MM:g}"
    )
    given = [f"data={json.dumps(str(cohort))}", f"out={json.dumps(str(run))}", *(() if settings.quick else _DETECTOR)]
    command("anomaly", "run", str(shipped("tiny/anomaly.yaml")), *given)
    command("data", "simulate", str(heads), "-n", "1", "--spacing", "8" if settings.quick else f"{_HEAD_MM:g}")
    (head,) = sorted((heads / "images").glob("*.nii.gz"))
    cost = measure_apart(run / "model", head)
    size = " x ".join(map(str, cost.shape))
    notes = (
        f"{size} voxels; {cost.folds} folds, every score that the configuration chooses from, registration included.",
    )
    yield Figure("a head of 1 mm: processor time after loading", cost.score_cpu_s, "s", _SECONDS, notes=notes)
    yield Figure("a head of 1 mm: peak memory", cost.peak_mb, "MB", _MEGABYTES, notes=("Of the whole process.",))
    scans = sorted((cohort / "images").glob("*.nii.gz"))
    peaks = [_scored(run, scans[:count], settings.scratch / f"scored-{count}") for count in (_SHORT, _LONG)]
    yield Figure(
        "memory per further scored scan",
        (peaks[1] - peaks[0]) / (_LONG - _SHORT),
        "MB",
        1.0,
        notes=(
            f"Peak of a scoring of {_LONG} scans less that of one of {_SHORT}: {peaks[1]:.0f} and {peaks[0]:.0f} MB.",
        ),
    )


def _scored(run: Path, scans: list[Path], out: Path) -> float:
    names = [str(scan) for scan in scans]
    return command("anomaly", "score", *names, "--model", str(run / "model"), "--out", str(out), "--ungated").peak_mb
