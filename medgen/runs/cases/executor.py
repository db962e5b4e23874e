"""What an executor is: it has shards done somewhere, and says of each how that ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import ClassVar

from medgen.errors import ConfigError
from medgen.runs.cases.resources import Resources


@dataclass(frozen=True)
class Ended:
    """How the work on a shard has ended; done, if neither is set.

    Attributes:
        shard: Its number.
        died: How its worker has died, in a few words: the shard may be tried again.
        error: What the function has raised: it would raise it again.
    """

    shard: int
    died: str = ""
    error: Exception | None = None


class Pool(ABC):
    """Workers that wait for shards."""

    @property
    @abstractmethod
    def room(self) -> int:
        """How many shards are worth being handed over before the first has ended."""

    @abstractmethod
    def submit(self, shard: int) -> None:
        """Hand a shard over; returns at once."""

    @abstractmethod
    def ended(self) -> Sequence[Ended]:
        """Wait until at least one of the shards has ended; each is told once."""


@dataclass(frozen=True)
class Executor(ABC):
    """A way to have shards done. A new one is a file in ``executors/`` with a class that bears the file's name.

    Attributes:
        workers: How many work at once, where that is the executor's to decide.
        resources: What each gets, where that is the executor's to decide.
    """

    name: ClassVar[str]
    # Whether workers may be on other machines, so that the shards have to lie where all can reach them.
    spread: ClassVar[bool] = False
    # Packages of the extra ``cluster`` that it needs.
    packages: ClassVar[tuple[str, ...]] = ()

    workers: int
    resources: Resources

    def check(self) -> None:
        """Refuse, before anything is read or written, what cannot be.

        Raises:
            ConfigError: If a package is not installed.
        """
        for package in self.packages:
            try:
                version(package)
            except PackageNotFoundError:
                raise ConfigError(
                    f"--executor {self.name}: the package {package} is not installed; install the extra: pip install "
                    "'medgen[cluster]'"
                ) from None

    @abstractmethod
    def pool(self, work: Callable[[int], None], logs: str) -> AbstractContextManager[Pool]:
        """Workers, which are ended on the way out, however that is left.

        Args:
            work: Does a shard by its number; can be pickled.
            logs: Folder for what the executor itself wants to write.
        """

    @abstractmethod
    def words(self, shards: int) -> list[str]:
        """What it would do with so many shards: lines of ``--dry-run``."""
