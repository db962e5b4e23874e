"""Jobs of a SLURM array, through submitit; each shard is a job of its own."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from medgen.errors import ConfigError
from medgen.runs.cases.executor import Ended, Executor, Pool

# Seconds between two looks at the jobs: SLURM's accounting is asked for all of them at once.
_PAUSE, _PAUSE_LOCAL = 5.0, 0.2
# Jobs of one array: SLURM takes 1001 (MaxArraySize) where nobody has set another number.
_ARRAY = 1000


@dataclass(frozen=True)
class Slurm(Executor):
    """Arrays of jobs. The folder of the shards has to be reached under the same path by all nodes."""

    name = "slurm"
    spread = True
    packages = ("submitit",)

    def check(self) -> None:
        """See the base.

        Raises:
            ConfigError: If submitit is not installed, or there is no SLURM to submit to.
        """
        super().check()
        if self.resources.submit_to == "slurm" and shutil.which("sbatch") is None:
            raise ConfigError(
                "executor slurm: there is no sbatch here; start it where jobs are submitted, or try the set-up with "
                "submit_to: local among the resources (--resources, or resources.submit_to=local)"
            )

    @contextmanager
    def pool(self, work: Callable[[int], None], logs: str) -> Iterator[Pool]:
        """See the base."""
        import submitit

        own = self.resources
        made = submitit.AutoExecutor(folder=logs, cluster=own.submit_to)
        settings: dict[str, Any] = {"timeout_min": own.minutes, "mem_gb": own.memory_gb, "cpus_per_task": own.cpus}
        settings |= {"gpus_per_node": own.gpus} if own.gpus else {}
        settings["name"] = "medgen"
        if own.submit_to == "slurm":
            settings["slurm_array_parallelism"] = own.at_once
            # Jobs that are moved start their shard anew; submitit's own way needs work that can be stopped half-way.
            settings |= {"slurm_partition": own.partition} if own.partition else {}
            settings |= {"slurm_account": own.account} if own.account else {}
            settings |= {"slurm_setup": ["export OMP_NUM_THREADS=1", *own.setup]}
        made.update_parameters(**settings)
        local = own.submit_to == "local"
        pool = _Jobs(made, work, self.workers if local else _ARRAY, _PAUSE_LOCAL if local else _PAUSE)
        try:
            yield pool
        finally:
            pool.close()

    def words(self, shards: int) -> list[str]:
        """See the base."""
        own = self.resources
        gpus = f", {own.gpus} GPU(s)" if own.gpus else ""
        arrays = -(-shards // _ARRAY)
        where = f"partition {own.partition}" if own.partition else "the default partition"
        at = (
            f"{own.at_once} at a time" if own.submit_to == "slurm" else f"as {self.workers} process(es) of this machine"
        )
        return [
            f"{arrays} SLURM array(s) of {shards} job(s) on {where}, {at}",
            f"each job: {own.cpus} core(s), {own.memory_gb:g} GB, {own.minutes} min{gpus}; at most "
            f"{shards * own.cpus * own.minutes / 60:.1f} core hours in all",
        ]


@dataclass
class _Jobs(Pool):
    made: Any
    work: Callable[[int], None]
    room_for: int
    pause: float
    _new: list[int] = field(default_factory=list)
    _jobs: dict[int, Any] = field(default_factory=dict)

    @property
    def room(self) -> int:
        return self.room_for

    def submit(self, shard: int) -> None:
        self._new.append(shard)

    def ended(self) -> Sequence[Ended]:
        if self._new:
            # One array for all that wait.
            self._jobs |= dict(zip(self._new, self.made.map_array(self.work, self._new), strict=True))
            self._new = []
        while True:
            done = [shard for shard, job in self._jobs.items() if job.done()]
            if done:
                return [self._end(shard, self._jobs.pop(shard)) for shard in done]
            time.sleep(self.pause)

    def _end(self, shard: int, job: Any) -> Ended:
        from submitit.core.utils import FailedJobError, UncompletedJobError

        try:
            error = job.exception()
        except UncompletedJobError:
            return Ended(shard, died=f"job {job.job_id} ended as {job.state}")
        if error is None:
            return Ended(shard)
        if isinstance(error, UncompletedJobError):
            return Ended(shard, died=f"job {job.job_id} ended as {job.state}")
        if isinstance(error, FailedJobError):
            # What the job has raised, as text; the last line is the error itself.
            return Ended(shard, error=RuntimeError(str(error).strip().splitlines()[-1]))
        return Ended(shard, error=error if isinstance(error, Exception) else RuntimeError(str(error)))

    def close(self) -> None:
        for job in self._jobs.values():
            # One that has ended meanwhile cannot be cancelled.
            with suppress(Exception):
                job.cancel(check=False)
