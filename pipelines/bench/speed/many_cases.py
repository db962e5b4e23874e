"""Thousands of tiny scans checked in shards, in a process of its own: what it takes, and what a killed worker costs.

``python -m medgen.pipelines.bench.speed.many_cases FOLDER EXECUTOR CASES WORKERS KILL`` prints one JSON document.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil

from medgen import io
from medgen.audit.chain import check_journal
from medgen.data.cases import Case
from medgen.errors import DataError
from medgen.runs.cases.manifest import Item, stamp
from medgen.runs.cases.map_cases import Spread, map_cases
from medgen.runs.chain import head_of
from medgen.runs.journal import Journal, entries
from medgen.runs.run import Run
from medgen.volume import Grid, Volume

from ...spread.check import LookAt
from .commands import apart

# Side of a scan in voxels.
SIDE = 8


@dataclass(frozen=True)
class Measured:
    """What checking so many scans has taken.

    Attributes:
        executor: Where they were checked.
        cases: How many there were.
        wall_s: Seconds on the clock, with the start of the workers.
        parent_cpu_s: Computing time of the process that hands out shards.
        shards_cpu_s: Computing time of the shards, without the start of the workers.
        rss_mb: Memory of the parent after a tenth of the cases, in 10⁶ bytes.
        rss_end_mb: The same after the last.
        worker_mb: The most that a worker has had.
        journal_bytes: Size of the run's journal.
        shard_bytes: Size of the shards' folders.
        shards: How many there were.
        begun: How often shards were begun; one more than ``shards`` where one worker was killed.
        lost: Cases without a result.
        doubled: Cases with several, or done by several shards.
        faults: Lines of the merged journal that do not verify.
        killed: Process that was killed; 0 for none.
    """

    executor: str
    cases: int
    wall_s: float
    parent_cpu_s: float
    shards_cpu_s: float
    rss_mb: float
    rss_end_mb: float
    worker_mb: float
    journal_bytes: int
    shard_bytes: int
    shards: int
    begun: int
    lost: int
    doubled: int
    faults: int
    killed: int

    @property
    def cost_s(self) -> float:
        """Computing time of all but the start of the workers."""
        return self.parent_cpu_s + self.shards_cpu_s


def make_scans(folder: Path, count: int) -> None:
    """Write scans of noise, 0.nii.gz, 1.nii.gz, ...; those that are there stay."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        if not (path := folder / f"{number}.nii.gz").is_file():
            data = np.random.default_rng(number).random((1, SIDE, SIDE, SIDE)).astype(np.float32)
            io.write(Volume(data, Grid((SIDE,) * 3, np.eye(4))), path)


def measured(scans: Path, executor: str, cases: int, workers: int = 2, *, kill: bool = False) -> Measured:
    """Check scans in a fresh process.

    Raises:
        DataError: If the process fails.
    """
    failed = f"{scans}: checking {cases} scans has failed"
    module = "medgen.pipelines.bench.speed.many_cases"
    return Measured(**apart(failed, module, scans, executor, cases, workers, int(kill)))


def measure(scans: Path, executor: str, cases: int, workers: int, kill: bool) -> Measured:
    """Check scans here; meant for a fresh process."""
    place = Path(tempfile.mkdtemp(prefix="many-", dir=scans.parent))
    own = psutil.Process()

    def stream() -> Iterator[Item]:
        for number in range(cases):
            path = scans / f"{number}.nii.gz"
            yield Item(f"{number}", Case(f"{number}", f"{number}", (path,)), {path.name: stamp(path)})

    journal = Journal(place)
    run = Run("bench", place, journal)
    killed: list[int] = []
    memory: list[float] = []
    seen: Counter[int] = Counter()
    expected = 0
    wall, cpu = time.perf_counter(), time.process_time()
    with run.recorded({}):
        found = map_cases(
            LookAt(scans, {}),
            stream(),
            count=cases,
            folder=place / "shards",
            settings={"work": "bench"},
            spread=Spread(executor, workers),
            run=run,
        )
        for name, result in found:
            if result["faults"] or not result["content"]:
                raise DataError(f"{name}: {result['faults']}")
            seen[min(int(name) - expected, 1)] += 1
            expected = int(name) + 1
            done = seen.total()
            if done == max(cases // 10, 1):
                memory.append(own.memory_info().rss / 1e6)
            if kill and not killed and done >= cases // 3:
                killed.append(_killed(own))
    memory.append(own.memory_info().rss / 1e6)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    journal.close()
    path = place / "journal.jsonl"
    head = head_of(path)
    faults = check_journal(path, {"lines": head.lines, "chain": head.chain}).faults
    said: dict[str, list[float]] = {}
    for entry, _ in entries(path):
        for key, value in entry.get("values", {}).items() if entry["kind"] == "metrics" else ():
            said.setdefault(key, []).append(float(value))
    total = seen.total()
    told = Measured(
        executor,
        cases,
        wall,
        cpu,
        sum(said["shard.cpu_seconds"]),
        memory[0],
        memory[-1],
        max(said["shard.peak_mb"]),
        path.stat().st_size,
        sum(own.stat().st_size for own in (place / "shards").rglob("*") if own.is_file()),
        len(said["shard.cases"]),
        int(sum(said["shard.begun"])),
        cases - seen[0],
        total - seen[0] + int(sum(said["shard.cases"])) - cases,
        len(faults),
        killed[0] if killed else 0,
    )
    shutil.rmtree(place)
    return told


def _killed(own: psutil.Process) -> int:
    """Kill one of the workers, the busiest; its number."""
    workers = [child for child in own.children(recursive=True) if "spawn_main" in " ".join(child.cmdline())]
    victim = max(workers, key=lambda child: sum(child.cpu_times()[:2]))
    os.kill(victim.pid, signal.SIGKILL)
    return victim.pid


if __name__ == "__main__":
    folder, name, number, count, ending = sys.argv[1:]
    print(json.dumps(asdict(measure(Path(folder), name, int(number), int(count), ending == "1"))))
