"""What ``medgen demo`` says before it starts and when it is done, from its settings and from what its runs measured."""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medgen.system.advice import quoted

# Processor time of a whole demo, and of the probe below, on the machine where both were measured; in seconds.
_DEMO, _PROBE = 1080.0, 0.93
_STEPS = 30
# Beyond so many cores a demo becomes hardly faster; of the time of both, so much is spent where one has to wait.
_CORES, _WAITING = 2, 1.25


def seconds_here() -> float:
    """How long a demo takes on this machine, in seconds, by the processor time of a few convolutions."""
    cores = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, _CORES)
    return _DEMO * probe() / _PROBE / cores * _WAITING


def probe() -> float:
    """Processor time of some steps of a small network, in seconds; other programs hardly change it."""
    import torch

    layer = torch.nn.Conv3d(16, 16, 3, padding=1)
    image = torch.rand(2, 16, 24, 24, 24)
    layer(image).sum().backward()
    start = time.process_time()
    for _ in range(_STEPS):
        layer(image).sum().backward()
    return time.process_time() - start


def opening(out: Path, subjects: int, spacing_mm: float, generators: Sequence[str], seconds: float) -> list[str]:
    """What a demo is going to do, where, and how long that takes.

    Args:
        out: Its folder.
        subjects: Number of simulated brains.
        spacing_mm: Their voxel size.
        generators: Names of the generators that are trained.
        seconds: The estimate.
    """
    return [
        f"medgen demo, in {out}:",
        f"  cohort   {subjects} simulated brains of {spacing_mm:g} mm with labels; no patient's data",
        "  anomaly  learns healthy brains, then looks for anomalies that it puts into brains it has not seen",
        f"  augment  makes labelled brains ({', '.join(generators)}) and measures whether they help a segmenter",
        f"takes about {max(round(seconds / 60), 1)} min here if nothing else needs the machine; nothing leaves it",
    ]


def closing(out: Path) -> list[str]:
    """Where to look, what to expect there, and what to try next, from what the runs in ``out`` have written."""
    anomaly, augment = out / "anomaly", out / "augment"
    lines = ["where to look:"]
    if (anomaly / "report.html").is_file():
        lines += [f"  medgen open {quoted(anomaly)}", f"    {found_words(_metrics(anomaly))}"]
    if (augment / "report.html").is_file():
        lines += [f"  medgen open {quoted(augment)}", f"    {helped_words(_metrics(augment))}"]
    if scan := _held_out(out):
        model, scored = quoted(anomaly / "model"), quoted(out / "scored")
        lines += ["what to try next:", f"  medgen anomaly score {quoted(scan)} --model {model} --out {scored}"]
    return lines


def found_words(metrics: Mapping[str, Any]) -> str:
    """What to expect in the report of the anomaly run, from its ``metrics.json``."""
    findings = metrics["findings"]
    level = findings["level"]
    whole = next(group for group in findings["groups"] if group["by"] == "all")
    share = next(item for item in whole["shares"] if item["level"] == level)
    return (
        f"expect heatmaps with findings on {share['found']} of {whole['scans']} implanted anomalies at {level:g} false "
        f"findings per healthy scan, the others in a list of what is missed"
    )


def helped_words(metrics: Mapping[str, Any]) -> str:
    """What to expect in the report of the augment run, from its ``metrics.json``."""
    accepted = sum(own["accepted"] for own in metrics["generators"].values())
    rejected = sum(own["rejected"] for own in metrics["generators"].values())
    return (
        f"expect the verdict {metrics['verdict']}, {accepted} labelled brains beside real ones, and why {rejected} "
        "more were refused"
    )


def _metrics(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    return found


def _held_out(out: Path) -> Path | None:
    """A scan of the cohort that the detector has not seen."""
    splits = out / "anomaly" / "splits.csv"
    if not splits.is_file():
        return None
    with splits.open(encoding="utf-8", newline="") as file:
        cases = [row["case"] for row in csv.DictReader(file) if row["part"] == "test"]
    return out / "cohort" / "images" / f"{cases[0]}.nii.gz" if cases else None
