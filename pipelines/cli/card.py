"""Commands about cards and checklists."""

from __future__ import annotations

import json
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medgen.errors import ConfigError

from .answer import Answer
from .carry_out import bar, group
from .options import FindWithMasks, command

if TYPE_CHECKING:
    from medgen.data.cards.facts import Facts
    from medgen.data.cases import Manifest
    from medgen.data.layouts.detect import CohortConfig


class ChecklistName(StrEnum):
    """Checklists of the package."""

    CLAIM = "claim"
    TRIPOD_AI = "tripod-ai"
    METRICS = "metrics"


card_app = group(
    "card", "Cards of data and models, checklists, intended use.", "Example: medgen card lint data_cards/simulated.md"
)
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")]
Out = Annotated[
    Path | None, typer.Option("--out", help="File to write; must not exist. Without it the text is printed.")
]


@command(card_app, "lint", "medgen card lint data_cards/simulated.md")
def card_lint(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Cards.")],
    found: FindWithMasks,
    cohort: Annotated[Path | None, typer.Option("--cohort", help="Cohort to compare data cards with.")] = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", help="Run to compare with; model and synthetic cards in a run's folder find their own."),
    ] = None,
) -> Answer:
    """Check cards against the schema, and against the cohort or the run that they describe; exit 2 on any problem."""
    from medgen.data.cards.form import UNFILLED, front_matter
    from medgen.report.cards.lint import differences, is_of_run, lint, run_of

    from ..preflight import check_data

    if cohort is not None:
        check_data(cohort)
    own = {path: lint(path) for path in paths}
    problems = [f"{path}: {problem}" for path, found_here in own.items() for problem in found_here]
    if cohort is not None and not problems:
        from medgen.data.cards.card import read_card
        from medgen.data.cards.facts import differences as from_cohort

        facts = _facts(_load(cohort, found.cohort()))
        for path in paths:
            problems += [f"{path}: {problem}" for problem in from_cohort(read_card(path).fields, facts)]
    compared = []
    # Nothing can be compared of fields that are not well formed; those that wait for their authors are.
    for path in (path for path, found_here in own.items() if all(UNFILLED in problem for problem in found_here)):
        of_run = run or (run_of(path) if is_of_run(front_matter(path)[0]) else None)
        if of_run is not None:
            compared.append(path)
            problems += [f"{path}: {problem}" for problem in differences(path, of_run)]
    said = f"; {len(compared)} compared with the run that made it" if compared else ""
    lines = () if problems else (f"{len(paths)} card(s), no problem{said}",)
    return Answer(
        {"cards": paths, "compared": compared, "problems": problems}, lines, tuple(problems), 2 if problems else 0
    )


@command(card_app, "new", "medgen card new my-cohort.md")
def card_new(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="File to write; must not exist.")],
    found: FindWithMasks,
    cohort: Annotated[Path | None, typer.Option("--cohort", help="Cohort to measure the card's facts on.")] = None,
) -> Answer:
    """Write a card with every required field to fill in; with a cohort, what can be measured is filled in."""
    from medgen.data.cards.card import new_card
    from medgen.system.advice import quoted
    from medgen.system.files import write_text

    from ..preflight import check_data

    _new(path)
    if cohort is not None:
        check_data(cohort)
    settings = found.cohort()
    write_text(path, new_card(path.stem, None if cohort is None else _facts(_load(cohort, settings)).fields()))
    line = f"{path}: fill in the fields, then run: medgen card lint {quoted(path)}"
    return Answer({"card": path, "lines": [line]}, (line,))


@command(card_app, "model", "medgen card model runs/anomaly --licence CC-BY-4.0 --contact us@example.org --out card.md")
def card_model(
    run: Run,
    licence: Annotated[str | None, typer.Option("--licence", help="Licence of the weights.")] = None,
    contact: Annotated[str | None, typer.Option("--contact", help="Whom to ask about the model.")] = None,
    out: Out = None,
) -> Answer:
    """Write the model card of a finished run; what only its authors know is left to fill in or given here."""
    from medgen.data.cards.form import TODO
    from medgen.report.cards.model_card import fields_of, markdown
    from medgen.report.cards.records import read_records

    records = read_records(run)
    fields = fields_of(records, licence or TODO, contact or TODO)
    return _text(markdown(records, fields), out, {"card": fields.model_dump(mode="json")})


