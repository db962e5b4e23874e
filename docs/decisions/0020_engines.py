"""Ray beside dask.distributed, for decision 0020: ``python docs/decisions/0020_engines.py dask|ray`` prints figures.

Two workers on this machine, tasks that do nothing, then one task that kills its worker. Needs both packages, of which
medgen's extra ``cluster`` has one.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import psutil

TASKS, VICTIM = 1000, 3


def nothing(number: int) -> int:
    """A task that does nothing."""
    return number


def deadly(number: int, flag: str) -> int:
    """A task of which one kills its worker, once."""
    if number == VICTIM and not Path(flag).exists():
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.02)
    return number


def memory() -> dict[str, float]:
    """Memory of this process and of all its children, in 10⁶ bytes; what they share is counted once."""
    own = psutil.Process()
    children = [child.memory_full_info().pss / 1e6 for child in own.children(recursive=True)]
    return {
        "head": round(own.memory_full_info().pss / 1e6),
        "others": round(sum(children)),
        "processes": 1 + len(children),
    }


def cpu() -> float:
    """Computing time so far of this process and of all its children, in seconds."""
    own = psutil.Process()
    return sum(sum(process.cpu_times()[:2]) for process in (own, *own.children(recursive=True)))


def megabytes(names: tuple[str, ...]) -> int:
    """Size of installed packages, in 10⁶ bytes."""
    found = [file.locate() for name in names for file in distribution(name).files or ()]
    return round(sum(Path(str(path)).stat().st_size for path in found if Path(str(path)).is_file()) / 1e6)


def with_dask() -> tuple[Callable[[Any, list[tuple[Any, ...]]], list[Any]], Callable[[], None]]:
    """Start dask; what runs tasks and gives results or errors, and what ends it."""
    import dask
    from distributed import Client, LocalCluster

    dask.config.set({"distributed.scheduler.allowed-failures": 0, "distributed.scheduler.worker-saturation": 1.0})
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50)
    client = Client(cluster)

    def run(function: Any, tasks: list[tuple[Any, ...]]) -> list[Any]:
        futures = [client.submit(function, *task, pure=False) for task in tasks]
        return [future.exception() or future.result() for future in futures]

    return run, lambda: (client.close(), cluster.close())[0]


def with_ray() -> tuple[Callable[[Any, list[tuple[Any, ...]]], list[Any]], Callable[[], None]]:
    """The same with Ray."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, logging_level="error", log_to_driver=False)

    def outcome(reference: Any) -> Any:
        try:
            return ray.get(reference)
        except ray.exceptions.RayError as error:
            return error

    def run(function: Any, tasks: list[tuple[Any, ...]]) -> list[Any]:
        remote = ray.remote(max_retries=0)(function)
        return [outcome(reference) for reference in [remote.remote(*task) for task in tasks]]

    return run, ray.shutdown


def main(which: str) -> None:
    """Measure one of the two and print what was found."""
    wall, before = time.perf_counter(), cpu()
    run, end = with_dask() if which == "dask" else with_ray()
    run(nothing, [(0,)])
    found: dict[str, Any] = {"engine": which, "start_s": round(time.perf_counter() - wall, 1)}
    found |= {"start_cpu_s": round(cpu() - before, 1), "idle_mb": memory()}
    times, computing = [], []
    for _ in range(3):
        wall, before = time.perf_counter(), cpu()
        assert run(nothing, [(number,) for number in range(TASKS)]) == list(range(TASKS))
        times.append(round(time.perf_counter() - wall, 2))
        computing.append(round(cpu() - before, 2))
    found |= {"s_per_1000_tasks": times, "cpu_s_per_1000_tasks": computing, "busy_mb": memory()}
    with tempfile.TemporaryDirectory() as folder:
        results = run(deadly, [(number, f"{folder}/died") for number in range(50)])
    found["a_worker_killed"] = {
        number: type(result).__name__ for number, result in enumerate(results) if result != number
    }
    end()
    found["installed_mb"] = megabytes(("dask", "distributed", "tornado", "msgpack") if which == "dask" else ("ray",))
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
