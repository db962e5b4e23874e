"""SIGTERM and Ctrl-C: from the first line of a command to the last the process ends with 143 or 130, and in time.

:func:`terminable` is put around a whole command. Inside it a signal raises :class:`Terminated` in the main thread, so
that ``with`` blocks end, locks are released and the tracked run is KILLED. :func:`deferred` makes a training finish its
step and write a checkpoint first. Where the main thread is deep inside compiled code, Python cannot run a handler at
all; a second thread then ends the process after :data:`GRACE` seconds.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

# Seconds between the signal and the end of the process, come what may. Schedulers kill after 30.
GRACE = 24.0
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Terminated(SystemExit):
    """The process was asked to end; the exit code is 143 for SIGTERM and 130 for SIGINT."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__(128 + number)


class Request:
    """Whether the end was asked for, and by which signal."""

    def __init__(self) -> None:
        self.number: int | None = None

    def is_set(self) -> bool:
        """Whether a signal has come."""
        return self.number is not None

    def check(self) -> None:
        """Raise :class:`Terminated` if a signal has come."""
        if self.number is not None:
            raise Terminated(self.number)


def _main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextmanager
def terminable(grace: float = GRACE) -> Iterator[None]:
    """Raise :class:`Terminated` on SIGTERM or SIGINT, once; later signals do not disturb the tidying up.

    Args:
        grace: Seconds after which the process is ended, with its exit code, if it has not ended by itself.
    """
    if not _main_thread():
        yield
        return
    asked = Request()

    def handle(number: int, frame: FrameType | None) -> None:
        if not asked.is_set():
            asked.number = number
            raise Terminated(number)

    read, write = os.pipe()
    os.set_blocking(write, False)
    before = {number: signal.signal(number, handle) for number in SIGNALS}
    # The byte is written by the C handler, which runs whatever the main thread is doing.
    earlier = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    over = threading.Event()
    threading.Thread(target=_watch, args=(read, over, grace), name="medgen-signals", daemon=True).start()
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(earlier)
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        # Wakes the watching thread, which closes the other end.
        os.close(write)


def _watch(read: int, over: threading.Event, grace: float) -> None:
    """End the process ``grace`` seconds after a signal."""
    try:
        while number := os.read(read, 1):
            if number[0] in SIGNALS:
                if not over.wait(grace):
                    with suppress(Exception):
                        print(f"medgen: did not stop within {grace:.0f} s of the signal; ended", file=sys.stderr)
                    os._exit(128 + number[0])
                return
    finally:
        os.close(read)


@contextmanager
def deferred() -> Iterator[Request]:
    """Yield a request that SIGTERM or SIGINT sets instead of ending the process; a second signal does end it.

    A request that nobody has acted on raises :class:`Terminated` on the way out, so that no signal is lost. Outside
    the main thread Python delivers no signals, and the request is never set.
    """
    asked = Request()
    if not _main_thread():
        yield asked
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise Terminated(number)
        asked.number = number

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield asked
        asked.check()
    finally:
        # None: installed by C code, which Python cannot put back.
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def terminable_until_closing() -> Iterator[threading.Event]:
    """Turn SIGTERM into ``SystemExit(143)`` inside the block, so that ``with`` blocks end and the run is KILLED.

    A handler that is there already runs first. Once the yielded event is set, further signals wait for the end.
    """
    closing = threading.Event()
    if not _main_thread():
        yield closing
        return
    before = signal.getsignal(signal.SIGTERM)
    late = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if closing.is_set():
            late.set()
            return
        if callable(before):
            before(number, frame)
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, handle)
    try:
        yield closing
    finally:
        # None: installed by C code, which Python cannot put back.
        if before is not None:
            signal.signal(signal.SIGTERM, before)
        if late.is_set():
            if callable(before):
                signal.raise_signal(signal.SIGTERM)
            raise SystemExit(128 + signal.SIGTERM)


def ignore() -> None:
    """Leave SIGTERM and SIGINT to the parent: signals often reach a whole group, and the parent decides."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
