"""What the commands share besides options: loading of configurations, progress, printed results."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from medgen.errors import ConfigError

from .options import RunOptions

if TYPE_CHECKING:
    from medgen.runs.folder import RunSummary

HELP = {"help_option_names": ["-h", "--help"]}


def group(name: str, text: str, example: str) -> typer.Typer:
    """A group of commands with its example."""
    return typer.Typer(
        name=name, help=text, no_args_is_help=True, context_settings=HELP, rich_markup_mode=None, epilog=example
    )


def finish(summary: RunSummary) -> NoReturn:
    """Print the lines of a run and exit with its code."""
    from medgen.faults import visible

    for line in summary.lines:
        # A summary line may be a table of several lines; names with escape sequences are shown, not obeyed.
        typer.echo("\n".join(map(visible, line.split("\n"))))
    raise typer.Exit(summary.exit_code)


def plan(lines: Iterable[str]) -> NoReturn:
    """Print the lines of a plan and exit."""
    for line in lines:
        typer.echo(line)
    raise typer.Exit


@dataclass(frozen=True)
class Runnable:
    """A pipeline as its command knows it: nothing is imported before the arguments were looked at.

    Attributes:
        configs: Folder of its shipped configurations.
        config: Its configuration, ``module:name`` below ``pipelines``.
        refuse: What refuses a run before a scan is read.
        plan: What gives the lines of ``--dry-run``.
        run: What runs it.
        slow: Whether its configuration takes seconds to import, so that data which is not there is refused before.
    """

    configs: str
    config: str
    refuse: str
    plan: str
    run: str
    slow: bool = False


def carry_out(pipeline: Runnable, options: RunOptions) -> NoReturn:
    """Read the configuration with its overrides and flags, refuse what cannot be, then plan or run, and exit.

    Raises:
        MedgenError: If configuration, data or run are at fault.
    """
    from medgen.config import apply_overrides, parse_config, read_yaml
    from medgen.runs.machine_sizes import scaled

    path = find_config(pipeline.configs, options.config)
    flags = {"device": options.device, "seed": options.seed, "workers": options.workers}
    settings = [*(options.overrides or []), *(f"{key}={value}" for key, value in flags.items() if value is not None)]
    values = apply_overrides(read_yaml(path), settings)
    named = any(item.partition("=")[0].strip() == "data" for item in settings)
    if pipeline.slow and named and isinstance(data := values["data"], str):
        from ..preflight import check_data

        check_data(Path(data))
    config = parse_config(_find(pipeline.config), scaled(values, str(path)), str(path))
    how = {"resume": options.resume, "overwrite": options.overwrite}
    _find(pipeline.refuse)(config, **how)
    if options.dry_run:
        plan(_find(pipeline.plan)(config, **how))
    finish(_find(pipeline.run)(config, **how, progress=not options.quiet))


def _find(name: str) -> Any:
    module, _, member = name.partition(":")
    return getattr(import_module(f"..{module}", __package__), member)


def find_config(group: str, name: str) -> Path:
    """The file named on the command line, else the shipped configuration of that name in the pipeline's group."""
    path = Path(name)
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        return path
    from importlib.resources import files

    folder = Path(str(files("medgen.configs"))) / group
    shipped = folder / f"{name}.yaml"
    if not shipped.is_file():
        known = ", ".join(sorted(entry.stem for entry in folder.glob("*.yaml")))
        raise ConfigError(f"{name}: no such configuration file, and none of that name is shipped (shipped: {known})")
    return shipped


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar for commands without ``--quiet``: shown to people, not to files and pipes."""
    from medgen.progress import bars

    with bars(sys.stderr.isatty()) as tick:
        yield lambda done, total: tick(what, done, total)


def listed(text: str) -> list[str]:
    """The parts of a comma-separated option."""
    return [part.strip() for part in text.split(",") if part.strip()]


def whole_numbers(option: str, text: str, example: str = "0,1,2") -> list[int]:
    """The numbers of a comma-separated option.

    Raises:
        ConfigError: If there are none, or one is no whole number.
    """
    numbers = listed(text)
    if not numbers or not all(number.isdecimal() for number in numbers):
        raise ConfigError(f"{option}: expected whole numbers such as {example}, found {text!r}")
    return [int(number) for number in numbers]


def echo_json(data: object) -> None:
    """Print plain data as JSON."""
    from medgen.system.files import plain

    typer.echo(json.dumps(plain(data), indent=2, ensure_ascii=False))
