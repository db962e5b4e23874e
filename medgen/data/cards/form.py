"""The form of any card: YAML front matter, Markdown sections, no template text left, no path of a machine."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from medgen.config import plain_yaml
from medgen.errors import ConfigError, DataError
from medgen.system.files import read_text

NOTICE = "For research. Not for clinical use."
# Text of a template that still has to be replaced.
TODO = "TO BE FILLED IN"
# How a problem ends where it is still there.
UNFILLED = "still holds template text; fill it in"
# Cards are written and read by people.
_BYTES = 1 << 20

_ABSOLUTE = re.compile(
    r"(?<![\w.:/~])(?:/(?:home|Users|mnt|media|data|work|tmp|root|scratch|srv)/|[A-Za-z]:\\|~/|file://)\S*"
)


def front_matter(path: str | Path) -> tuple[dict[str, Any], str]:
    """The front matter of a card of any kind, and what stands below it; nothing of it is checked.

    Raises:
        DataError: If there is no such file, or no front matter that can be read.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such card; check the path")
    text = read_text(path, _BYTES).removeprefix("\ufeff")
    match = re.match(r"---\r?\n(.*?\n)---\r?\n?(.*)", text, flags=re.DOTALL)
    if match is None:
        raise DataError(f"{path}: no front matter; expected YAML between two lines of --- at the top")
    try:
        front = plain_yaml(match[1], "front matter")
    except ConfigError as error:
        raise DataError(f"{path}: {error}; correct it") from None
    if not isinstance(front, dict):
        raise DataError(f"{path}: the front matter is a {type(front).__name__}; expected names with values")
    return front, match[2]


def form_problems(front: Mapping[str, Any], body: str, sections: Sequence[str]) -> list[str]:
    """What is wrong with any card, whatever its fields: template text, sections, paths of a machine.

    Args:
        front: The front matter as read.
        body: What stands below it.
        sections: Headings that must be there, with something below each.
    """
    unfilled = [key for key in front if TODO in str(front[key])]
    problems = [f"field {key}: {UNFILLED}" for key in unfilled]
    found = sections_of(body)
    for name in sections:
        if name not in found:
            problems.append(f"section '## {name}' is missing; add it")
        elif not found[name]:
            problems.append(f"section '## {name}' is empty; fill it in")
        elif TODO in found[name]:
            problems.append(f"section '## {name}' {UNFILLED}")
    for path in _ABSOLUTE.findall(f"{yaml.safe_dump(dict(front), allow_unicode=True, width=10**6)}\n{body}"):
        problems.append(f"absolute path {path!r}: tells where a machine keeps its files; leave it out")
    return problems


def describe(item: dict[str, Any]) -> str:
    """One problem of a field, as pydantic reports it, in a line."""
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "missing":
        return f"field {key} is missing; add it"
    if item["type"] == "extra_forbidden":
        return f"field {key} is unknown; remove it"
    return f"field {key}: {item['msg']} (found {str(item.get('input'))[:60]!r})"


def sections_of(body: str) -> dict[str, str]:
    """What stands below each heading of the second level."""
    parts = re.split(r"^##[ \t]+(.+?)[ \t]*$", body, flags=re.MULTILINE)
    return {title: text.strip() for title, text in zip(parts[1::2], parts[2::2], strict=True)}
