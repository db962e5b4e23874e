"""Pages of every setting, from the classes that read it: key, kind and range, default, meaning."""

from __future__ import annotations

import inspect
import json
import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import commands
import griffe
from pydantic_core import PydanticUndefined

from medgen.config import Config
from medgen.models.catalogue import available, family_class
from medgen.pipelines.cli import anomaly, app, augment, bench
from medgen.pipelines.cli.carry_out import Runnable
from medgen.preprocessing.recipe import Preprocess

# Given as plain data and read by one of these classes.
READ_BY: Mapping[str, tuple[type[Config], ...]] = {"preprocess": (Preprocess,)}
_HEAD = """# Configuration

A run reads a YAML file, its own or a shipped one (`medgen anomaly run default`), and `key=value` on the command line
overrides any setting of it. A dot goes into a group: `training.steps=500`. Values are YAML: `3`, `true`, `[1, 2]`,
`null`. A key that does not exist is refused, and the nearest one is named. The `config.yaml` of a run's folder holds
every setting as it was used.

Lengths are in millimetres, spacings in millimetres per voxel, angles in degrees, shares between 0 and 1, if nothing
else is said.

| page | what it sets |
|---|---|
"""


@dataclass
class Group:
    """A class of settings and where it is found.

    Attributes:
        kind: The class.
        paths: Dotted keys that lead to it, in the order found; the empty one is the file itself.
        roots: Commands that read it.
    """

    kind: type[Config]
    paths: list[str] = field(default_factory=list)
    roots: list[str] = field(default_factory=list)


def roots() -> dict[str, type[Config]]:
    """Commands that read a configuration, and its class."""
    found: dict[str, type[Config]] = {}
    for module, above in ((anomaly, "anomaly "), (augment, "augment "), (app, ""), (bench, "bench ")):
        for name, value in vars(module).items():
            if isinstance(value, Runnable):
                where, _, member = value.config.partition(":")
                kind = getattr(import_module(f"medgen.pipelines.{where}"), member)
                found.setdefault(f"{above}{name.lower()}", kind)
    return found


def every_group() -> dict[type[Config], Group]:
    """All classes of settings that configurations are made of."""
    found: dict[type[Config], Group] = {}
    for root, kind in roots().items():
        for path, own in _walk(kind, ""):
            group = found.setdefault(own, Group(own))
            group.paths += [path] if path not in group.paths else []
            group.roots += [root] if root not in group.roots else []
    return found


def undocumented(kind: type[Config]) -> list[str]:
    """Keys of a class that no docstring describes."""
    return [key for key in kind.model_fields if not meaning(kind, key)]


def meaning(kind: type[Config], key: str) -> str:
    """What a key means: as its class says, or a class that it inherits from, or the class of its group."""
    for own in kind.__mro__:
        for section in _parsed(own):
            for item in section.value if section.kind.value == "attributes" else ():
                if key in [name.strip() for name in item.name.split(",")]:
                    return _text(item.description)
    group = _classes(kind.model_fields[key].annotation)
    return _summary(group[0]) if group else ""


def pages() -> dict[str, str]:
    """Names and Markdown of all pages."""
    groups = every_group()
    shared = [group for group in groups.values() if len(group.roots) > 1]
    place = {
        group.kind: ("shared.md" if len(group.roots) > 1 else _file(group.roots[0]), _anchor(group))
        for group in groups.values()
    }
    made: dict[str, str] = {}
    for root in roots():
        own = [group for group in groups.values() if group.roots == [root]]
        lines = [f"# Settings of {root}", "", f"What the file of `medgen {root}` may hold.", ""]
        made[_file(root)] = "\n".join([*lines, *_sections(own, _file(root), place)])
    lines = ["# Groups of settings that several commands share", ""]
    made["shared.md"] = "\n".join([*lines, *_sections(shared, "shared.md", place)])
    made["models.md"] = "\n".join(_families(place))
    helped = {name: commands.summary(command) for name, command in commands.every_command()}
    rows = [f"| [{root}]({_file(root)}) | `medgen {root}`: {helped[f'medgen {root}']} |" for root in roots()]
    rows += ["| [shared groups](shared.md) | how cohorts are found, how scans are prepared, how networks are trained |"]
    rows += ["| [models](models.md) | the key `model`: each family's settings, and its options of sampling |"]
    made["README.md"] = _HEAD + "\n".join(rows) + "\n"
    return {f"configuration/{name}": text for name, text in made.items()}


def _walk(kind: type[Config], path: str) -> Iterator[tuple[str, type[Config]]]:
    if not _is_bundle(kind):
        yield path, kind
    for key, info in kind.model_fields.items():
        inner = f"{path}.{key}" if path else key
        # A group may hold itself, by a key of its own.
        for own in READ_BY.get(key, ()) if not _classes(info.annotation) else _classes(info.annotation):
            if own is not kind:
                yield from _walk(own, inner)


def _is_bundle(kind: type[Config]) -> bool:
    """Whether a class has nothing but groups, such as a pair of a label source and a painter."""
    return bool(kind.model_fields) and all(_is_group(info.annotation) for info in kind.model_fields.values())


def _is_group(annotation: Any) -> bool:
    return inspect.isclass(annotation) and issubclass(annotation, Config)


def _classes(annotation: Any) -> list[type[Config]]:
    if _is_group(annotation):
        return [annotation]
    return [kind for part in get_args(annotation) for kind in _classes(part)]


def _file(root: str) -> str:
    return f"{root.replace(' ', '-')}.md"


def _heading(group: Group) -> str:
    return min(group.paths, key=lambda path: path.count(".")) or "The file itself"


