"""The page of what Python offers, from signatures and docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import griffe

# What is explained: modules with the names that belong to the page, under a heading each.
PARTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "A trained model on a scan": ("medgen.api", ("load", "Detector", "ScoredScan")),
    "New labelled scans": ("medgen.api", ("synthesize", "SyntheticScan")),
    "Checks and practice data": ("medgen.api", ("check", "Checked", "simulate")),
    "Scans and grids": ("medgen.volume", ("Grid", "Volume")),
    "Files": ("medgen.io", ("read", "write")),
    "Errors": ("medgen.errors", ()),
    "Models of one's own": ("medgen.models.base", ("ScanModel", "ModelConfig")),
    "Scores of one's own": ("medgen.anomaly.scores.base", ("score", "Score")),
}
_HEAD = """# Python

Four names are all that a notebook needs: `medgen.load`, `medgen.synthesize`, `medgen.check` and `medgen.simulate`; the
[guide](../guides/python.md) shows them at work. What they return and the classes of scans, grids and errors keep their
meaning over minor versions. Arrays are (channel, i, j, k), positions millimetres in RAS+, if nothing else is said.
"""
_TITLES = {"parameters": "Takes", "returns": "Returns", "yields": "Yields", "raises": "Raises", "attributes": "Has"}


def page() -> str:
    """The page in Markdown."""
    lines = [_HEAD]
    for title, (module, names) in PARTS.items():
        lines += [f"## {title}", ""]
        for name, item in members(module, names):
            lines += _entry(name, item, 3)
    return "\n".join(lines) + "\n"


def members(module: str, names: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """What a part explains: these names, or all public classes of the module where none are given."""
    home = import_module(module)
    own = {key: item for key, item in vars(home).items() if inspect.isclass(item) and item.__module__ == module}
    for name in names or [key for key in own if not key.startswith("_")]:
        shown = f"medgen.{name}" if module == "medgen.api" and name in import_module("medgen").__all__ else name
        yield shown, getattr(home, name)


def undocumented() -> list[str]:
    """Names on the page without a docstring, methods and properties included."""
    entries = [entry for module, names in PARTS.values() for entry in members(module, names)]
    inner = [(f"{name}.{key}", own) for name, item in entries for key, own in _methods(item)]
    return [name for name, item in (*entries, *inner) if not inspect.getdoc(item)]


def _entry(name: str, item: Any, level: int) -> list[str]:
    lines = [f"{'#' * level} {name}", ""]
    if shown := _signature(name, item):
        lines += ["```python", shown, "```", ""]
    lines += _docstring(item)
    for key, own in _methods(item):
        lines += _entry(f"{name.rpartition('.')[2]}.{key}", own, level + 1)
    return lines


def _methods(item: Any) -> Iterator[tuple[str, Any]]:
    if not inspect.isclass(item):
        return
    for key, own in vars(item).items():
        inner = own.__func__ if isinstance(own, classmethod | staticmethod) else own
        if not key.startswith("_") and (inspect.isfunction(inner) or isinstance(inner, property)):
            yield key, inner


def _signature(name: str, item: Any) -> str:
    if isinstance(item, property) or (inspect.isclass(item) and issubclass(item, BaseException)):
        return ""
    try:
        signature = inspect.signature(item)
    except ValueError:
        return ""
    own = [value for key, value in signature.parameters.items() if key not in {"self", "cls"}]
    parts = list(_with_star(own))
    returned = signature.return_annotation
    back = "" if inspect.isclass(item) or returned is inspect.Signature.empty else f" -> {_annotation(returned)}"
    line = f"{name}({', '.join(parts)}){back}"
    return line if len(line) <= 100 else "\n".join([f"{name}(", *(f"    {part}," for part in parts), f"){back}"])


def _with_star(parameters: list[inspect.Parameter]) -> Iterator[str]:
    starred = any(value.kind is inspect.Parameter.VAR_POSITIONAL for value in parameters)
    for value in parameters:
        if value.kind is inspect.Parameter.KEYWORD_ONLY and not starred:
            starred = True
            yield "*"
        yield _parameter(value)


def _parameter(value: inspect.Parameter) -> str:
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}.get(value.kind, "")
    kind = "" if value.annotation is inspect.Parameter.empty else f": {_annotation(value.annotation)}"
    default = "" if value.default is inspect.Parameter.empty else f" = {value.default!r}"
    return f"{stars}{value.name}{kind}{default}"


def _annotation(given: Any) -> str:
    text = given if isinstance(given, str) else inspect.formatannotation(given)
    return re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", text)


def _docstring(item: Callable[..., Any]) -> list[str]:
    lines: list[str] = []
    # Of a class what it says itself: the docstring of a dataclass's base would speak of something else.
    said = item.__doc__ or ""
    for section in griffe.Docstring(inspect.cleandoc(said), lineno=1).parse("google", warnings=False) if said else ():
        kind = section.kind.value
        if kind == "text":
            lines += [_text(section.value), ""]
        elif kind == "examples":
            for what, text in section.value:
                lines += ["```pycon", text, "```", ""] if what.value == "examples" else [_text(text), ""]
        elif kind in _TITLES:
            lines += [f"**{_TITLES[kind]}**", "", *map(_line, section.value), ""]
    return lines


def _line(entry: Any) -> str:
    named = getattr(entry, "name", "")
    what = _text(" ".join(str(entry.description).split()))
    if named:
        return f"* `{named}`: {what}"
    # A return value has no name; an exception has its class for one.
    kind = str(entry.annotation or "")
    return f"* `{kind}`: {what}" if kind else f"* {what}"


def _text(said: str) -> str:
    """A docstring's text as Markdown."""
    said = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", said)
    return re.sub(r"``([^`]*)``", r"`\1`", said)
