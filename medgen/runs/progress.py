"""One progress bar for steps that are not training, on the error stream."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Tick = Callable[[str, int, int], None]


@contextmanager
def bars(show: bool) -> Iterator[Tick]:
    """A function ``(what, done, total)`` that keeps one bar per ``what``.

    It does nothing if ``show`` is False, or where no one would see a bar move: in files and pipes.
    """
    if not show or not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks: dict[str, int] = {}

        def tick(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = int(progress.add_task(what, total=total))
            progress.update(progress.task_ids[tasks[what]], completed=done, total=total)

        yield tick