def _anchor(group: Group) -> str:
    return re.sub(r"[^\w\- ]", "", _heading(group).lower()).replace(" ", "-")


def _sections(groups: list[Group], page: str, place: Mapping[type[Config], tuple[str, str]]) -> list[str]:
    lines: list[str] = []
    for group in groups:
        if not group.kind.model_fields:
            continue
        lines += [f"## {_heading(group)}", ""]
        said = " ".join(_said(group.kind))
        others = [f"`{path}`" for path in group.paths if path and path != _heading(group)]
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        lines += [said, "", *([f"The same group: {', '.join(others[:5])}{more}.", ""] if others else [])]
        lines += _table(group.kind, _heading(group) if group.paths != [""] else "", page, place)
    return lines


def _table(kind: type[Config], path: str, page: str, place: Mapping[type[Config], tuple[str, str]]) -> list[str]:
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for key, info in kind.model_fields.items():
        value = _value(info.annotation, info.metadata, page, place)
        if key in READ_BY and not _classes(info.annotation):
            value = _link(READ_BY[key][0], page, place)
        if key == "model" and get_origin(info.annotation) is dict:
            value = "[a family's settings](models.md)"
        cells = (f"`{key}`", value, _default(info), meaning(kind, key))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*rows, ""]


def _families(place: Mapping[type[Config], tuple[str, str]]) -> Iterator[str]:
    yield from (
        "# Models",
        "",
        "Settings of the key `model`, by `model.family`. Shape and channels follow from the data.",
        "",
    )
    for name in available():
        family = family_class(name)
        yield from (f"## {name}", "", _text(_summary(family)), "", *_table(family.Settings, "", "models.md", place))
        if family.Sampling.model_fields:
            yield from (f"### Sampling of {name}", "", *_table(family.Sampling, "", "models.md", place))


def _link(kind: type[Config], page: str, place: Mapping[type[Config], tuple[str, str]]) -> str:
    if _is_bundle(kind):
        parts = (f"`{key}`: {_link(info.annotation, page, place)}" for key, info in kind.model_fields.items())  # type: ignore[arg-type]
        return ", ".join(parts)
    if kind not in place or not kind.model_fields:
        return "group"
    file, anchor = place[kind]
    return f"[group]({'' if file == page else file}#{anchor})"


_WORDS = {int: "whole number", float: "number", bool: "true or false", str: "text", Path: "path", Any: "any"}
_LIMITS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def _value(annotation: Any, metadata: Any, page: str, place: Mapping[type[Config], tuple[str, str]]) -> str:
    """Kind and range of a value in words."""
    limits = [
        f"{sign} {getattr(item, name):g}" for item in metadata for name, sign in _LIMITS.items() if hasattr(item, name)
    ]
    return " ".join([_kind(annotation, page, place), *([f"({', '.join(limits)})"] if limits else [])])


def _kind(annotation: Any, page: str, place: Mapping[type[Config], tuple[str, str]]) -> str:
    if _is_group(annotation):
        return _link(annotation, page, place)
    origin, parts = get_origin(annotation), get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        return _value(parts[0], annotation.__metadata__, page, place)
    if hasattr(annotation, "__value__"):
        return _kind(annotation.__value__, page, place)
    if origin is Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin in {Union, types.UnionType}:
        kinds = dict.fromkeys("null" if part is type(None) else _kind(part, page, place) for part in parts)
        return " or ".join(kinds)
    if origin in {tuple, list}:
        inner = [part for part in parts if part is not Ellipsis]
        count = "" if Ellipsis in parts or origin is list else f"{len(inner)} of "
        return f"list: {count}{_kind(inner[0], page, place)}"
    if origin in {dict, Mapping} or annotation is dict:
        return f"by {_kind(parts[0], page, place)}: {_kind(parts[1], page, place)}" if parts else "names and values"
    return _WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)).lower())


def _default(info: Any) -> str:
    if info.is_required():
        return "required"
    value = info.default if info.default is not PydanticUndefined else info.default_factory()
    if isinstance(value, Config):
        plain = value.model_dump(mode="json", exclude_defaults=True)
        return f"`{json.dumps(plain)}`" if plain else ""
    if isinstance(value, Mapping):
        return f"`{json.dumps(dict(value))}`" if value else ""
    if isinstance(value, Path | str):
        return f"`{value}`" if str(value) else "empty"
    if isinstance(value, tuple | frozenset):
        items = [item.model_dump(mode="json") if isinstance(item, Config) else item for item in value]
        return f"`{json.dumps(items)}`"
    return f"`{json.dumps(value)}`"


def _parsed(kind: type[Any]) -> list[Any]:
    said = kind.__dict__.get("__doc__")
    docstring = griffe.Docstring(inspect.cleandoc(said), lineno=1) if said else None
    return docstring.parse("google", warnings=False) if docstring else []


def _summary(kind: type[Any]) -> str:
    """The first paragraph that a class, or one that it inherits from, says of itself."""
    return _said(kind)[0]


def _said(kind: type[Any]) -> list[str]:
    """The paragraphs of a class, or of the first that it inherits from and that says something, without examples."""
    for own in kind.__mro__:
        text = "\n\n".join(section.value for section in _parsed(own) if section.kind.value == "text")
        paragraphs = [_text(part) for part in text.split("\n\n") if not part.lstrip().startswith(">>>")]
        if own is not Config and any(paragraphs):
            return paragraphs
    return [""]


def _text(said: str) -> str:
    """A docstring's text as Markdown on one line."""
    said = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", " ".join(said.split()))
    return re.sub(r"``([^`]*)``", r"`\1`", said)
