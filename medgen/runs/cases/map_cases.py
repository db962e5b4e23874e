"""A function mapped over cases in shards: what is done stays done, and a dead worker costs one shard.

Cases are divided into shards of neighbours. A shard is worked on by one worker, in a temporary folder that is renamed
once it is whole, so that it is done or not there; its record names cases, inputs and settings, and a later start takes
it over only where these are the same. Results are yielded in the order of the cases, whatever the order of the work,
and come from disk: this process holds nothing per case.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from medgen import __version__
from medgen.errors import ConfigError, DataError, TrainingError
from medgen.progress import Progress
from medgen.runs.cases.executor import Ended, Executor, Pool
from medgen.runs.cases.executors import USUAL, executor
from medgen.runs.cases.manifest import LOCK, PLAN, RECORD, Finished, Item, Plan, agreed
from medgen.runs.cases.merge import Merger
from medgen.runs.cases.resources import Resources
from medgen.runs.cases.shard import TODO, WORK, Function, ShardWork, write_function
from medgen.runs.journal import locked
from medgen.runs.run import Run
from medgen.system import files
from medgen.system.modes import make_folder
from medgen.system.new_folder import made_folder

__all__ = ["Item", "Spread", "check_place", "collect", "map_cases", "usual_shards"]

_LOG = logging.getLogger(__name__)
# How often a shard is begun before its workers' deaths are taken for its own fault.
TRIES = 3
# Cases of a shard where nobody says how many: a death costs no more than these, and a shard some milliseconds.
_CASES = 64


@dataclass(frozen=True)
class Spread:
    """Where and in how many parts work is done; no result depends on it.

    Attributes:
        executor: One of :func:`medgen.runs.cases.executors.names`.
        workers: How many work at once.
        shards: In how many parts; None chooses.
        resources: What each worker gets on a cluster.
    """

    executor: str = USUAL
    workers: int = 2
    shards: int | None = None
    resources: Resources = field(default_factory=Resources)

    def made(self) -> Executor:
        """The executor.

        Raises:
            ConfigError: If there is none of that name, or it needs what is not there.
        """
        return executor(self.executor, self.workers, self.resources)

    def words(self, cases: int) -> list[str]:
        """What would be done with so many cases: lines of ``--dry-run``."""
        shards = Plan({}, cases, -(-cases // min(self.shards or usual_shards(cases, self.workers), cases))).shards
        return [f"{cases} case(s) in {shards} shard(s)", *self.made().words(shards)]


def usual_shards(cases: int, workers: int) -> int:
    """Into how many shards cases are divided where nobody says it: some for each worker, and none of more than 64.

    >>> usual_shards(10, 2), usual_shards(10_000, 2), usual_shards(3, 2)
    (8, 157, 3)
    """
    return max(min(cases, 4 * max(workers, 1)), -(-cases // _CASES), 1)


def map_cases(
    function: Function,
    items: Iterable[Item],
    *,
    count: int,
    folder: Path,
    settings: Mapping[str, Any],
    spread: Spread,
    out: Path | None = None,
    run: Run | None = None,
    progress: Progress | None = None,
    tries: int = TRIES,
    ordered: bool = True,
) -> Iterator[tuple[str, Any]]:
    """Call a function for each case and yield (name, result) in the order of the cases.

    Args:
        function: Called with a case's task and a folder for its files; returns plain data (NaN is kept). It can be
            pickled, and each process has one copy, which may keep what it has loaded.
        items: The cases, looked at once, one shard of them in memory at a time.
        count: How many there are.
        folder: Where the shards lie until the caller removes it; with workers on other machines, where all reach it.
        settings: Plain data on which results depend.
        spread: Where the work is done.
        out: Where the files of the cases go; None leaves them in their shards, see :func:`collect`.
        run: Tracked run that gets what the journals of the shards say.
        progress: Called with the number of cases done and ``count``.
        tries: How often a shard is begun at most.
        ordered: False yields the cases of a shard as soon as it is done, whatever comes before it.

    Raises:
        ConfigError: If the folder holds shards of other settings or something else, another command has shards done in
            it, or the executor cannot be used.
        DataError: If the folder cannot be written, or there are more or fewer cases than ``count``.
        TrainingError: If the worker of a shard has died ``tries`` times; what else is done is kept.
        Exception: What the function raises.
    """
    runner = spread.made()
    with ExitStack() as stack:
        try:
            stack.enter_context(_alone(folder))
            plan = agreed(
                folder,
                {**settings, "medgen": __version__},
                count,
                spread.shards,
                usual_shards(count, spread.workers),
            )
        except OSError as error:
            raise files.unwritable(folder, error) from error
        work = ShardWork(folder.resolve(), plan)
        write_function(folder, function)
        missing = _prepare(work, items, out)
        merger = Merger(run)
        with _Spreading(work, runner, missing, tries) as doing:
            done = 0
            for shard, begun in doing.shards(ordered):
                place = folder / plan.name(shard)
                finished = Finished.find(place, _digest(place), out)
                if finished is None:
                    raise DataError(f"{place}: was changed while the work went on; start again to have it done anew")
                if out is not None:
                    finished.collect(out)
                merger.add(shard, finished, begun)
                for name, result in finished.results():
                    done += 1
                    yield name, result
                if progress is not None:
                    progress(done, count)
        merger.close()
        for name in (WORK, TODO):
            path = folder / name
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder of the shards, which is made; after an error one that was made and holds nothing goes again.

    Raises:
        ConfigError: If another command holds it.
        OSError: If it cannot be made or written.
    """
    with made_folder(folder), locked(folder / LOCK, wait=False) as held:
        if not held:
            raise ConfigError(
                f"{folder}: another medgen command is having these shards done; wait for it, or choose another folder"
            )
        try:
            yield
        finally:
            with suppress(OSError):
                (folder / LOCK).unlink()


