"""Runs of the real command line that are killed: at random moments, and inside the writer at every stage.

A parent imports everything once and forks a child for each run, so that a run takes a second. ``kill.py`` is the wide
variant, for the command line; the tests use a few kills of each kind.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path

# Where the writer of a file can be hit.
STAGES = ("created", "half written", "before fsync", "before rename", "after rename")
# Differ between two runs that are not disturbed: times, ids of runs, the folder's own name.
_OWN = ("config.yaml", "report.html", "outputs.json", "model_card.md")
_TIMES = ("seconds", "run_id", "stamp_time")


def run(arguments: Sequence[str], before: Callable[[], None] | None = None, after: float | None = None) -> int:
    """Exit status of ``medgen`` in a forked child: a negative signal number if it was killed.

    Args:
        arguments: Of the command line.
        before: Called in the child, to plant a fault.
        after: Seconds after which the child is killed with SIGKILL.
    """
    child = os.fork()
    if child == 0:
        _child(arguments, before)
    if after is None:
        return _status(os.waitpid(child, 0)[1])
    end = time.monotonic() + after
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return _status(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    return _status(os.waitpid(child, 0)[1])


def _child(arguments: Sequence[str], before: Callable[[], None] | None) -> None:
    code = 99
    said = io.StringIO()
    try:
        from medgen.pipelines.cli.app import main

        sys.argv = ["medgen", *arguments]
        if before is not None:
            before()
        with redirect_stdout(said), redirect_stderr(said):
            main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0
        if code not in (0, 1):
            print(said.getvalue()[-2000:], file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(code)


def _status(status: int) -> int:
    return os.waitstatus_to_exitcode(status)


def die_at(stage: str, number: int) -> Callable[[], None]:
    """A fault for :func:`run`: the process vanishes at the ``number``-th time that a writer reaches a stage."""

    def plant() -> None:
        left = [number]

        def reached() -> bool:
            left[0] -= 1
            return left[0] == 0

        def vanish() -> None:
            os._exit(137)

        import tempfile

        made, sync = tempfile.mkstemp, os.fsync

        def mkstemp(*arguments: object, **options: object) -> tuple[int, str]:
            result = made(*arguments, **options)
            if stage == "created" and reached():
                vanish()
            return result

        def fsync(handle: int) -> None:
            if stage in ("half written", "before fsync") and reached():
                if stage == "half written" and os.fstat(handle).st_size:
                    with suppress(OSError):
                        os.ftruncate(handle, os.fstat(handle).st_size // 2)
                vanish()
            sync(handle)

        def killed(rename: Callable[..., None]) -> Callable[..., None]:
            def moving(source: object, target: object, **options: object) -> None:
                if stage == "before rename" and reached():
                    vanish()
                rename(source, target, **options)
                if stage == "after rename" and reached():
                    vanish()

            return moving

        tempfile.mkstemp, os.fsync = mkstemp, fsync
        # Folders are moved by another call, which is a stage of its own for a model that is put in place.
        os.replace, os.rename = killed(os.replace), killed(os.rename)

    return plant


def outcome(out: Path) -> dict[str, str]:
    """SHA-256 of all that a run wrote and that does not depend on when it ran; by path."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        hidden = any(part.startswith(".") for part in path.relative_to(out).parts)
        if not path.is_file() or name in _OWN or name.startswith("journal."):
            if hidden and path.name != ".medgen-lock":
                found[name] = "left over"
            continue
        if hidden:
            if path.name != ".medgen-lock":
                found[name] = "left over"
            continue
        content = path.read_bytes()
        if path.suffix == ".json":
            content = json.dumps(_timeless(json.loads(content))).encode()
        elif path.suffix == ".csv":
            content = _timeless_table(content)
        found[name] = hashlib.sha256(content).hexdigest()
    return found


def _timeless(data: object) -> object:
    if isinstance(data, dict):
        return {key: _timeless(value) for key, value in data.items() if key not in _TIMES}
    return [_timeless(item) for item in data] if isinstance(data, list) else data


def _timeless_table(content: bytes) -> bytes:
    import csv

    rows = list(csv.DictReader(io.StringIO(content.decode())))
    return json.dumps([{key: value for key, value in row.items() if key not in _TIMES} for row in rows]).encode()


class Tally:
    """Kills and what came of them."""

    def __init__(self) -> None:
        self.kills = self.identical = self.finished = 0
        self.wrong: list[str] = []

    def add(self, what: str, killed: bool, problem: str) -> None:
        """Count one kill and the resumption after it."""
        self.finished += not killed
        self.kills += killed
        self.identical += killed and not problem
        if problem:
            self.wrong.append(f"{what}: {problem}")

    def __str__(self) -> str:
        text = f"{self.kills} kills, {self.identical} identical after --resume, {self.finished} ended before the kill"
        return "\n".join([text, *self.wrong])


class Case:
    """One command, its uninterrupted outcome, and how often its writer reaches each stage."""

    def __init__(self, name: str, arguments: Sequence[str], folder: Path) -> None:
        self.name, self.arguments, self.folder = name, list(arguments), folder
        self.straight = folder / "straight"
        begun = time.monotonic()
        code = run([*self.arguments, f"out={self.straight}"])
        self.seconds = time.monotonic() - begun
        if code not in (0, 1):
            raise AssertionError(f"{name}: the uninterrupted run ended with {code}")
        self.code = code
        self.expected = outcome(self.straight)

    def kill(self, tally: Tally, what: str, before: Callable[[], None] | None, after: float | None) -> bool:
        """Kill one run, go on with it, compare; whether it was killed before it ended."""
        out = self.folder / "killed"
        shutil.rmtree(out, ignore_errors=True)
        command = [*self.arguments, f"out={out}"]
        status = run(command, before, after)
        killed = status in (137, -signal.SIGKILL)
        problem = "" if killed or status == self.code else f"the disturbed run ended with {status}"
        if killed:
            again = run([*command, "--resume"])
            problem = "" if again == self.code else f"--resume ended with {again}"
        if not problem:
            problem = difference(self.expected, outcome(out))
        tally.add(f"{self.name}, {what}", killed, problem)
        return killed

    def stages(self, tally: Tally, stage: str, numbers: Sequence[int]) -> None:
        """Kill inside the writer of the first, second, ... file."""
        for number in numbers:
            if not self.kill(tally, f"{stage} of file {number}", die_at(stage, number), None):
                return

    def moments(self, tally: Tally, count: int, seed: int) -> None:
        """Kill at random moments."""
        stream = random.Random(seed)
        for _ in range(count):
            after = stream.uniform(0.0, self.seconds)
            self.kill(tally, f"after {after:.3f} s of {self.seconds:.1f}", None, after)


def difference(expected: dict[str, str], found: dict[str, str]) -> str:
    """What differs between two outcomes; empty if nothing does."""
    names = [name for name in sorted({*expected, *found}) if expected.get(name) != found.get(name)]
    return f"{len(names)} files differ, such as {', '.join(names[:5])}" if names else ""


def prepare() -> None:
    """Import what runs import, once, with one thread, so that forked children start at once."""
    import torch

    torch.set_num_threads(1)
    os.environ["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"
    from medgen.models.catalogue import available, family_class
    from medgen.runs.store import mlflow_store

    for name in available():
        family_class(name)
    import monai.networks.nets  # noqa: F401

    mlflow_store.import_mlflow(os.environ["MLFLOW_TRACKING_URI"])
