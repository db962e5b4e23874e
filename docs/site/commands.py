"""The page of all commands, from the program itself."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import typer
from typer.models import CommandInfo, OptionInfo

from medgen.pipelines.cli.app import app

_HEAD = """# Commands

Every command with its arguments and options, as `medgen COMMAND --help` prints them. Settings of runs, `key=value`, are
on the pages of the [configuration](configuration/README.md).
"""
_KINDS = {str: "TEXT", int: "INTEGER", float: "NUMBER", Path: "PATH"}


def page() -> str:
    """The page in Markdown."""
    lines = [_HEAD, "## medgen", "", _text(_help(app)), ""]
    if app.registered_callback is not None:
        lines += _parameters(app.registered_callback.callback)
    for name, command in every_command():
        lines += _section(name, command)
    return "\n".join(lines) + "\n"


def every_command() -> Iterator[tuple[str, CommandInfo]]:
    """Full names and commands of all that can be called, those without a group first."""
    yield from ((f"medgen {own.name}", own) for own in app.registered_commands if not own.hidden)
    for group in app.registered_groups:
        inner = group.typer_instance
        if inner is not None:
            yield from ((f"medgen {inner.info.name} {own.name}", own) for own in inner.registered_commands)


def summary(command: CommandInfo) -> str:
    """What a command says that it does."""
    return _text(command.help or inspect.getdoc(command.callback) or "")


def parameters(callback: Any) -> Iterator[tuple[inspect.Parameter, Any, Any]]:
    """The parameters of a command: as its function has them, the kind of their values, and what typer knows of them."""
    hints = get_type_hints(callback, include_extras=True)
    for item in inspect.signature(callback).parameters.values():
        hint = item.annotation if get_origin(item.annotation) is not None else hints.get(item.name, item.annotation)
        kind, *extra = get_args(hint) if hasattr(hint, "__metadata__") else (hint,)
        if extra and not getattr(extra[0], "hidden", False):
            yield item, kind, extra[0]


def _help(group: typer.Typer) -> str:
    return str(group.info.help or "")


def _section(name: str, command: CommandInfo) -> list[str]:
    arguments = [_argument(*own) for own in parameters(command.callback) if not isinstance(own[2], OptionInfo)]
    example = (command.epilog or "").removeprefix("Example: ")
    usage = " ".join([name, *arguments, "[OPTIONS]"])
    said = summary(command)
    shown = ["```text", usage, *([example] if isinstance(example, str) and example else []), "```"]
    return [f"## {name}", "", said, "", *shown, "", *_parameters(command.callback)]


def _parameters(callback: Any) -> list[str]:
    rows = [_row(*own) for own in parameters(callback)]
    return ["| | what it is | default |", "|---|---|---|", *rows, ""] if rows else []


def _row(item: inspect.Parameter, kind: Any, known: Any) -> str:
    required = item.default in (inspect.Parameter.empty, ...)
    if isinstance(known, OptionInfo):
        # The first name of an annotated option stands where a default once did.
        names = [name for name in (known.default, *known.param_decls) if isinstance(name, str) and name[:1] == "-"]
        said = ", ".join(f"`{name}`" for name in names)
        if not _is_flag(kind):
            said += f" `{known.metavar or _kind(kind)}`{_limits(known)}"
    else:
        said = f"`{_argument(item, kind, known)}`"
    default = "required" if required else _default(item.default, kind)
    return f"| {said} | {_text(known.help or '').replace('|', chr(92) + '|')} | {default} |"


def _argument(item: inspect.Parameter, kind: Any, known: Any) -> str:
    name = known.metavar or item.name.upper()
    optional = item.default not in (inspect.Parameter.empty, ...) and not name.startswith("[")
    return f"[{name}]" if optional else str(name)


def _inner(kind: Any) -> Any:
    parts = [part for part in get_args(kind) if part is not NoneType]
    return _inner(parts[0]) if parts else kind


def _is_flag(kind: Any) -> bool:
    return _inner(kind) is bool


def _kind(kind: Any) -> str:
    inner = _inner(kind)
    return _KINDS.get(inner, getattr(inner, "__name__", "VALUE").upper())


def _limits(known: OptionInfo) -> str:
    bounds = [f"{word} {bound:g}" for word, bound in (("≥", known.min), ("≤", known.max)) if bound is not None]
    return f" ({', '.join(bounds)})" if bounds else ""


def _default(value: Any, kind: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else ""
    several = any(get_origin(part) is list for part in (kind, *get_args(kind)))
    if value is None or value == []:
        return "may be given several times" if several else ""
    return f"`{value}`"


def _text(said: str) -> str:
    return " ".join(inspect.cleandoc(said).split()).replace("``", "`")
