"""Arguments of the Python interface that are of another kind than they should be, refused in a sentence."""

from __future__ import annotations

from operator import index
from os import PathLike
from pathlib import Path
from typing import Any

from medgen.errors import ConfigError


def path_of(name: str, given: Any) -> Path:
    """A path.

    >>> path_of("run", "runs/brains").name
    'brains'

    Raises:
        ConfigError: If it is neither text nor a path.
    """
    if not isinstance(given, str | PathLike) or isinstance(given, bytes) or not str(given):
        raise ConfigError(f"{name}: found {_said(given)}, expected a path such as 'runs/brains'")
    return Path(given)


def whole_number(name: str, given: Any, least: int, most: int | None = None) -> int:
    """A whole number, of NumPy too; true and false are none.

    >>> whole_number("n", 3, 1)
    3

    Raises:
        ConfigError: If it is none, or out of range.
    """
    expected = f"a whole number from {least}" + (f" to {most}" if most is not None else "")
    try:
        number = None if isinstance(given, bool) else index(given)
    except TypeError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        raise ConfigError(f"{name}: found {_said(given)}, expected {expected}")
    return number


def text_of(name: str, given: Any, example: str) -> str:
    """A word.

    Raises:
        ConfigError: If it is no text.
    """
    if not isinstance(given, str):
        raise ConfigError(f"{name}: found {_said(given)}, expected text such as {example!r}")
    return given


def texts_of(name: str, given: Any, example: str) -> tuple[str, ...]:
    """A list of words.

    Raises:
        ConfigError: If it is none; one text alone is none.
    """
    if not isinstance(given, list | tuple) or not all(isinstance(item, str) for item in given):
        raise ConfigError(f"{name}: found {_said(given)}, expected a list of texts such as [{example!r}]")
    return tuple(given)


def _said(given: Any) -> str:
    return f"{given!r:.60} ({type(given).__name__})"
