"""Checking 10,000 tiny scans in shards: cost as their number grows, memory that stays flat, a worker that is killed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from ..clock import exponent
from ..contest import Entry, Figure, Settings, Table
from ..many_cases import SIDE, make_scans, measured

_EXECUTORS = ("local", "dask")
_AMOUNTS, _FEW = (100, 1000, 10_000), (20, 60)
_SHOWN = (
    ("wall_s", "seconds on the clock"),
    ("parent_cpu_s", "CPU s, parent"),
    ("shards_cpu_s", "CPU s, shards"),
    ("rss_end_mb", "parent, MB"),
    ("worker_mb", "worker, MB"),
    ("shards", "shards"),
    ("begun", "shards begun"),
    ("lost", "lost"),
    ("doubled", "doubled"),
    ("faults", "faults of the journal"),
    ("journal_bytes", "journal, bytes"),
    ("shard_bytes", "shards, bytes"),
)


def entries(settings: Settings) -> Iterator[Entry]:
    """Each executor with a growing number of scans; with the most of them, a worker is killed after a third."""
    amounts = _FEW if settings.quick else _AMOUNTS
    scans = settings.scratch / "scans"
    make_scans(scans, amounts[-1])
    for executor in _EXECUTORS:
        found = [measured(scans, executor, amount, kill=amount == amounts[-1]) for amount in amounts]
        last, before = found[-1], found[-2]
        rows = {f"{one.cases} cases": {title: asdict(one)[key] for key, title in _SHOWN} for one in found}
        note = (
            f"Each case is a NIfTI file of {SIDE}³ voxels, hashed, read, checked and described by two workers, one "
            f"thread each. With {last.cases} cases the busiest worker was killed (SIGKILL) after a third of them."
        )
        yield Table(f"cases in shards, executor {executor}", rows, notes=(note,))
        yield Figure(
            f"exponent of cost in cases, {executor}",
            exponent([one.cases for one in found], [one.cost_s for one in found]),
            "",
            1.05,
            notes=("Cost is the computing time of the parent and of the shards, without the start of the workers.",),
        )
        yield Figure(f"throughput, {executor}", last.cases / last.wall_s, "cases/s", better="more")
        yield Figure(
            f"lost or doubled of {last.cases}, a worker killed, {executor}", float(last.lost + last.doubled), "cases", 0
        )
        yield Figure(
            f"shards begun again after a worker was killed, {executor}", float(last.begun - last.shards), "shards", 1
        )
        yield Figure(
            f"growth of the parent from {before.cases} to {last.cases} cases, {executor}",
            last.rss_end_mb - before.rss_end_mb,
            "MB",
            5 if executor == "local" else 20,
        )
