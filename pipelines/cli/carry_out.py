"""What the commands share besides options and answers: loading of configurations, progress, lists."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import typer

from medgen.config import nearest
from medgen.errors import ConfigError
from medgen.faults import visible

from .answer import Answer, finish, plan
from .known_keys import refuse_typos
from .options import RunOptions

HELP = {"help_option_names": ["-h", "--help"]}


def group(name: str, text: str, example: str) -> typer.Typer:
    """A group of commands with its example."""
    return typer.Typer(
        name=name, help=text, no_args_is_help=True, context_settings=HELP, rich_markup_mode=None, epilog=example
    )


@dataclass(frozen=True)
class Runnable:
    """A pipeline as its command knows it: nothing is imported before the arguments were looked at.

    Attributes:
        configs: Folder of its shipped configurations.
        config: Its configuration, ``module:name`` below ``pipelines``.
        refuse: What refuses a run before a scan is read.
        plan: What gives the lines of ``--dry-run``.
        run: What runs it.
    """

    configs: str
    config: str
    refuse: str
    plan: str
    run: str


def carry_out(pipeline: Runnable, options: RunOptions) -> Answer:
    """Read the configuration with its overrides and flags, refuse what cannot be, then plan or run.

    Typos and what is not there are refused before a configuration is imported, which takes seconds.

    Raises:
        MedgenError: If configuration, data or run are at fault.
    """
    from medgen.config import apply_overrides, parse_config, read_yaml
    from medgen.runs.machine_sizes import scaled

    path = find_config(pipeline.configs, options.config)
    flags = {"device": options.device, "seed": options.seed, "workers": options.workers}
    settings = [*(options.overrides or []), *(f"{key}={value}" for key, value in flags.items() if value is not None)]
    values = apply_overrides(read_yaml(path), settings)
    named = {key: own for key, own in values.items() if key != "size"}
    refuse_typos(pipeline.config.partition(":")[2], named, str(path))
    how = {"resume": options.resume, "overwrite": options.overwrite}
    values = scaled(values, str(path))
    _refuse_early(values, str(path), **how)
    config = parse_config(_find(pipeline.config), values, str(path))
    _find(pipeline.refuse)(config, **how)
    if options.resume:
        say_if_new(config.out)
    if options.dry_run:
        return plan(_find(pipeline.plan)(config, **how))
    return finish(_find(pipeline.run)(config, **how, progress=not options.quiet))


def say_if_new(out: Path) -> None:
    """Say on stderr where ``--resume`` finds nothing to go on with: the folder may be another one than was meant."""
    from medgen.runs.folder import CONFIG_FILE

    if not (out / CONFIG_FILE).is_file():
        typer.echo(f"medgen: {visible(str(out))}: holds no run to go on with; starts from the beginning", err=True)


def _refuse_early(values: Mapping[str, Any], source: str, *, resume: bool, overwrite: bool) -> None:
    """What the configuration and the run would refuse as well, as far as that can be known before either is imported.

    Raises:
        MedgenError: If family, device, data or output folder are at fault.
    """
    from medgen.models.families import check_family
    from medgen.training.device_names import check_device_name

    from ..preflight import check_data, check_start

    further = values.get("further")
    models = [values.get("model"), *(further.values() if isinstance(further, Mapping) else ())]
    for own in models:
        model = own.get("model", own) if isinstance(own, Mapping) else None
        if isinstance(model, Mapping):
            try:
                check_family(model)
            except ValueError as error:
                raise ConfigError(f"{source}: {error}") from None
    if isinstance(device := values.get("device"), str):
        check_device_name(device)
    data, out = values.get("data"), values.get("out")
    if isinstance(data, str):
        check_data(Path(data))
        if isinstance(out, str):
            check_start(Path(out), (Path(data),), resume=resume, overwrite=overwrite)


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
        known = shipped_configs(group)
        raise ConfigError(
            f"{name}: no such configuration file, and none of that name is shipped (shipped: {', '.join(known)})"
            f"{nearest(name, known)}"
        )
    return shipped


def shipped_configs(group: str) -> list[str]:
    """Names of the configurations that are shipped for a pipeline."""
    from importlib.resources import files

    return sorted(entry.stem for entry in (Path(str(files("medgen.configs"))) / group).glob("*.yaml"))


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
