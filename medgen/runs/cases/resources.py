"""What each worker of a cluster gets, as a small YAML says it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from medgen.config import Config, load_config


class Resources(Config):
    """Resources of each job or worker.

    Attributes:
        minutes: Time after which SLURM ends a job; it has to suffice for one shard.
        memory_gb: Memory of a job, in GB.
        cpus: Cores of a job; the work itself uses one thread.
        gpus: GPUs of a job.
        partition: Partition of the cluster; None takes the default one.
        account: Account that is charged; None takes the default one.
        at_once: Most jobs of an array that run at a time.
        setup: Lines of shell before the work, such as ``module load python``.
        submit_to: ``slurm``, or ``local``: the same submission as processes of this machine, to try a set-up.
        scheduler: Address of a dask scheduler that runs already, such as ``tcp://head:8786``; None starts one with
            workers on this machine.
    """

    minutes: int = Field(default=60, ge=1)
    memory_gb: float = Field(default=8, gt=0)
    cpus: int = Field(default=1, ge=1)
    gpus: int = Field(default=0, ge=0)
    partition: str | None = None
    account: str | None = None
    at_once: int = Field(default=256, ge=1)
    setup: tuple[str, ...] = ()
    submit_to: Literal["slurm", "local"] = "slurm"
    scheduler: str | None = None


def read_resources(path: Path | None) -> Resources:
    """The resources that a YAML names; the usual ones without a file.

    Raises:
        ConfigError: If the file is missing or a key is unknown or wrong.
    """
    return Resources() if path is None else load_config(Resources, path)
