"""The benchmarks of speed: one file each in ``contests/``; nothing is imported before one is chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.resources import files

from .contest import Entry, Settings


def benchmarks() -> list[str]:
    """Names on the command line: those of the files, with hyphens."""
    found = (entry.name for entry in (files(__package__) / "contests").iterdir())
    return sorted(name[:-3].replace("_", "-") for name in found if name.endswith(".py") and name[0] != "_")


def entries_of(name: str) -> Callable[[Settings], Iterator[Entry]]:
    """What a benchmark measures, entry by entry."""
    module = import_module(f".contests.{name.replace('-', '_')}", __package__)
    found: Callable[[Settings], Iterator[Entry]] = module.entries
    return found
