"""Ways to have shards done, one file each, found by file name and imported only when asked for."""

from __future__ import annotations

import sys

from medgen.config import nearest
from medgen.errors import ConfigError
from medgen.runs.cases.executor import Executor
from medgen.runs.cases.resources import Resources
from medgen.system import members

USUAL = "local"


def names() -> list[str]:
    """Names of all executors; none of them is imported.

    >>> names()
    ['dask', 'local', 'slurm']
    """
    return members.names(sys.modules[__name__])


def check_executor(name: str) -> None:
    """Refuse a name that no executor has.

    Raises:
        ConfigError: With those that there are.
    """
    if name not in (known := names()):
        raise ConfigError(
            f"--executor: found {name!r}; expected {', '.join(known[:-1])} or {known[-1]}{nearest(name, known)}"
        )


def executor(name: str, workers: int, resources: Resources | None = None) -> Executor:
    """An executor that can be used here.

    Args:
        name: One of :func:`names`.
        workers: How many work at once; 0 counts as 1.
        resources: What each gets.

    Raises:
        ConfigError: If there is none of that name, or it needs what is not there.
    """
    check_executor(name)
    found: type[Executor] = members.named_class(sys.modules[__name__], name, Executor, "executor")
    made = found(max(workers, 1), resources or Resources())
    made.check()
    return made
