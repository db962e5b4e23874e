"""What a command has to say, and the one place that says it: lines for people, or one JSON document with ``--json``."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    from pathlib import Path

    from medgen.runs.folder import RunSummary

JSON = "--json"


@dataclass(frozen=True)
class Answer:
    """What a command returns.

    Attributes:
        data: Plain data, printed as one document with ``--json``; the exit code is added to it.
        lines: The same for people, on stdout; each may be a table of several lines.
        problems: What is wrong or worth knowing, a line each, on stderr.
        exit_code: 0 done, 1 done but for some cases, 2 something is wrong with what was given.
        afterwards: What goes on once this was said, such as a server; else None.
    """

    data: Mapping[str, Any]
    lines: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    exit_code: int = 0
    afterwards: Callable[[], None] | None = field(default=None, repr=False)


def finish(summary: RunSummary) -> Answer:
    """The answer of a run: its lines, where its files are, and every number of its ``metrics.json``."""
    data: dict[str, Any] = {"out": summary.out, "lines": summary.lines, **summary.facts}
    if summary.out is not None:
        report, metrics = summary.out / "report.html", summary.out / "metrics.json"
        data |= {"report": report} if report.is_file() else {}
        data |= {"metrics": _numbers(metrics)} if metrics.is_file() else {}
    return Answer(data, summary.lines, exit_code=summary.exit_code)


def plan(lines: Iterable[str]) -> Answer:
    """The answer of ``--dry-run``: the lines of the plan."""
    listed = tuple(lines)
    return Answer({"plan": list(listed)}, listed)


def carried_out(function: Callable[[], Answer], as_json: bool) -> NoReturn:
    """Run a command, say its answer, and exit with its code.

    With ``as_json``, stdout holds one document and nothing else: whatever the command or a library prints meanwhile
    goes to stderr.
    """
    from medgen.faults import visible

    if as_json:
        with stdout_apart() as write:
            answer = function()
            write(document(dict(answer.data), answer.exit_code))
            _say(answer.problems)
            if answer.afterwards is not None:
                answer.afterwards()
    else:
        answer = function()
        for line in answer.lines:
            # Names with escape sequences are shown, not obeyed.
            typer.echo("\n".join(map(visible, line.split("\n"))))
        _say(answer.problems)
        if answer.afterwards is not None:
            sys.stdout.flush()
            answer.afterwards()
    raise typer.Exit(answer.exit_code)


def document(data: Mapping[str, Any], exit_code: int) -> str:
    """One JSON document with the exit code of the command."""
    from medgen.system.files import plain

    return json.dumps(plain({**data, "exit_code": exit_code}), indent=2, ensure_ascii=False)


def wants_json(arguments: Iterable[str]) -> bool:
    """Whether a command line asks for JSON; what stands behind ``--`` is a name."""
    for argument in arguments:
        if argument == "--":
            return False
        if argument == JSON:
            return True
    return False


@contextmanager
def stdout_apart() -> Iterator[Callable[[str], None]]:
    """Give stdout to the caller alone, as a function that writes a text; all others write to stderr meanwhile.

    This goes for the file descriptor as well, which libraries in C and processes that are started write to.
    """
    sys.stdout.flush()
    try:
        own = os.dup(sys.stdout.fileno())
    except (OSError, ValueError):  # Captured by whoever called us, such as a test.
        own = -1
    kept = sys.stdout
    if own >= 0:
        os.dup2(2, kept.fileno())

    def write(text: str) -> None:
        if own < 0:
            kept.write(f"{text}\n")
            kept.flush()
            return
        # What is left of names that are not UTF-8 is escaped as JSON does it.
        data = f"{text}\n".encode("utf-8", "backslashreplace")
        while data:
            data = data[os.write(own, data) :]

    try:
        with redirect_stdout(sys.stderr):
            yield write
    finally:
        if own >= 0:
            os.dup2(own, kept.fileno())
            os.close(own)


def _say(problems: Iterable[str]) -> None:
    from medgen.faults import visible

    for problem in problems:
        # The terminal may be the very file that cannot be written.
        with suppress(OSError):
            typer.echo(visible(problem), err=True)


def _numbers(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
