"""How much memory there is to take, and giving back what is no longer used."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_GIB = 1 << 30
# Measured with residual blocks of 16 to 64 channels: from 8 planes on, slabs take 0.8 to 1.2 of the time of the whole.
_WORKING_BYTES = 1 << 27
_WORKING: ContextVar[int | None] = ContextVar("working_bytes", default=None)


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


@contextmanager
def working_memory(size: int) -> Iterator[None]:
    """Let :func:`room_for` give so many bytes in this thread until the block is left."""
    token = _WORKING.set(size)
    try:
        yield
    finally:
        _WORKING.reset(token)


def room_for(needed: int, device: torch.device) -> int:
    """Of the bytes that the intermediate results of one layer need, those that they may take at once.

    With fewer than it needs, the layer is computed part by part. On a GPU they may take a quarter of what is free, for
    large parts are faster there. Elsewhere the number is fixed, so that results do not depend on what else runs: parts
    of that size are as fast as the whole.
    """
    if (given := _WORKING.get()) is not None:
        return min(needed, given)
    if device.type == "cuda" and needed > _WORKING_BYTES:
        import torch

        free = torch.cuda.mem_get_info(device)[0]
        # What PyTorch holds without using it is free as well.
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return min(needed, max((free + unused) // 4, _WORKING_BYTES))
    return min(needed, _WORKING_BYTES)


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


@contextmanager
def settled() -> Iterator[None]:
    """Let the collector leave alone, within the block, what is there at its start: it is asked once for every scan.

    The modules of a running program are some million objects, and looking through them for what nobody uses takes
    longer than drawing a scan's pictures.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@cache
def _trim() -> Any:
    """``malloc_trim`` of glibc; None where the C library has none."""
    try:
        return getattr(ctypes.CDLL(None), "malloc_trim", None)
    except OSError:
        return None
