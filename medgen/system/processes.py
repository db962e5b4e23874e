"""Work in several threads or processes that ends when the work around it ends, however that happens."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from medgen.errors import TrainingError
from medgen.system import signals

Task = TypeVar("Task")
Result = TypeVar("Result")


@contextmanager
def thread_pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads for reading and preparing; when the block is left by an exception, what is waiting is not begun.

    An ordinary executor would do all of it first, so that neither an error nor a signal would end a long command.

    Args:
        workers: Number of threads; 0 counts as 1.
    """
    pool = ThreadPoolExecutor(max(workers, 1))
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Torch with so many threads: sums are added up in another order with another number."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_in_processes(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int
) -> Iterator[tuple[Task, Result]]:
    """Call a function for every task, in fresh processes, and yield results in the order in which they are finished.

    Processes are spawned, since a forked one inherits the locks of threads that it lacks. They are ended when the
    generator is closed or an exception passes through it, and end by themselves when this process is killed.

    Args:
        function: Can be pickled, with all that it is bound to; each process gets one copy of it.
        tasks: Can be pickled.
        workers: Number of processes.

    Raises:
        TrainingError: If a process dies, for example for want of memory.
        Exception: What ``function`` raises.
    """
    spawn = multiprocessing.get_context("spawn")
    # As bytes: torch would hand tensors over in shared memory, of which containers have little.
    content = pickle.dumps(function)
    running: dict[Connection, tuple[Any, Task | None]] = {}
    left = list(reversed(tasks))
    try:
        for _ in range(min(workers, len(tasks))):
            own, other = spawn.Pipe()
            process = spawn.Process(target=_serve, args=(other,), daemon=True)
            process.start()
            other.close()
            running[own] = (process, None)
        for own in running:
            with _alive(running[own][0]):
                own.send_bytes(content)
                _give(own, running, left)
        while any(task is not None for _, task in running.values()):
            for connection in wait(list(running)):
                assert isinstance(connection, Connection)
                process, task = running[connection]
                with _alive(process):
                    result, error = connection.recv()
                if error is not None:
                    raise error
                with _alive(process):
                    _give(connection, running, left)
                if task is not None:
                    yield task, result
    finally:
        for process, _ in running.values():
            # They hold nothing that would have to be tidied up.
            process.kill()
        for connection, (process, _) in running.items():
            process.join()
            connection.close()


@contextmanager
def _alive(process: Any) -> Iterator[None]:
    """Turn a connection that breaks because its process has died into an error that says so."""
    try:
        yield
    except (EOFError, ConnectionError):
        process.join(5)
        raise TrainingError(
            f"a worker process ended early (exit code {process.exitcode}), often for want of memory; use "
            "fewer workers, and --resume to go on"
        ) from None


def _give(connection: Connection, running: dict[Connection, tuple[Any, Task | None]], left: list[Task]) -> None:
    task = left.pop() if left else None
    running[connection] = (running[connection][0], task)
    if task is not None:
        connection.send(task)


def _serve(connection: Connection) -> None:
    """The life of a process: the function and tasks come in, (result, None) or (None, error) goes out."""
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
            answer = (None, _portable(error))
        connection.send(answer)


def _portable(error: Exception) -> Exception:
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
