"""What differs between a card and the records that it was made of, named leaf by leaf and line by line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from medgen.data.cards.form import sections_of
from medgen.report.cards.words import number


def unlike(stated: Any, known: Any, name: str = "") -> Iterator[str]:
    """The leaves that differ between what a card states and what a run has.

    >>> list(unlike({"n": 3, "arm": {"dice": 0.5}}, {"n": 3, "arm": {"dice": 0.75, "nsd": 1}}))
    ['arm.dice: the card says 0.5, the run has 0.75', 'arm.nsd: not in the card, the run has 1']
    """
    if isinstance(stated, Mapping) and isinstance(known, Mapping):
        for key in dict.fromkeys((*stated, *known)):
            inner = f"{name}.{key}" if name else str(key)
            if key not in stated:
                yield f"{inner}: not in the card, the run has {_words(known[key])}"
            elif key not in known:
                yield f"{inner}: the card says {_words(stated[key])}, the run has none"
            else:
                yield from unlike(stated[key], known[key], inner)
    elif stated != known:
        yield f"{name}: the card says {_words(stated)}, the run has {_words(known)}"


def missing_lines(stated: str, known: Mapping[str, list[str]]) -> Iterator[str]:
    r"""The lines that a run writes under a heading and a card does not have there; what authors add is theirs.

    >>> list(missing_lines("## Use\n\n- Twelve scans.\n- Ask us.", {"Use": ["- Ten scans."]}))
    ["section '## Use': the run says '- Ten scans.', the card does not"]
    """
    sections = sections_of(stated)
    for heading, lines in known.items():
        there = {line.strip() for line in sections.get(heading, "").splitlines()}
        for line in lines:
            for part in line.splitlines():
                if part.strip() and part.strip() not in there:
                    yield f"section '## {heading}': the run says {part.strip()!r}, the card does not"


def _words(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value)) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(item)}" for key, item in value.items()) or "none"
    return "none" if value is None else number(value)
