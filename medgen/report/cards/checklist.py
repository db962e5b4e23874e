"""Reporting checklists with the items that a run can answer filled in, and the others named."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files as package_files
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from medgen.config import Config, plain_yaml
from medgen.errors import ConfigError
from medgen.report.cards.facts.catalogue import FACTS, Fact, fact_of
from medgen.report.cards.judgements import JUDGEMENTS
from medgen.report.cards.records import Reader, RunRecords, well_formed

State = Literal["answered", "in part", "authors"]
# Name in a command → file in this package.
CHECKLISTS = {"claim": "claim.yaml", "tripod-ai": "tripod_ai.yaml", "metrics": "metrics.yaml"}
TO_WRITE = "TO BE WRITTEN BY THE AUTHORS"
_COLUMNS = ("item", "section", "title", "state", "text", "answered_from", "to_be_written")


class Condition(Config):
    """A question that decides which items of a score apply.

    Attributes:
        number: Its number.
        title: It, in short.
        known: The judgement in :data:`medgen.report.cards.judgements.JUDGEMENTS` that may answer it.
    """

    number: str
    title: str
    known: str | None = None


class Item(Config):
    """An item of a checklist.

    Attributes:
        number: As the checklist numbers it.
        section: Where it stands.
        title: It, in short.
        facts: Facts of a run that answer it, wholly or in part.
        remains: What the authors have to write all the same; null where the facts are all that is asked.
        applies: Which studies it is for (TRIPOD+AI: D, E); empty for all.
        weight: Of a score.
        conditions: Numbers of the conditions that must hold for it to count.
        known: The judgement that may answer it with yes or no.
    """

    number: Annotated[str, Field(pattern=r"^\d+[a-g]?$")]
    section: str
    title: str
    facts: tuple[str, ...]
    remains: str | None
    applies: str = ""
    weight: Annotated[float, Field(gt=0, lt=1)] | None = None
    conditions: tuple[str, ...] = ()
    known: str | None = None


class Checklist(Config):
    """A checklist.

    Attributes:
        name: Short name.
        title: Full name.
        citation: What to cite.
        items: In its order.
        conditions: Of a score.
    """

    name: str
    title: str
    citation: str
    items: tuple[Item, ...]
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True)
class Answered:
    """An item with what the run says to it.

    Attributes:
        item: The item.
        facts: What the run knows, each with the fields that it was made of.
        state: Whether that is all that is asked, a part of it, or nothing.
        judged: Yes or no where the run proves it; None else.
        applies: Whether the conditions of the item hold; None where that is not known.
    """

    item: Item
    facts: tuple[Fact, ...]
    state: State
    judged: bool | None = None
    applies: bool | None = True

    @property
    def text(self) -> str:
        """All facts in one paragraph."""
        return " ".join(known.text for known in self.facts)

    @property
    def sources(self) -> tuple[str, ...]:
        """The fields behind them, each once."""
        return tuple(dict.fromkeys(source for known in self.facts for source in known.sources))

    @property
    def to_write(self) -> str:
        """What is left for the authors; empty where nothing is."""
        if self.state == "answered":
            return ""
        return f"{TO_WRITE}: {self.item.remains or self.item.title}"


@dataclass(frozen=True)
class Score:
    """What is known of a weighted score.

    Attributes:
        yes: Weight of the items that the run answers with yes.
        no: Weight of those that it answers with no.
        unknown: Numbers of the items that only the authors can answer, those included that may not apply.
        unknown_weight: Their weight.
        left_out: Numbers of the items that do not apply.
    """

    yes: float
    no: float
    unknown: tuple[str, ...]
    unknown_weight: float
    left_out: tuple[str, ...]

    @property
    def lowest(self) -> float:
        """The score if the authors answered no to all that is not known."""
        return self.yes / (self.yes + self.no + self.unknown_weight)

    @property
    def highest(self) -> float:
        """The score if they answered yes to all of it."""
        return (self.yes + self.unknown_weight) / (self.yes + self.no + self.unknown_weight)

    @property
    def words(self) -> str:
        """What can be said of the score."""
        known = (
            f"Over the items that the run answers, the score is {100 * self.yes / (self.yes + self.no):.1f} % "
            f"(weight {self.yes:.4f} yes, {self.no:.4f} no)."
            if self.yes + self.no
            else "The run answers no item."
        )
        skipped = f" Items {', '.join(self.left_out)} do not apply." if self.left_out else ""
        return (
            f"{known} It is no score of the study: items {', '.join(self.unknown) or 'none'}, of weight "
            f"{self.unknown_weight:.4f}, are not known. With them the score lies between {100 * self.lowest:.1f} % "
            f"(all no) and {100 * self.highest:.1f} % (all yes).{skipped}"
        )


def load(name: str) -> Checklist:
    """A checklist of the package.

    Raises:
        ConfigError: If there is none of that name.
    """
    if name not in CHECKLISTS:
        raise ConfigError(f"checklist {name!r}: unknown; expected one of {', '.join(CHECKLISTS)}")
    content = package_files(__package__).joinpath(CHECKLISTS[name]).read_text(encoding="utf-8")
    try:
        found = Checklist.model_validate(plain_yaml(content, CHECKLISTS[name]))
    except ValidationError as error:
        raise ConfigError(f"{CHECKLISTS[name]}: {error.errors()[0]['msg']}; restore the file") from error
    strange = [own for item in found.items for own in item.facts if own not in FACTS]
    judged = [own.known for own in found.items] + [own.known for own in found.conditions]
    strange += [name for name in judged if name and name not in JUDGEMENTS]
    if strange:
        raise ConfigError(f"{CHECKLISTS[name]}: {strange[0]!r} is neither a fact nor a judgement; restore the file")
    return found


def answer(checklist: Checklist, records: RunRecords) -> tuple[Answered, ...]:
    """Every item with what the run says to it.

    Raises:
        DataError: If the records are not as medgen writes them.
    """
    return tuple(well_formed(records, lambda: _answers(checklist, records)))


def score(checklist: Checklist, answers: Sequence[Answered]) -> Score | None:
    """What is known of the score; None for a checklist without weights."""
    if not any(item.weight for item in checklist.items):
        return None
    counted = [own for own in answers if own.applies is not False]
    judged = [own for own in counted if own.applies and own.judged is not None]
    unknown = [own for own in counted if own not in judged]
    return Score(
        yes=_weight(own for own in judged if own.judged),
        no=_weight(own for own in judged if not own.judged),
        unknown=tuple(own.item.number for own in unknown),
        unknown_weight=_weight(unknown),
        left_out=tuple(own.item.number for own in answers if own.applies is False),
    )


def counts(answers: Sequence[Answered]) -> dict[str, int]:
    """How many items are answered, in part, and left to the authors."""
    return {state: sum(own.state == state for own in answers) for state in ("answered", "in part", "authors")}


def markdown(checklist: Checklist, records: RunRecords) -> str:
    """The filled-in checklist as a page.

    Raises:
        DataError: If the records are not as medgen writes them.
    """
    answers, run, holds = answer(checklist, records), records.out.name, conditions(checklist, records)
    told = counts(answers)
    parts = [
        f"# {checklist.name}: {run}",
        f"{checklist.title}. {checklist.citation}. Item titles are shortened; read the items themselves there.",
        f"{told['answered']} of {len(answers)} items are answered from the records of the run, {told['in part']} in "
        f"part; {told['authors']} are for the authors to write. Check every answer before you hand it in.",
    ]
    if (found := score(checklist, answers)) is not None:
        parts.append(found.words)
        parts.append("\n".join(_condition(own, holds.get(own.number)) for own in checklist.conditions))
    section = ""
    for own in answers:
        if own.item.section != section:
            section = own.item.section
            parts.append(f"## {section}")
        parts.append(_block(own))
    return "\n\n".join(parts) + "\n"


def table(answers: Sequence[Answered]) -> str:
    """The same as CSV, a row for each item."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(dict(zip(_COLUMNS, _row(own), strict=True)) for own in answers)
    return stream.getvalue()


