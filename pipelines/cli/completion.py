"""What a shell is offered for a half-typed word: configurations, keys, choices; nothing heavy is imported for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import typer

# Command → folder of its shipped configurations, and class of its configuration.
RUNS = {
    "train": ("train", "TrainRunConfig"),
    "pretrain": ("train", "PretrainRunConfig"),
    "anomaly run": ("anomaly", "AnomalyRunConfig"),
    "augment run": ("augment", "AugmentRunConfig"),
    "augment value": ("value", "ValueRunConfig"),
}


def shipped_configs(group: str) -> list[str]:
    """Names of the configurations that are shipped for a pipeline."""
    from importlib.resources import files

    return sorted(entry.stem for entry in (Path(str(files("medgen.configs"))) / group).glob("*.yaml"))


def among(choices: Sequence[str]) -> Callable[[str], list[str]]:
    """Completes one of some words."""
    return lambda incomplete: [choice for choice in choices if choice.startswith(incomplete)]


def several_among(choices: Callable[[], Sequence[str]]) -> Callable[[str], list[str]]:
    """Completes the last of words that commas part."""

    def complete(incomplete: str) -> list[str]:
        done, comma, begun = incomplete.rpartition(",")
        named = done.split(",")
        return [f"{done}{comma}{word}" for word in choices() if word.startswith(begun) and word not in named]

    return complete


def configs(ctx: typer.Context, incomplete: str) -> list[str]:
    """Completes the name of a configuration that is shipped for the command at hand."""
    run = _run(ctx)
    return [] if run is None else [name for name in shipped_configs(run[0]) if name.startswith(incomplete)]


def settings(ctx: typer.Context, incomplete: str) -> list[str]:
    """Completes a key of the command's configuration, and after ``=`` one of its choices."""
    from .known_keys import completions

    run = _run(ctx)
    return [] if run is None else completions(run[1], incomplete)


def families() -> list[str]:
    """Names of the model families."""
    from medgen.models.families import available

    return available()


def speed_benchmarks() -> list[str]:
    """Names of the benchmarks of speed."""
    from ..bench.speed.catalogue import benchmarks

    return benchmarks()


def kinds() -> list[str]:
    """Names of the kinds of implants: the files in their folder."""
    from importlib.resources import files

    found = (entry.name for entry in (files("medgen") / "implants" / "kinds").iterdir())
    return sorted(name.removesuffix(".py") for name in found if name.endswith(".py") and name[0] != "_")


def _run(ctx: typer.Context) -> tuple[str, str] | None:
    return RUNS.get(" ".join(ctx.command_path.split()[1:]))
