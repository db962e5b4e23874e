"""Processes of this machine, each with one thread."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait

from medgen.runs.cases.executor import Ended, Executor, Pool
from medgen.system.spawned import ONE_THREAD, Died, Spawned


@dataclass(frozen=True)
class Local(Executor):
    """Spawned processes that end with this one; a worker that has died is replaced by a new one."""

    name = "local"

    @contextmanager
    def pool(self, work: Callable[[int], None], logs: str) -> Iterator[Pool]:
        """See the base."""
        pool = _Processes(pickle.dumps(work), self.workers)
        try:
            yield pool
        finally:
            pool.close()

    def words(self, shards: int) -> list[str]:
        """See the base."""
        return [f"{min(self.workers, shards)} process(es) of this machine, one thread each"]


@dataclass
class _Processes(Pool):
    content: bytes
    workers: int
    _waiting: list[Spawned] = field(default_factory=list)
    _working: dict[Connection, Spawned] = field(default_factory=dict)
    _dead: list[Ended] = field(default_factory=list)

    @property
    def room(self) -> int:
        return self.workers

    def submit(self, shard: int) -> None:
        process: Spawned | None = None
        try:
            process = self._waiting.pop() if self._waiting else Spawned(self.content, ONE_THREAD)
            process.give(shard)
        except Died as died:
            self._dead.append(Ended(shard, died=f"{died}"))
            if process is not None:
                process.end()
            return
        self._working[process.connection] = process

    def ended(self) -> Sequence[Ended]:
        found, self._dead = self._dead, []
        if found:
            return found
        for connection in wait(list(self._working)):
            assert isinstance(connection, Connection)
            process = self._working.pop(connection)
            shard = int(process.task)
            try:
                _, error = process.take()
            except Died as died:
                found.append(Ended(shard, died=f"{died}"))
                process.end()
            else:
                found.append(Ended(shard, error=error))
                self._waiting.append(process)
        return found

    def close(self) -> None:
        every = [*self._waiting, *self._working.values()]
        for process in every:
            process.kill()
        for process in every:
            process.end()
