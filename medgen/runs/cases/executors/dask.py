"""Workers of dask.distributed: of a scheduler that runs already, or of one that is started on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from medgen.errors import ConfigError
from medgen.runs.cases.executor import Ended, Executor, Pool
from medgen.system.spawned import ONE_THREAD

# A task that ends its worker is told to medgen at once, which counts and names it; and no worker takes a second task
# before the first is done, which would be lost with it.
_CONFIG = {
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.nanny.pre-spawn-environ": ONE_THREAD,
}
_SECONDS = 30


@dataclass(frozen=True)
class Dask(Executor):
    """Workers with one thread each. The folder of the shards has to be reached under the same path by all of them."""

    name = "dask"
    spread = True
    packages = ("dask", "distributed")

    @contextmanager
    def pool(self, work: Callable[[int], None], logs: str) -> Iterator[Pool]:
        """See the base.

        Raises:
            ConfigError: If no scheduler answers at the address, or it has no workers.
        """
        import dask
        from distributed import Client, LocalCluster

        address = self.resources.scheduler
        with dask.config.set(_CONFIG):
            if address is None:
                with (
                    LocalCluster(
                        n_workers=self.workers,
                        threads_per_worker=1,
                        processes=True,
                        dashboard_address="127.0.0.1:0",
                        local_directory=logs,
                        silence_logs=50,
                    ) as cluster,
                    Client(cluster) as client,
                ):
                    yield _Futures(client, work)
                return
            try:
                client = Client(address, timeout=_SECONDS)
            except (OSError, ValueError) as error:
                raise ConfigError(
                    f"--executor dask: no scheduler answers at {address} ({type(error).__name__}); start one with "
                    "dask scheduler, or leave scheduler out of --resources"
                ) from None
            with client:
                if not client.nthreads():
                    raise ConfigError(f"--executor dask: the scheduler at {address} has no workers; start dask worker")
                yield _Futures(client, work)

    def words(self, shards: int) -> list[str]:
        """See the base."""
        if self.resources.scheduler is not None:
            return [f"the workers of the dask scheduler at {self.resources.scheduler}"]
        return [f"a dask scheduler on this machine with {min(self.workers, shards)} worker(s), one thread each"]


@dataclass
class _Futures(Pool):
    client: Any
    work: Callable[[int], None]
    _running: dict[Any, int] = field(default_factory=dict)

    @property
    def room(self) -> int:
        # Workers may come and go.
        return max(sum(self.client.nthreads().values()), 1)

    def submit(self, shard: int) -> None:
        self._running[self.client.submit(self.work, shard, pure=False, retries=0)] = shard

    def ended(self) -> Sequence[Ended]:
        from distributed import wait

        done = wait(list(self._running), return_when="FIRST_COMPLETED").done
        return [self._end(future, self._running.pop(future)) for future in done]

    def _end(self, future: Any, shard: int) -> Ended:
        from distributed import KilledWorker
        from distributed.client import FutureCancelledError

        if future.status == "finished":
            return Ended(shard)
        if future.status in ("cancelled", "lost"):
            return Ended(shard, died=f"the scheduler has {future.status} it")
        error = future.exception()
        if isinstance(error, KilledWorker | FutureCancelledError):
            return Ended(shard, died="its dask worker is gone")
        return Ended(shard, error=error if isinstance(error, Exception) else RuntimeError(str(error)))
