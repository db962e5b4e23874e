"""Load of the machine while a run goes on, under the keys that MLflow shows as system metrics."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

_LOG = logging.getLogger(__name__)

# Seconds between two looks: a run of hours stays below a few thousand points.
INTERVAL = 10.0
_MB = 1e6


def wanted() -> bool:
    """Whether they are kept: unless MLflow's own switch, ``MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING``, is off."""
    return os.environ.get("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true").strip().lower() not in ("false", "0")


def interval() -> float:
    """Seconds between two looks: ``MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL`` where it is a number, at least 1."""
    with suppress(ValueError):
        return max(1.0, float(os.environ.get("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", INTERVAL)))
    return INTERVAL


@contextmanager
def watched(log: Callable[[Mapping[str, float], int], None], out: Path) -> Iterator[None]:
    """Look at the machine from another thread while the block runs; the first time after one interval.

    Args:
        log: Called with (numbers, number of the look).
        out: A folder on the disk that the run writes to.
    """
    if not wanted():
        yield
        return
    done, pause = threading.Event(), interval()
    thread = threading.Thread(target=_watch, args=(log, out, done, pause), name="medgen-system", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(pause)


def _watch(log: Callable[[Mapping[str, float], int], None], out: Path, done: threading.Event, pause: float) -> None:
    psutil.cpu_percent()
    start, step = psutil.net_io_counters(), 0
    while not done.wait(pause):
        try:
            log({f"system/{key}": value for key, value in _look(out, start).items()}, step)
        except Exception as error:  # what cannot be measured must not end a training
            _LOG.info("load of the machine cannot be read: %s", error)
            return
        step += 1


def _look(out: Path, start: psutil._ntuples.snetio | None) -> dict[str, float]:
    memory, disk = psutil.virtual_memory(), psutil.disk_usage(str(out))
    found = {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": memory.used / _MB,
        "system_memory_usage_percentage": memory.percent,
        "process_memory_usage_megabytes": psutil.Process().memory_info().rss / _MB,
        "disk_usage_megabytes": disk.used / _MB,
        "disk_usage_percentage": disk.percent,
        "disk_available_megabytes": disk.free / _MB,
    }
    network = psutil.net_io_counters()
    if start is not None and network is not None:
        found["network_receive_megabytes"] = (network.bytes_recv - start.bytes_recv) / _MB
        found["network_transmit_megabytes"] = (network.bytes_sent - start.bytes_sent) / _MB
    return found | _gpus()


def _gpus() -> dict[str, float]:
    """Memory of every GPU; none where the run has not used one, since asking would start its driver."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    found = {}
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        found[f"gpu_{number}_memory_usage_megabytes"] = (total - free) / _MB
        found[f"gpu_{number}_memory_usage_percentage"] = 100 * (1 - free / total)
    return found
