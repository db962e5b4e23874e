"""Commands about data cards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medgen.errors import ConfigError

from .answer import Answer
from .carry_out import bar, group
from .options import FindWithMasks, command

if TYPE_CHECKING:
    from medgen.data.cards.facts import Facts
    from medgen.data.layouts.detect import CohortConfig


card_app = group("card", "Data cards.", "Example: medgen card lint data_cards/simulated.md")


@command(card_app, "lint", "medgen card lint data_cards/simulated.md")
def card_lint(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Cards.")],
    found: FindWithMasks,
    cohort: Annotated[Path | None, typer.Option("--cohort", help="Cohort to compare the card with.")] = None,
) -> Answer:
    """Check cards against the schema, and against their cohort; exit 2 on any problem."""
    from medgen.data.cards.card import lint, read_card

    from ..preflight import check_data

    if cohort is not None:
        check_data(cohort)
    problems = [f"{path}: {problem}" for path in paths for problem in lint(path)]
    if cohort is not None and not problems:
        from medgen.data.cards.facts import differences

        facts = _facts(cohort, found.cohort())
        for path in paths:
            problems += [f"{path}: {problem}" for problem in differences(read_card(path).fields, facts)]
    lines = () if problems else (f"{len(paths)} card(s), no problem",)
    return Answer({"cards": paths, "problems": problems}, lines, tuple(problems), 2 if problems else 0)


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

    from ..preflight import check_data, check_utf8

    check_utf8(path)
    if path.exists():
        raise ConfigError(f"{path}: exists already; choose another name")
    if cohort is not None:
        check_data(cohort)
    settings = found.cohort()
    write_text(path, new_card(path.stem, None if cohort is None else _facts(cohort, settings).fields()))
    line = f"{path}: fill in the fields, then run: medgen card lint {quoted(path)}"
    return Answer({"card": path, "lines": [line]}, (line,))


def _facts(cohort: Path, settings: CohortConfig) -> Facts:
    """What the scans of a cohort are, by reading all of them."""
    from medgen.data.cards.facts import facts_of
    from medgen.data.layouts.detect import load_cohort

    manifest = load_cohort(cohort, settings)
    grids = []
    with bar("measuring") as progress:
        for case in manifest:
            grids.append(case.read_image().grid)
            progress(len(grids), len(manifest))
    return facts_of(manifest, grids)
