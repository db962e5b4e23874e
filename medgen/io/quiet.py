"""Silence of libraries that warn about what is checked here anyway."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOCK = threading.Lock()
_MUTE = threading.Lock()
_USERS: list[warnings.catch_warnings] = []
_COUNT = [0]
_LEVEL = [logging.NOTSET]


@contextmanager
def quiet() -> Iterator[None]:
    """Neither warnings nor log lines of pydicom inside the block; several threads may be inside at once.

    ``warnings.catch_warnings`` alone is not enough: with two threads the first one out would put back the filters
    under the second one's feet, and the second one would then keep the silent ones for good.
    """
    log = logging.getLogger("pydicom")
    with _LOCK:
        _COUNT[0] += 1
        if _COUNT[0] == 1:
            _USERS.append(warnings.catch_warnings())
            _USERS[0].__enter__()
            warnings.simplefilter("ignore")
            # A level, since it holds for the loggers below too.
            _LEVEL[0] = log.level
            log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        with _LOCK:
            _COUNT[0] -= 1
            if _COUNT[0] == 0:
                _USERS.pop().__exit__(None, None, None)
                log.setLevel(_LEVEL[0])


@contextmanager
def mute() -> Iterator[None]:
    """Nothing on the standard error of the whole process inside the block; one thread at a time.

    For decoders in C that print what is raised as an error anyway. What other threads print meanwhile is lost, so the
    block should be as short as the decoding of one file.
    """
    with _MUTE:
        try:
            kept = os.dup(2)
        except OSError:  # a process without standard error
            yield
            return
        try:
            with Path(os.devnull).open("wb") as nowhere:
                os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