def collect(folder: Path, out: Path) -> None:
    """Put the files of all shards below a folder, and remove the shards: for results that appear as a whole.

    Raises:
        DataError: If a file cannot be put there.
    """
    for place in sorted(folder.glob("shard-*")):
        Finished(place, files.read_json(place / RECORD)).collect(out)
        shutil.rmtree(place)
    (folder / PLAN).unlink()


def _digest(place: Path) -> str:
    """The digest that a shard states, which was compared when it was found or has just been written."""
    record = files.read_json(place / RECORD)
    return str(record.get("digest"))


def _prepare(work: ShardWork, items: Iterable[Item], out: Path | None) -> list[int]:
    """Look at every case once; returns the shards that are to be done, whose cases are written for the workers."""
    plan, stream, missing = work.plan, iter(items), []
    for shard in range(plan.shards):
        own = list(islice(stream, plan.size))
        if len(own) != min(plan.size, plan.cases - shard * plan.size) or len({item.name for item in own}) < len(own):
            raise DataError(f"{work.folder}: expected {plan.cases} cases of different names; found others")
        work.sweep(shard)
        place = work.folder / plan.name(shard)
        if Finished.find(place, plan.digest(own), out) is None:
            shutil.rmtree(place, ignore_errors=True)
            work.prepare(shard, own)
            missing.append(shard)
    if next(stream, None) is not None:
        raise DataError(f"{work.folder}: expected {plan.cases} cases; found more")
    # Of an earlier division into more shards.
    for place in work.folder.glob("shard-*"):
        if int(place.name.removeprefix("shard-")) >= plan.shards:
            shutil.rmtree(place, ignore_errors=True)
    return missing


class _Spreading:
    """Has shards done, several at once."""

    def __init__(self, work: ShardWork, runner: Executor, missing: list[int], tries: int) -> None:
        self._work, self._runner, self._tries = work, runner, tries
        # The next to be begun is the last.
        self._waiting = missing[::-1]
        self._missing = frozenset(missing)
        self._left = set(missing)
        self._running: set[int] = set()
        self._deaths: dict[int, int] = {}
        self._pool: Pool | None = None
        self._context: Any = None

    def __enter__(self) -> _Spreading:
        if self._left:
            logs = self._work.folder / "logs"
            make_folder(logs)
            self._context = self._runner.pool(self._work, str(logs))
            self._pool = self._context.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._context is not None:
            self._context.__exit__(*error)
            shutil.rmtree(self._work.folder / "logs", ignore_errors=True)
            for shard in self._running:
                self._work.sweep(shard)

    def shards(self, ordered: bool) -> Iterator[tuple[int, int]]:
        """Each shard once it is done, with how often it was begun; 0 if it was done before."""
        told: set[int] = set()
        for shard in range(self._work.plan.shards):
            while shard in self._left:
                done = self._done()
                for other in () if ordered else done:
                    told.add(other)
                    yield other, self._begun(other)
            if shard not in told:
                yield shard, self._begun(shard)

    def _begun(self, shard: int) -> int:
        return 1 + self._deaths.get(shard, 0) if shard in self._missing else 0

    def _done(self) -> list[int]:
        """Wait until some shard is done; those that are now."""
        assert self._pool is not None
        while self._waiting and len(self._running) < self._pool.room:
            following = self._waiting.pop()
            self._running.add(following)
            self._pool.submit(following)
        before = set(self._left)
        for ended in self._pool.ended():
            self._take(ended)
        return sorted(before - self._left)

    def _take(self, ended: Ended) -> None:
        shard, work = ended.shard, self._work
        self._running.discard(shard)
        if ended.error is not None:
            raise ended.error
        # A worker may die, or be lost sight of, after its shard was done.
        if (work.folder / work.plan.name(shard)).is_dir():
            self._left.discard(shard)
            work.forget(shard)
            return
        items = work.items(shard)
        where = f"shard {shard} ({items[0].name} to {items[-1].name})" if len(items) > 1 else f"case {items[0].name}"
        if (reached := work.reached(shard)) and len(items) > 1:
            where += f", at {reached}"
        work.sweep(shard)
        deaths = self._deaths[shard] = self._deaths.get(shard, 0) + 1
        died = ended.died or "nothing was left of it"
        if deaths >= self._tries:
            raise TrainingError(
                f"{where}: its worker has died {deaths} times ({died}), often for want of memory; what else is done is "
                "kept: give workers more memory or use fewer, leave the case out, and start again"
            )
        _LOG.warning("%s: its worker has died (%s); tried again, %d of %d", where, died, deaths + 1, self._tries)
        self._waiting.append(shard)


def check_place(place: Path | None, spread: Spread) -> None:
    """Refuse a spread over other machines without a folder that they can reach.

    Raises:
        ConfigError: If there is none.
    """
    if place is None and spread.made().spread:
        raise ConfigError(
            f"--executor {spread.executor}: its workers may be on other machines; name a folder that all of them reach "
            "with --shards-in"
        )