@command(card_app, "intended-use", "medgen card intended-use runs/anomaly --out intended-use.md")
def card_intended_use(run: Run, out: Out = None) -> Answer:
    """Say what a run's model is for, for whom, on whom it was measured, and what it is not for."""
    from dataclasses import asdict

    from medgen.report.cards.intended_use import markdown, sections
    from medgen.report.cards.records import read_records

    records = read_records(run)
    return _text(markdown(records), out, {"sections": [asdict(section) for section in sections(records)]})


@command(card_app, "checklist", "medgen card checklist claim runs/anomaly --out claim.md")
def card_checklist(
    name: Annotated[ChecklistName, typer.Argument(help="Checklist: claim (CLAIM 2024), tripod-ai or metrics.")],
    run: Run,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="File to write: .md, .csv or .json; must not exist. Without it the text is printed."
        ),
    ] = None,
) -> Answer:
    """Fill in a reporting checklist from the records of a run, and name what its authors have to write."""
    from medgen.report.cards.checklist import answer, load, markdown, plain, table
    from medgen.report.cards.records import read_records

    kind = ".md" if out is None else out.suffix.lower()
    if kind not in (".md", ".csv", ".json"):
        raise ConfigError(f"{out}: ends with {kind or 'nothing'}; expected .md, .csv or .json")
    records = read_records(run)
    checklist = load(name.value)
    data = plain(checklist, records)
    if kind == ".md":
        text = markdown(checklist, records)
    elif kind == ".csv":
        text = table(answer(checklist, records))
    else:
        text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    return _text(text, out, data)


@command(
    card_app,
    "croissant",
    "medgen card croissant card.md --cohort scans --url https://example.org/scans --creator 'Our institute' "
    "--published 2026-01-31 --out croissant.json",
)
def card_croissant(
    card: Annotated[Path, typer.Argument(metavar="CARD", help="Data card of the cohort, without problems.")],
    found: FindWithMasks,
    cohort: Annotated[Path, typer.Option("--cohort", help="The cohort: its files are listed with their hashes.")],
    url: Annotated[str, typer.Option("--url", help="Address of the data set.")],
    creator: Annotated[str, typer.Option("--creator", help="Who has made it.")],
    published: Annotated[str, typer.Option("--published", metavar="YYYY-MM-DD", help="Day of publication.")],
    out: Out = None,
) -> Answer:
    """Write the Croissant 1.1 metadata of a cohort, with its Responsible AI fields, from its card and its files."""
    from ..preflight import check_data

    check_data(cohort)

    from medgen.data.cards.card import read_card
    from medgen.data.cards.croissant import croissant
    from medgen.data.cards.facts import differences

    described = read_card(card)
    manifest = _load(cohort, found.cohort())
    if problems := differences(described.fields, _facts(manifest)):
        raise ConfigError(f"{card}: {problems[0]}; correct the card, see medgen card lint --cohort")
    data = croissant(described, manifest, url=url, creator=creator, published=published)
    answer = _text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", out, {"croissant": data})
    measured = described.fields.measured
    if measured is None:
        return answer
    from medgen.synthesis.privacy.results import SHARE

    if measured.stamp == SHARE:
        return answer
    return replace(answer, problems=(f"{card}: its audit says: {measured.stamp}; do not publish these scans",))


def _text(text: str, out: Path | None, data: dict[str, object]) -> Answer:
    """The text itself, or the file that it was written to."""
    from medgen.system.files import write_text

    if out is None:
        return Answer(data, (text.rstrip("\n"),))
    _new(out)
    write_text(out, text)
    return Answer({"out": out, **data}, (f"{out}: written",))


def _new(path: Path) -> None:
    from medgen.system.files import exists

    from ..preflight import check_utf8

    check_utf8(path)
    if exists(path):
        raise ConfigError(f"{path}: exists already; choose another name")


def _load(cohort: Path, settings: CohortConfig) -> Manifest:
    from medgen.data.layouts.detect import load_cohort

    return load_cohort(cohort, settings)


def _facts(manifest: Manifest) -> Facts:
    """What the scans of a cohort are, by reading all of them."""
    from medgen.data.cards.facts import facts_of

    grids = []
    with bar("measuring") as progress:
        for case in manifest:
            grids.append(case.read_image().grid)
            progress(len(grids), len(manifest))
    return facts_of(manifest, grids)
