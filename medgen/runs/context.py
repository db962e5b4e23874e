"""What every stage of a run gets: its folder, its place in MLflow, its seeds, its bars; and what stages hand on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from medgen.data.cases import Manifest, case_files
from medgen.faults import fail
from medgen.progress import Tick, bars
from medgen.runs import tracking
from medgen.runs.folder import RunConfig, RunFolder, check_cohort, open_run
from medgen.runs.store.mlflow_store import COHORT
from medgen.seeds import derive
from medgen.system.files import is_utf8

T = TypeVar("T")


@dataclass(frozen=True)
class Output:
    """A file or folder that a stage leaves in the folder of its run.

    Attributes:
        name: Path below the folder of the run; a folder ends with ``/``.
        holds: What is in it, one sentence without its full stop, for the report and the documentation.
        tracked: Whether MLflow keeps it as an artifact, in the same place.
    """

    name: str
    holds: str
    tracked: bool = False


class Results:
    """What the stages of a run have made so far: one object of each type, asked for by its type.

    A stage says in ``needs`` and ``makes`` which types it asks for and adds, so that a list of stages can be checked
    before anything runs.

    >>> results = Results([3, "three"])
    >>> results[int], results.get(float)
    (3, None)
    """

    def __init__(self, made: list[Any] | None = None) -> None:
        self._made: dict[type, Any] = {type(item): item for item in made or []}

    def __getitem__(self, kind: type[T]) -> T:
        """The object of a type.

        Raises:
            KeyError: If no stage has made one: a stage is missing or stands too late in its list.
        """
        found: T = self._made[kind]
        return found

    def get(self, kind: type[T]) -> T | None:
        """The object of a type; None where the stage that makes it was left out."""
        return self._made.get(kind)

    def add(self, *items: Any) -> None:
        """Add what a stage has made; an object of the same type is replaced."""
        self._made |= {type(item): item for item in items}

    def having(self, *items: Any) -> Results:
        """A copy with further or other objects; this one stays as it is."""
        return Results([*self._made.values(), *items])


@dataclass(frozen=True)
class RunContext:
    """One run, as its stages see it.

    Attributes:
        folder: Where everything is written.
        track: The run in MLflow.
        stage: The stage at work in MLflow, a child of ``track``; outside of stages ``track`` itself.
        seed: Seed of the run; :meth:`derive` gives each purpose its own.
        resume: Whether to go on from checkpoints.
        progress: Whether people are to see progress bars.
        suffix: Ends the names of stages and checkpoints where the same stages run again on other subjects.
    """

    folder: RunFolder
    track: tracking.Run
    stage: tracking.Run
    seed: int
    resume: bool = False
    progress: bool = False
    suffix: str = ""

    @contextmanager
    def child(self, name: str) -> Iterator[RunContext]:
        """A part of this stage with its own times and numbers in MLflow."""
        with self.stage.stage(f"{name}{self.suffix}") as stage:
            yield replace(self, stage=stage)

    def again(self, suffix: str) -> RunContext:
        """The same run for the same stages on other subjects, whose names and checkpoints end with ``suffix``."""
        return replace(self, suffix=suffix)

    def bars(self, show: bool = True) -> AbstractContextManager[Tick]:
        """Progress bars, see :func:`medgen.progress.bars`; none where ``show`` is False."""
        return bars(self.progress and show)

    def derive(self, *purpose: str | int) -> int:
        """The seed of a purpose, see :func:`medgen.seeds.derive`."""
        return derive(self.seed, *purpose)

    def checkpoints(self, name: str) -> Path:
        """Folder of the checkpoints of one training."""
        return self.folder.checkpoints / f"{name}{self.suffix}"


@contextmanager
def start_run(
    pipeline: str,
    config: RunConfig,
    manifest: Manifest,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> Iterator[RunContext]:
    """Open the folder of a run, refuse a cohort that was changed since the run was started, and track the run.

    Args:
        pipeline: Name of the run in MLflow.
        config: The configuration as resolved.
        manifest: The cohort with the hashes of its files.
        resume: Go on with an interrupted run.
        overwrite: Remove an earlier run first.
        progress: Show progress bars.

    Raises:
        ConfigError: As :func:`medgen.runs.folder.open_run`.
        DataError: As there, or if a case was changed, added or removed.
    """
    if strange := next((file for case in manifest for file in case_files(case) if not is_utf8(file)), None):
        raise fail(
            strange,
            "a name that is not UTF-8",
            "one that manifest and report can hold",
            "rename it, or import the cohort",
        )
    with open_run(config.out, config, resume=resume, overwrite=overwrite) as folder:
        check_cohort(folder.out, manifest)
        resolved, digest = config.model_dump(mode="json"), manifest.digest()
        tags = {COHORT: manifest.name}
        with tracking.start(
            pipeline, folder.out, config=resolved, seed=config.seed, manifest_digest=digest, tags=tags
        ) as track:
            yield RunContext(folder, track, track, config.seed, resume, progress)
