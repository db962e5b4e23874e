"""The work of one shard, wherever it is done: cases one after the other, and a folder that appears as a whole."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import chdir
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from medgen.errors import DataError
from medgen.runs.cases.manifest import FILES, RESULTS, Item, Plan, write_record
from medgen.runs.journal import Journal
from medgen.runs.run import Run
from medgen.system import files
from medgen.system.memory import peak_bytes
from medgen.system.modes import make_folder

# The function and the cases of shards that are not done, for the workers; written anew at every start, never read from
# an earlier one.
WORK, TODO = "work.pickle", "todo"

# Called with a case's task and a folder; what it writes below the folder becomes the output of the run, what it returns
# is plain data.
Function = Callable[[Any, Path], Any]


@dataclass(frozen=True)
class ShardWork:
    """Works on a shard by its number; all else is read from the folder, which every machine can reach.

    Attributes:
        folder: Where the shards lie.
        plan: How cases are divided.
        started: The folder in which the command was started, in which files may have been named from.
    """

    folder: Path
    plan: Plan
    started: Path = field(default_factory=Path.cwd)

    def prepare(self, shard: int, items: Sequence[Item]) -> None:
        """Write the cases of a shard that is to be done."""
        files.write_bytes(self._todo(shard), pickle.dumps(list(items)))

    def items(self, shard: int) -> list[Item]:
        """The cases of a shard that is to be done."""
        found: list[Item] = pickle.loads(self._todo(shard).read_bytes())
        return found

    def forget(self, shard: int) -> None:
        """Remove what only the worker of a shard needs."""
        self._todo(shard).unlink(missing_ok=True)

    def sweep(self, shard: int) -> None:
        """Remove what a worker that has died has left of a shard."""
        for path in self.folder.glob(f"{files.TEMPORARY}{self.plan.name(shard)}-*"):
            shutil.rmtree(path, ignore_errors=True)

    def reached(self, shard: int) -> str:
        """The case at which the worker of a shard has died, as far as what it left tells; else empty."""
        counts = []
        for path in self.folder.glob(f"{files.TEMPORARY}{self.plan.name(shard)}-*/{RESULTS}"):
            with path.open("rb") as file:
                counts.append(sum(line.endswith(b"\n") for line in file))
        items = self.items(shard)
        return items[max(counts)].name if counts and max(counts) < len(items) else ""

    def __call__(self, shard: int) -> None:
        """Do a shard; nothing if another process has done it meanwhile.

        Raises:
            DataError: If the folder cannot be written.
            Exception: What the function raises.
        """
        final = self.folder / self.plan.name(shard)
        if final.is_dir():
            return
        if not self.started.is_dir() or not self.folder.is_dir():
            lost = self.folder if self.started.is_dir() else self.started
            raise DataError(f"{lost}: this machine does not reach it; expected a folder that all machines share")
        with chdir(self.started):
            self._do(shard, final)

    def _do(self, shard: int, final: Path) -> None:
        items = self.items(shard)
        function = _function(self.folder / WORK, (self.folder / WORK).stat().st_mtime_ns)
        place: Path | None = None
        try:
            place = Path(tempfile.mkdtemp(prefix=f"{files.TEMPORARY}{final.name}-", dir=self.folder))
            self._fill(place, shard, items, function)
            try:
                place.rename(final)
            except OSError:
                # Another process was quicker; both have worked on the same.
                if not final.is_dir():
                    raise
            else:
                place = None
            files.sync_folder(self.folder)
        except OSError as error:
            raise files.unwritable(final, error) from error
        finally:
            if place is not None:
                shutil.rmtree(place, ignore_errors=True)

    def _fill(self, place: Path, shard: int, items: Sequence[Item], function: Function) -> None:
        began, cpu = time.perf_counter(), time.process_time()
        make_folder(place / FILES)
        journal = Journal(place)
        run = Run(f"shard {shard}", place, journal)
        try:
            with run.recorded({}):
                with (place / RESULTS).open("w", encoding="utf-8") as file:
                    for item in items:
                        result = function(item.task, place / FILES)
                        file.write(json.dumps({"case": item.name, "result": result}, default=files.plain) + "\n")
                        # Whoever looks for the reason of a death sees how far the worker came.
                        file.flush()
                    os.fsync(file.fileno())
                run.log_metrics(
                    {
                        "shard.cases": len(items),
                        "shard.seconds": time.perf_counter() - began,
                        "shard.cpu_seconds": time.process_time() - cpu,
                        "shard.peak_mb": peak_bytes() / 1e6,
                    },
                    step=shard,
                )
        finally:
            journal.close()
        write_record(place, self.plan.digest(items), items, {"shard": shard})

    def _todo(self, shard: int) -> Path:
        return self.folder / TODO / f"{shard:05d}.pickle"


def write_function(folder: Path, function: Function) -> None:
    """Write the function for the workers.

    Raises:
        DataError: If it cannot be written, or the function cannot be handed to another process.
    """
    try:
        content = pickle.dumps(function)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise DataError(f"{function!r}: cannot be handed to another process ({error})") from error
    files.write_bytes(folder / WORK, content)


@lru_cache(maxsize=1)
def _function(path: Path, changed: int) -> Function:
    """The function; a process that does several shards keeps it, with what it has loaded."""
    del changed  # tells one start from another
    function: Function = pickle.loads(path.read_bytes())
    return function
