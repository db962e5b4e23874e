"""Work in several threads or processes that ends when the work around it ends, however that happens."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import TypeVar

from medgen.errors import TrainingError
from medgen.system.spawned import Died, Spawned

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
    # As bytes, once: see :class:`medgen.system.spawned.Spawned`.
    content = pickle.dumps(function)
    running: dict[Connection, Spawned] = {}
    left = list(reversed(tasks))
    try:
        with _alive():
            for _ in range(min(workers, len(tasks))):
                process = Spawned(content)
                running[process.connection] = process
            for process in running.values():
                process.give(left.pop())
        while any(process.task is not None for process in running.values()):
            for connection in wait(list(running)):
                assert isinstance(connection, Connection)
                process = running[connection]
                task = process.task
                with _alive():
                    result, error = process.take()
                if error is not None:
                    raise error
                with _alive():
                    if left:
                        process.give(left.pop())
                yield task, result
    finally:
        for process in running.values():
            process.kill()
        for process in running.values():
            process.end()


@contextmanager
def _alive() -> Iterator[None]:
    """Turn the death of a process into an error that says so."""
    try:
        yield
    except Died as died:
        raise TrainingError(
            f"a worker process ended early ({died}), often for want of memory; use fewer workers, and --resume to go on"
        ) from None
