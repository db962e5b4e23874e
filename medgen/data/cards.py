"""Data cards: one Markdown file per data set, with YAML front matter that a schema checks.

The sections follow Gebru et al., "Datasheets for Datasets", CACM 2021. Cards describe data and never hold any: no
paths of a machine, no patient names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator

from medgen import __version__
from medgen.config import Config, plain_yaml
from medgen.errors import ConfigError, DataError
from medgen.system import files
from medgen.system.files import read_text

SECTIONS = ("Composition", "Collection", "Use", "Limits")
NOTICE = "For research. Not for clinical use."
# Text of a template that still has to be replaced.
TODO = "TO BE FILLED IN"
# Cards are written and read by people.
_BYTES = 1 << 20

Text = Annotated[str, Field(min_length=2)]
Pair = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
Counts = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
_ABSOLUTE = re.compile(
    r"(?<![\w.:/~])(?:/(?:home|Users|mnt|media|data|work|tmp|root|scratch|srv)/|[A-Za-z]:\\|~/|file://)\S*"
)


class Provenance(Config):
    """How generated data came about; empty for collected data.

    Attributes:
        generator: Program and version, or backend, that made the data.
        artifact_sha256: Hash of the trained model that made it; none for simulation.
        seeds: Seeds of the random streams.
        parents_sha256: Digest of the manifest the model was trained on.
        manifest_sha256: Digest of this data set's own manifest.
    """

    generator: str | None = None
    artifact_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    seeds: tuple[int, ...] = ()
    parents_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    manifest_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


class CardFields(Config):
    """Front matter of a data card.

    Attributes:
        name: Name of the data set.
        version: Version of the data set, or the date it was obtained.
        kind: Whether the scans show people or were generated.
        description: One or two sentences.
        modality: Such as ``"MR T1-weighted"``.
        n_cases: Number of scans.
        n_subjects: Number of people, or of simulated subjects.
        spacing: Voxel size (mm) along i, j, k; the median if it varies.
        spacing_range: Lowest and highest voxel size (mm) along i, j, k, where it was measured.
        shape_range: Fewest and most voxels along i, j, k, where they were counted.
        orientation: Directions of the array axes, such as ``RAS``, most frequent first.
        sex: Number of people by sex, of those of whom it is stated.
        age: Lowest and highest age in years, of those of whom it is stated.
        labels: Name per label value, without background.
        licence: Name of the licence, SPDX where there is one.
        source: Where it comes from, in words or as a public address.
        citation: What to cite.
        intended_use: What it is good for.
        not_for: What it must not be used for.
        known_biases: Each known bias; at least one.
        preprocessing: What was done to the scans before they were listed here.
        privacy: What could identify a person, and what was done about it.
        provenance: How generated data came about.
    """

    name: Text
    version: Annotated[str, Field(min_length=1)]
    kind: Literal["collected", "simulated", "synthetic", "implanted"]
    description: Text
    modality: Text
    n_cases: Annotated[int, Field(ge=1)]
    n_subjects: Annotated[int, Field(ge=1)]
    spacing: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
    spacing_range: tuple[Pair, Pair, Pair] | None = None
    shape_range: tuple[Counts, Counts, Counts] | None = None
    orientation: tuple[str, ...] = ()
    sex: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    age: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(lt=90)]] | None = None
    labels: dict[int, str] = Field(default_factory=dict)
    licence: Text
    source: Text
    citation: Text
    intended_use: Text
    not_for: Text
    known_biases: Annotated[tuple[Text, ...], Field(min_length=1)]
    preprocessing: Text
    privacy: Text
    provenance: Provenance = Provenance()

    @field_validator("version", mode="before")
    @classmethod
    def _version_is_text(cls, value: Any) -> Any:
        # YAML reads 1.0 as a number and 2026-01-31 as a date.
        return value if isinstance(value, str) or value is None else str(value)


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
    front, body = _split(path)
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
        front, body = _split(Path(path))
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
    return _markdown(fields.model_dump(mode="json", exclude_defaults=False), fields.name, sections)


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


def synthetic_card(
    name: str,
    *,
    kind: Literal["simulated", "synthetic", "implanted"],
    n_cases: int,
    n_subjects: int,
    spacing: Sequence[float],
    labels: Mapping[int, str],
    seeds: Sequence[int],
    generator: str,
    description: str,
    modality: str,
    licence: str,
    known_biases: Sequence[str],
    privacy: str,
    intended_use: str,
    not_for: str,
    sections: Mapping[str, str],
    artifact_sha256: str | None = None,
    parents_sha256: str | None = None,
    manifest_sha256: str | None = None,
) -> str:
    """The card of a generated cohort; complete, so that :func:`lint` finds nothing.

    Raises:
        pydantic.ValidationError: If a field is out of range.
    """
    i, j, k = (round(float(step), 4) for step in spacing)
    fields = CardFields(
        name=name,
        version="1",
        kind=kind,
        description=description,
        modality=modality,
        n_cases=n_cases,
        n_subjects=n_subjects,
        spacing=(i, j, k),
        labels=dict(labels),
        licence=licence,
        source=f"generated by medgen {__version__}: {generator}",
        citation=f"medgen {__version__}, {generator}",
        intended_use=intended_use,
        not_for=f"{not_for.rstrip('. ')}. Not for clinical use.",
        known_biases=tuple(known_biases),
        preprocessing="none after generation",
        privacy=privacy,
        provenance=Provenance(
            generator=f"medgen {__version__}, {generator}",
            artifact_sha256=artifact_sha256,
            seeds=tuple(seeds),
            parents_sha256=parents_sha256,
            manifest_sha256=manifest_sha256,
        ),
    )
    return render(fields, sections)


def _markdown(front: Mapping[str, Any], title: str, sections: Mapping[str, str]) -> str:
    head = yaml.safe_dump(files.plain(front), sort_keys=False, allow_unicode=True, width=110)
    # JSON keys are strings; label values are numbers in YAML.
    head = re.sub(r"^  '(\d+)':", r"  \1:", head, flags=re.MULTILINE)
    body = "\n".join(f"## {name}\n\n{sections[name].strip()}\n" for name in SECTIONS)
    return f"---\n{head}---\n\n# {title}\n\n{NOTICE}\n\n{body}"


def _split(path: Path) -> tuple[dict[str, Any], str]:
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


def _problems(front: Mapping[str, Any], body: str) -> list[str]:
    problems: list[str] = []
    try:
        fields = CardFields.model_validate(front)
    except ValidationError as error:
        problems += [_describe(dict(item)) for item in error.errors(include_url=False)]
    else:
        problems += _contradictions(fields)
    unfilled = [key for key in front if TODO in str(front[key])]
    # That text is no number follows from this.
    problems = [text for text in problems if not text.startswith(tuple(f"field {key}:" for key in unfilled))]
    problems += [f"field {key}: still holds template text; fill it in" for key in unfilled]
    found = _sections(body)
    for name in SECTIONS:
        if name not in found:
            problems.append(f"section '## {name}' is missing; add it")
        elif not found[name]:
            problems.append(f"section '## {name}' is empty; fill it in")
        elif TODO in found[name]:
            problems.append(f"section '## {name}' still holds template text; fill it in")
    for path in _ABSOLUTE.findall(f"{yaml.safe_dump(dict(front), allow_unicode=True, width=10**6)}\n{body}"):
        problems.append(f"absolute path {path!r}: tells where a machine keeps its files; leave it out")
    return problems


def _contradictions(fields: CardFields) -> list[str]:
    problems = []
    if fields.n_subjects > fields.n_cases:
        problems.append(
            f"n_subjects is {fields.n_subjects}, n_cases {fields.n_cases}; expected at least a case per subject"
        )
    if any(value < 1 for value in fields.labels):
        problems.append("labels: expected values from 1 (0 is background)")
    if fields.kind != "collected" and not (fields.provenance.generator and fields.provenance.seeds):
        problems.append(f"provenance: {fields.kind} data needs generator and seeds")
    if fields.kind == "synthetic" and not (fields.provenance.artifact_sha256 and fields.provenance.parents_sha256):
        problems.append("provenance: synthetic data needs artifact_sha256 and parents_sha256")
    return problems


def _describe(item: dict[str, Any]) -> str:
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "missing":
        return f"field {key} is missing; add it"
    if item["type"] == "extra_forbidden":
        return f"field {key} is unknown; remove it"
    return f"field {key}: {item['msg']} (found {str(item.get('input'))[:60]!r})"


def _sections(body: str) -> dict[str, str]:
    parts = re.split(r"^##[ \t]+(.+?)[ \t]*$", body, flags=re.MULTILINE)
    return {title: text.strip() for title, text in zip(parts[1::2], parts[2::2], strict=True)}
