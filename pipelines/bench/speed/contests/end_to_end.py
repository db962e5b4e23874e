"""Whole runs as a user starts them, each in a process of its own: processor time, peak memory, seconds by stage."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from ..commands import Cost, command, shipped
from ..contest import Entry, Figure, Settings, Table

# Minutes of processor time.
_DEMO, _ANOMALY = 5.0, 8.0
_NOTE = "user and system time of all its processes, imports, reports and MLflow included; one thread for each product"


def entries(settings: Settings) -> Iterator[Entry]:
    """``medgen demo``, and ``medgen anomaly run oasis`` where the cohort is given; quick, a tiny cohort's run."""
    if settings.quick:
        cohort, out = settings.scratch / "cohort", settings.scratch / "anomaly"
        command("data", "simulate", str(cohort), "-n", "14", "--spacing", "8")
        done = command(
            "anomaly",
            "run",
            str(shipped("tiny/anomaly.yaml")),
            f"data={json.dumps(str(cohort))}",
            f"out={json.dumps(str(out))}",
        )
        yield from _told("anomaly run, tiny", done, [out], None)
        return
    out = settings.scratch / "demo"
    done = command("demo", "--out", str(out))
    yield from _told("demo", done, [out / "anomaly", out / "augment"], _DEMO)
    if settings.data is not None:
        out = settings.scratch / "oasis"
        done = command(
            "anomaly", "run", "oasis", f"data={json.dumps(str(settings.data))}", f"out={json.dumps(str(out))}"
        )
        yield from _told("anomaly run oasis", done, [out], _ANOMALY)


def _told(name: str, done: Cost, runs: list[Path], goal: float | None) -> Iterator[Entry]:
    yield Figure(f"{name}: processor time", done.seconds / 60, "min", goal, notes=(_NOTE,))
    yield Figure(f"{name}: peak memory", done.peak_mb, "MB")
    rows = {f"{run.name}: {stage}": {"seconds": seconds} for run in runs for stage, seconds in stages_of(run).items()}
    yield Table(f"{name}: seconds by stage", rows, ("From the run's journal, by the clock on the wall.",))


def stages_of(run: Path) -> dict[str, float]:
    """Seconds from start to end of every stage of a run, by its name, in their order.

    Args:
        run: Folder of the run, with its journal.
    """
    begun: dict[str, tuple[str, int]] = {}
    found: dict[str, float] = {}
    whole = ""
    for line in (run / "journal.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry["kind"] == "start":
            whole = whole or entry["run"]
            if entry["parent"] == whole:
                begun[entry["run"]] = entry["name"], int(entry.get("began", entry["time"]))
        elif entry["kind"] == "end" and entry["run"] in begun:
            name, start = begun[entry["run"]]
            found[name] = (int(entry.get("ended", entry["time"])) - start) / 1000
    return found
