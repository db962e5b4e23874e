"""A methods section in the making: paragraphs under headings, and numbered references to what was really used."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medgen.report.methods import references
from medgen.system.files import write_text

NOTE = (
    "Written by medgen from the settings and results of this run, to be shortened and checked by its authors. "
    "All settings are in `config.yaml`, all numbers in `metrics.json`."
)


class MethodsText:
    r"""Paragraphs, and the references they cite, numbered in the order of the text.

    >>> text = MethodsText("A study")
    >>> text.add("Models", f"A VAE was trained{text.cite('Kingma and Welling 2014')}.", "It was small.")
    >>> print("\n".join(text.markdown.splitlines()[4:]))
    ## Models
    <BLANKLINE>
    A VAE was trained [1]. It was small.
    <BLANKLINE>
    ## References
    <BLANKLINE>
    1. Kingma and Welling 2014

    Args:
        title: Above everything.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._sections: dict[str, list[str]] = {}
        self._references: list[str] = []

    def add(self, heading: str, *sentences: str) -> None:
        """Add a paragraph of whole sentences; a heading that was there before goes on, empty sentences are left out."""
        if paragraph := " ".join(filter(None, sentences)):
            self._sections.setdefault(heading, []).append(paragraph)

    def cite(self, *sources: str) -> str:
        """The numbers of references as they follow a word, `` [1, 2]``; nothing where there are none."""
        for source in sources:
            if source not in self._references:
                self._references.append(source)
        numbers = sorted(self._references.index(source) + 1 for source in set(sources))
        return f" [{', '.join(map(str, numbers))}]" if numbers else ""

    @property
    def markdown(self) -> str:
        """The whole text."""
        parts = [f"# {self._title}", NOTE]
        for heading, paragraphs in self._sections.items():
            parts += [f"## {heading}", *paragraphs]
        listed = [f"{number}. {source}" for number, source in enumerate(self._references, start=1)]
        parts += ["## References", "\n".join(listed)] if listed else []
        return "\n\n".join(parts) + "\n"

    def write(self, path: Path) -> None:
        """Write the text.

        Raises:
            DataError: If it cannot be written.
        """
        write_text(path, self.markdown)


def software(text: MethodsText, versions: Mapping[str, str], commit: str, changed: bool | None, seed: int) -> None:
    """What computed, in which versions, and the seed that makes it again.

    Args:
        text: Is added to.
        versions: As :func:`medgen.runs.environment.versions`.
        commit: Source that medgen ran from; ``unknown`` in an installation.
        changed: Whether that source was changed since.
        seed: Seed of the run.
    """
    others = [f"{name} {version}" for name, version in versions.items() if name != "medgen" and version != "missing"]
    state = " with changes that are not in it" if changed else ""
    source = "" if commit == "unknown" else f" (commit {commit[:12]}{state})"
    text.add(
        "Software",
        f"All steps were done with medgen {versions['medgen']}{source}{text.cite(references.MEDGEN)} on "
        f"{', '.join(others)}.",
        f"Every random stream is derived from the seed {seed}.",
    )


def count(number: int, what: str, several: str = "") -> str:
    """A number with its noun.

    >>> count(1, "scan"), count(20, "subject"), count(2, "copy", "copies")
    ('1 scan', '20 subjects', '2 copies')
    """
    return f"{number} {what}" if number == 1 else f"{number} {several or f'{what}s'}"


def listed(items: Sequence[str]) -> str:
    """Items in words.

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def sources_in(*documented: Any) -> tuple[str, ...]:
    """The works that docstrings name after ``Source:``, each once.

    >>> from medgen.anomaly.scores.catalogue import get
    >>> [source[:13] for source in sources_in(get("restoration").function)]
    ['You et al., "', 'Chen et al., ']
    """
    found = []
    for item in documented:
        said = inspect.getdoc(item) or ""
        for paragraph in re.findall(r"^Source: (.*?)(?:\n\n|\Z)", said, re.DOTALL | re.MULTILINE):
            found += [_ended(part) for part in " ".join(paragraph.split()).split("; ")]
    return tuple(dict.fromkeys(found))


def summary(documented: Any) -> str:
    """The first sentence of a docstring, without marks of code and full stop."""
    said = " ".join((inspect.getdoc(documented) or "").partition("\n\n")[0].split())
    said = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", said).replace("``", "`")
    return re.split(r"(?<=[^.])\.(?:\s|$)", said)[0]


def module_of(kind: type[Any]) -> Any:
    """The module that a class is defined in, whose docstring says what the method is."""
    return sys.modules[kind.__module__]


def _ended(source: str) -> str:
    return source if source.endswith(".") else f"{source}."
