"""How long work tells what it has done: functions that are called with numbers, and the bar that shows them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

# Called with (done, total).
Progress = Callable[[int, int], None]
# Called with (what, done, total), for work of several kinds.
Tick = Callable[[str, int, int], None]
# Called with (numbers, step).
Log = Callable[[dict[str, float], int], None]


class Move(Protocol):
    """What moves a bar; a :data:`Tick` that may say a word more."""

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        """Set the bar called ``what`` to ``done`` of ``total``; ``note`` stands beside it."""


@contextmanager
def bars(show: bool) -> Iterator[Move]:
    """A function ``(what, done, total)`` that keeps one bar per ``what`` on the error stream.

    It does nothing if ``show`` is False, or where no one would see a bar move: in files and pipes.
    """
    if not show or not sys.stderr.isatty():
        yield lambda what, done, total, note="": None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Live

    note_column = TextColumn("{task.fields[note]}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), note_column, TimeRemainingColumn())
    with Live(*columns, console=Console(stderr=True)) as live:
        tasks: dict[str, int] = {}

        def move(what: str, done: int, total: int, note: str = "") -> None:
            if what not in tasks:
                tasks[what] = int(live.add_task(what, total=total, completed=done, note=""))
            said = {"note": note} if note else {}
            live.update(live.task_ids[tasks[what]], completed=done, total=total, **said)  # type: ignore[arg-type]

        yield move


def step(what: str, number: int, total: int) -> None:
    """Say on the error stream that a step of several begins; nothing where no one would see it.

    Args:
        what: Its name.
        number: Which it is, from 1.
        total: How many there are.
    """
    if sys.stderr.isatty():
        print(f"[{number}/{total}] {what}", file=sys.stderr, flush=True)
