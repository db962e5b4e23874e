"""Data cards: one Markdown file per data set, with YAML front matter that a schema checks.

The sections follow Gebru et al., "Datasheets for Datasets", CACM 2021. Cards describe data and never hold any: no
paths of a machine, no patient names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from medgen.data.cards.fields import CardFields, contradictions, generated_fields
from medgen.data.cards.form import NOTICE, TODO, describe, form_problems, front_matter
from medgen.errors import DataError
from medgen.system import files

SECTIONS = ("Composition", "Collection", "Use", "Limits")


@dataclass(frozen=True)
class Card:
    """A data card.

    Attributes:
        fields: Checked front matter.
        body: Markdown below it.
    """

    fields: CardFields
    body: str


def read_card(path: str | Path) -> Card:
    """Read a card and check its front matter and sections.

    Raises:
        DataError: One line with the first problem and the number of others; :func:`lint` lists all.
    """
    path = Path(path)
    front, body = front_matter(path)
    problems = _problems(front, body)
    if problems:
        more = f" (and {len(problems) - 1} more; see medgen card lint)" if len(problems) > 1 else ""
        raise DataError(f"{path}: {problems[0]}{more}")
    return Card(CardFields.model_validate(front), body)


def lint(path: str | Path) -> list[str]:
    """Every problem of a card, one line each; empty if it is complete.

    Checked: front matter against :class:`CardFields`, no template text left, counts that agree, every section present
    and not empty, generated data with provenance, no absolute path.
    """
    try:
        front, body = front_matter(path)
    except DataError as error:
        return [str(error).removeprefix(f"{path}: ")]
    return _problems(front, body)


def render(fields: CardFields, sections: Mapping[str, str]) -> str:
    """A card as Markdown text.

    Raises:
        ValueError: If a section is missing.
    """
    missing = [name for name in SECTIONS if not sections.get(name, "").strip()]
    if missing:
        raise ValueError(f"expected text for every section of a card, missing: {', '.join(missing)}")
    front = fields.model_dump(mode="json")
    if fields.measured is None:
        # Only synthetic cohorts have it.
        del front["measured"]
    return _markdown(front, fields.name, sections)


def new_card(name: str, known: Mapping[str, Any] | None = None) -> str:
    """A card to fill in: every field and section is there; :func:`lint` names those that still hold template text.

    Args:
        name: Name of the data set.
        known: Fields that were measured or stated; nothing is made up for the others.
    """
    given = dict(known or {})
    text = dict.fromkeys(
        ("licence", "source", "citation", "intended_use", "not_for", "preprocessing", "privacy", "description"), TODO
    )
    front: dict[str, Any] = {
        "name": name,
        "version": "1",
        "kind": "collected",
        "description": text["description"],
        **{key: given.get(key, TODO) for key in ("modality", "n_cases", "n_subjects", "spacing")},
        **{key: given[key] for key in ("spacing_range", "shape_range", "orientation", "sex", "age") if key in given},
        "labels": dict(given.get("labels", {})),
        **{key: value for key, value in text.items() if key != "description"},
        "known_biases": [TODO],
        "provenance": {},
    }
    hints = {
        "Composition": "What one case is, how many per group, what is missing.",
        "Collection": "Who scanned whom, when, where, on what; who drew the labels and how well they agree.",
        "Use": "What it has been used for; how it must be split.",
        "Limits": "Where results will not carry over.",
    }
    return _markdown(front, name, {section: f"{TODO}: {hint}" for section, hint in hints.items()})


def synthetic_card(name: str, *, sections: Mapping[str, str], **fields: Any) -> str:
    """The card of a generated cohort; complete, so that :func:`lint` finds nothing.

    Args:
        name: Name of the cohort.
        sections: Text of every section.
        **fields: As :func:`generated_fields` takes them.

    Raises:
        pydantic.ValidationError: If a field is out of range.
    """
    return render(generated_fields(name, **fields), sections)


def _markdown(front: Mapping[str, Any], title: str, sections: Mapping[str, str]) -> str:
    head = yaml.safe_dump(files.plain(front), sort_keys=False, allow_unicode=True, width=110)
    # JSON keys are strings; label values are numbers in YAML.
    head = re.sub(r"^  '(\d+)':", r"  \1:", head, flags=re.MULTILINE)
    body = "\n".join(f"## {name}\n\n{sections[name].strip()}\n" for name in SECTIONS)
    return f"---\n{head}---\n\n# {title}\n\n{NOTICE}\n\n{body}"


def _problems(front: Mapping[str, Any], body: str) -> list[str]:
    problems: list[str] = []
    try:
        fields = CardFields.model_validate(front)
    except ValidationError as error:
        problems += [describe(dict(item)) for item in error.errors(include_url=False)]
    else:
        problems += contradictions(fields)
    unfilled = [key for key in front if TODO in str(front[key])]
    # That text is no number follows from this.
    problems = [text for text in problems if not text.startswith(tuple(f"field {key}:" for key in unfilled))]
    return problems + form_problems(front, body, SECTIONS)
