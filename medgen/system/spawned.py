"""A process of its own that calls one function again and again: spawned, ended with its parent, known when it dies."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import pickle
import threading
import weakref
from collections.abc import Mapping
from functools import cache
from multiprocessing.connection import Connection, wait
from typing import Any

from medgen.system import signals

# Sums in these libraries depend on how many threads there are, and several processes share the cores.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class Died(Exception):
    """A process has ended without an answer.

    Attributes:
        code: Its exit code; the negative number of the signal that ended it.
    """

    def __init__(self, code: int | None) -> None:
        self.code = code
        super().__init__(f"exit code {code}")


class Spawned:
    """One process. Spawned, since a forked one inherits the locks of threads that it lacks.

    It ends with :meth:`end`, and by itself when this process is killed.

    Attributes:
        connection: Ready to be read once there is an answer, or the process has died.
        task: What it is at work on; None if it waits.

    Raises:
        Died: Of each method but ``end``, if the process has died.
    """

    def __init__(self, content: bytes, environment: Mapping[str, str] | None = None) -> None:
        """Start it.

        Args:
            content: The function, pickled: torch would hand tensors over in shared memory, of which containers have
                little.
            environment: Variables that the process is to have besides those of this one.
        """
        spawn = multiprocessing.get_context("spawn")
        self.connection, other = spawn.Pipe()
        self.task: Any = None
        self.process = spawn.Process(target=_serve, args=(other, dict(environment or {})), daemon=True)
        self.process.start()
        other.close()
        _register()
        _LIVING.add(self)
        try:
            self.connection.send_bytes(content)
        except (EOFError, ConnectionError):
            raise self._died() from None

    def give(self, task: Any) -> None:
        """Have the function called with a task."""
        self.task = task
        try:
            self.connection.send(task)
        except (EOFError, ConnectionError):
            raise self._died() from None

    def take(self) -> tuple[Any, Exception | None]:
        """The answer, waited for: the result and None, or None and what the function has raised."""
        try:
            answer: tuple[Any, Exception | None] = self.connection.recv()
        except (EOFError, ConnectionError):
            raise self._died() from None
        self.task = None
        return answer

    def kill(self) -> None:
        """Tell it to end at once: it holds nothing that would have to be tidied up."""
        self.process.kill()

    def end(self) -> None:
        """End it, and wait until it has ended."""
        self.process.kill()
        self.process.join()
        self.connection.close()

    def _died(self) -> Died:
        self.process.join(5)
        return Died(self.process.exitcode)


_LIVING: weakref.WeakSet[Spawned] = weakref.WeakSet()


@cache
def _register() -> None:
    """At the end of this process the others are killed, before multiprocessing asks them to end by SIGTERM and waits.

    They ignore it; and whoever holds them may not come to end them, such as a generator that an error has left behind.
    """
    atexit.register(_kill_all)


def _kill_all() -> None:
    for process in list(_LIVING):
        process.kill()


def _serve(connection: Connection, environment: Mapping[str, str]) -> None:
    """The life of a process: the function and tasks come in, (result, None) or (None, error) goes out."""
    # Numerical libraries look at it when they are imported, which unpickling the function does.
    os.environ.update(environment)
    signals.ignore()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    function = pickle.loads(connection.recv_bytes())
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        answer: tuple[Any, Exception | None]
        try:
            answer = (function(task), None)
        except Exception as error:
            answer = (None, portable(error))
        connection.send(answer)


def portable(error: Exception) -> Exception:
    """An error that can be handed to another process: itself, or its words."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
