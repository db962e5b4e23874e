"""Refusals that are quick, small and in one line, and what is needed to see that they are."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from medgen.errors import MedgenError

MIB = 1 << 20
# A hostile file of kilobytes must not cost more. Text of the largest size that is accepted is held twice.
_MEMORY = 200 * MIB
_SECONDS = 2.0
_HANGS = 20.0


class Canary:
    """Unpickled, it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.path), "w")


def refusal(load: Callable[[], object], *named: str) -> str:
    """The one line with which a file is refused; fails if it is not, or at too great a cost.

    Args:
        load: Reads the file.
        *named: What the line must hold, such as the file's name.
    """
    with _bounded(), pytest.raises(MedgenError) as caught:
        load()
    message = str(caught.value)
    assert "\n" not in message
    for text in named:
        assert text in message, message
    return message


@contextmanager
def _bounded() -> Iterator[None]:
    def hang(number: int, frame: object) -> None:
        pytest.fail("neither read nor refused within 20 s")

    # Since here; where the kernel cannot count anew, the peak since the start of the process is a weaker bound.
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before, begun = _resident("VmRSS"), time.process_time()
    earlier = signal.signal(signal.SIGALRM, hang)
    signal.setitimer(signal.ITIMER_REAL, _HANGS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)
    assert time.process_time() - begun < _SECONDS
    assert _resident("VmHWM") - before < _MEMORY


def _resident(name: str) -> int:
    """Resident memory in bytes: ``VmRSS`` now, ``VmHWM`` at most."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    pytest.skip(f"this system does not tell {name}")
