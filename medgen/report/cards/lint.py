"""Whether a card says what its run has: fields, numbers, hashes and the sentences that are made of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from medgen.data.cards import card as data_card
from medgen.data.cards.fields import CardFields
from medgen.data.cards.form import describe, form_problems, front_matter
from medgen.errors import DataError
from medgen.report.cards import model_card
from medgen.report.cards.compare import missing_lines, unlike
from medgen.report.cards.model_fields import AUTHORS_FIELDS, ModelCardFields
from medgen.report.cards.records import METRICS, RunRecords, read_records
from medgen.runs.outputs import RECORD
from medgen.system import files


def lint(path: str | Path) -> list[str]:
    """Every problem that a card of any kind has by itself, one line each; empty if it is complete."""
    try:
        front, body = front_matter(path)
    except DataError as error:
        return [str(error).removeprefix(f"{path}: ")]
    return _model_problems(front, body) if is_model_card(front) else data_card.lint(path)


def is_model_card(front: Mapping[str, Any]) -> bool:
    """Whether front matter is that of a model card."""
    return "card" in front


def is_of_run(front: Mapping[str, Any]) -> bool:
    """Whether front matter is of a card that a run writes: a model's or a synthetic cohort's."""
    return is_model_card(front) or front.get("kind") == "synthetic"


def run_of(card: str | Path) -> Path | None:
    """The finished run that a card lies in: the nearest folder above with its records; None if there is none."""
    for folder in Path(card).absolute().parents:
        if (folder / RECORD).is_file() and (folder / METRICS).is_file():
            return folder
    return None


def differences(card: str | Path, run: str | Path) -> list[str]:
    """How a card differs from its run, one sentence each: the field, what the card says, what the run has.

    Args:
        card: A model card, or the card of a synthetic cohort; free of problems of its own.
        run: Folder of the finished run.

    Raises:
        DataError: If the card is of neither kind, or the run or a record of it cannot be read.
        AuditError: If a record of the run was changed since.
    """
    front, body = front_matter(card)
    records = read_records(run)
    try:
        if is_model_card(front):
            return _model_differences(ModelCardFields.model_validate(front), body, records)
        fields = CardFields.model_validate(front)
    except ValidationError:
        # Told by lint; nothing can be compared.
        return []
    if fields.kind != "synthetic":
        raise DataError(
            f"{card}: describes {fields.kind} data; expected a model card or the card of a synthetic cohort, which a "
            "run writes; compare this one with its scans, by --cohort"
        )
    # With all that makes synthetic scans behind it, which no other card needs.
    from medgen.report.cards import synthetic_card

    return synthetic_card.differences(fields, body, records)


def _model_problems(front: Mapping[str, Any], body: str) -> list[str]:
    problems = []
    try:
        ModelCardFields.model_validate(front)
    except ValidationError as error:
        problems = [describe(dict(item)) for item in error.errors(include_url=False)]
    return problems + form_problems(front, body, model_card.SECTIONS)


def _model_differences(stated: ModelCardFields, body: str, records: RunRecords) -> list[str]:
    known = model_card.fields_of(records)
    if stated.run_id != known.run_id and stated.artifacts_sha256 != known.artifacts_sha256:
        return [
            f"is the card of another run, {stated.run_id}; expected that of {records.out} ({known.run_id}); compare it "
            "with its own run, by --run"
        ]
    stated_leaves, known_leaves = (
        {key: value for key, value in files.plain(fields.model_dump(mode="json")).items() if key not in AUTHORS_FIELDS}
        for fields in (stated, known)
    )
    return [*unlike(stated_leaves, known_leaves), *missing_lines(body, model_card.body(records, known))]