def plain(checklist: Checklist, records: RunRecords) -> dict[str, Any]:
    """The same as plain data.

    Raises:
        DataError: If the records are not as medgen writes them.
    """
    answers, run = answer(checklist, records), records.out.name
    found = score(checklist, answers)
    return {
        "checklist": checklist.name,
        "citation": checklist.citation,
        "run": run,
        "counts": counts(answers),
        **({} if found is None else {"score": _plain_score(found), "conditions": conditions(checklist, records)}),
        "items": [
            {
                **dict(zip(_COLUMNS, _row(own), strict=True)),
                "answered_from": list(own.sources),
                **({"weight": own.item.weight, "judged": own.judged, "applies": own.applies} if found else {}),
            }
            for own in answers
        ],
    }


def conditions(checklist: Checklist, records: RunRecords) -> dict[str, bool | None]:
    """What the run says to the conditions of a score; None where only the authors can."""
    return {own.number: _judged(own.known, records) for own in checklist.conditions}


def _plain_score(found: Score) -> dict[str, Any]:
    return {"lowest": found.lowest, "highest": found.highest, "unknown": list(found.unknown), "words": found.words}


def _condition(own: Condition, holds: bool | None) -> str:
    said = "*TO BE ANSWERED BY THE AUTHORS*" if holds is None else "yes" if holds else "no"
    return f"- Condition {own.number}. {own.title}: {said}"


