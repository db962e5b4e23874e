"""Keys of the runs whose trainings can be done by jobs of a cluster."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import model_validator

from medgen.runs.cases.map_cases import Spread
from medgen.runs.cases.resources import Resources
from medgen.runs.folder import RunConfig


class SpreadRunConfig(RunConfig):
    """A run with trainings that need not be done one after the other.

    Attributes:
        executor: Where they are done, those of the folds of an anomaly run or of a value study: ``local`` (this
            machine), ``slurm`` (an array of jobs) or ``dask``; the folder of the run has to be reached by all. No
            result depends on it.
        resources: What each job of ``slurm`` or each worker of ``dask`` gets.
    """

    executor: Literal["local", "slurm", "dask"] = "local"
    resources: Resources = Resources()

    @property
    def spread(self) -> Spread:
        """Where the trainings are done."""
        return Spread(self.executor, self.workers, None, self.resources)

    def spread_lines(self, what: str, trainings: int) -> list[str]:
        """Where so many trainings are done, as lines of ``--dry-run``; none for this machine.

        Raises:
            ConfigError: If the executor cannot be used here.
        """
        if self.executor == "local":
            return []
        return [f"{what}: {line}" for line in replace(self.spread, shards=trainings).words(trainings)]

    @model_validator(mode="after")
    def _resources_go_with_jobs(self) -> SpreadRunConfig:
        if self.executor == "local" and self.resources != Resources():
            raise ValueError("resources: what jobs of a cluster get; expected executor=slurm or executor=dask with it")
        return self
