"""How much memory there is to take, and giving back what is no longer used."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from functools import cache
from pathlib import Path
from typing import Any

_GIB = 1 << 30


def available_memory() -> float:
    """Memory this process may still take, in GiB: what the machine has free, or less where a limit is set on it.

    Limits are those of the cgroup and of ``ulimit -v``.
    """
    import psutil

    free = int(psutil.virtual_memory().available)
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    if most != resource.RLIM_INFINITY:
        free = min(free, most - psutil.Process().memory_info().vms)
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            free = min(free, int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):
            # No cgroup, or "max".
            continue
    return max(free, 0) / _GIB


def readable_bytes() -> int:
    """Largest file that may be read into memory as a whole: half of what is available."""
    return int(available_memory() * _GIB / 2)


def peak_bytes() -> int:
    """Largest resident memory of this process so far, in bytes."""
    status = Path("/proc/self/status")
    # Not getrusage where there is a choice: on Linux a child's value starts at that of the process that started it.
    if status.is_file():
        line = next((text for text in status.read_text().splitlines() if text.startswith("VmHWM:")), "")
        if line:
            return int(line.split()[1]) * 1024
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def let_go() -> None:
    """Give memory that nothing uses any more back to the system, in some tenths of a second.

    Python frees at once what nobody refers to, but objects that refer to each other, as the parts of a figure do, wait
    for its collector; and what is freed stays with the C library, in pieces, where glibc is not asked to return it.
    """
    gc.collect()
    if (trim := _trim()) is not None:
        trim(0)


@cache
def _trim() -> Any:
    """``malloc_trim`` of glibc; None where the C library has none."""
    try:
        return getattr(ctypes.CDLL(None), "malloc_trim", None)
    except OSError:
        return None