def _answers(checklist: Checklist, records: RunRecords) -> list[Answered]:
    holds = conditions(checklist, records)
    answers = []
    for item in checklist.items:
        facts = tuple(known for name in item.facts if (known := fact_of(records, name)) is not None)
        state: State = "authors" if not facts else "answered" if item.remains is None else "in part"
        needed = [holds[number] for number in item.conditions]
        applies = False if False in needed else None if None in needed else True
        answers.append(Answered(item, facts, state, _judged(item.known, records), applies))
    return answers


def _judged(name: str | None, records: RunRecords) -> bool | None:
    return None if name is None else JUDGEMENTS[name](Reader(records))


def _weight(answers: Iterable[Answered]) -> float:
    return float(sum(own.item.weight or 0.0 for own in answers))


def _row(own: Answered) -> tuple[str, ...]:
    item = own.item
    return item.number, item.section, item.title, own.state, own.text, "; ".join(own.sources), own.to_write


def _block(own: Answered) -> str:
    marks = [mark for mark in (own.item.applies, _verdict(own)) if mark]
    said = f" ({', '.join(marks)})" if marks else ""
    lines = [f"**{own.item.number}. {own.item.title}**{said}"]
    lines += [f"{known.text} [{_short(known.sources)}]" for known in own.facts]
    if own.to_write:
        lines.append(f"*{own.to_write}.*")
    return "\n\n".join(lines)


def _short(sources: Sequence[str]) -> str:
    """Sources by file, with as many fields as a reader needs to find them."""
    fields: dict[str, list[str]] = {}
    for source in sources:
        file, _, path = source.partition(": ")
        fields.setdefault(file, []).append(path)
    told = []
    for file, paths in fields.items():
        shown = ", ".join(paths[:3])
        told.append(f"`{file}`: {shown}{f' and {len(paths) - 3} more' if len(paths) > 3 else ''}")
    return "; ".join(told)


def _verdict(own: Answered) -> str:
    if own.item.weight is None:
        return ""
    if own.applies is False:
        return "does not apply"
    if own.judged is None or own.applies is None:
        return f"weight {own.item.weight:g}, not known"
    return f"weight {own.item.weight:g}, {'yes' if own.judged else 'no'}"
