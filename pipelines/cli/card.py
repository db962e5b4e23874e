"""Commands about data cards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medgen.errors import ConfigError

from .carry_out import bar, group
from .options import FindWithMasks, command

if TYPE_CHECKING:
    from medgen.data.card_facts import Facts
    from medgen.data.layouts.detect import CohortConfig


card_app = group("card", "Data cards.", "Example: medgen card lint data_cards/simulated.md")


@command(card_app, "lint", "medgen card lint data_cards/simulated.md")
def card_lint(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Cards.")],
    found: FindWithMasks,
    cohort: Annotated[Path | None, typer.Option("--cohort", help="Cohort to compare the card with.")] = None,
) -> None:
    """Check cards against the schema, and against their cohort; exit 2 on any problem."""
    from medgen.data.card_facts import differences
    from medgen.data.cards import lint, read_card

    problems = [f"{path}: {problem}" for path in paths for problem in lint(path)]
    if cohort is not None and not problems:
        facts = _facts(cohort, found.cohort())
        for path in paths:
            problems += [f"{path}: {problem}" for problem in differences(read_card(path).fields, facts)]
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        raise typer.Exit(2)
    typer.echo(f"{len(paths)} card(s), no problem")


@command(card_app, "new", "medgen card new my-cohort.md")
def card_new(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="File to write; must not exist.")],
    found: FindWithMasks,
    cohort: Annotated[Path | None, typer.Option("--cohort", help="Cohort to measure the card's facts on.")] = None,
) -> None:
    """Write a card with every required field to fill in; with a cohort, what can be measured is filled in."""
    from medgen.data.cards import new_card
    from medgen.system.advice import quoted
    from medgen.system.files import write_text

    if path.exists():
        raise ConfigError(f"{path}: exists already; choose another name")
    settings = found.cohort()
    write_text(path, new_card(path.stem, None if cohort is None else _facts(cohort, settings).fields()))
    typer.echo(f"{path}: fill in the fields, then run: medgen card lint {quoted(path)}")


def _facts(cohort: Path, settings: CohortConfig) -> Facts:
    """What the scans of a cohort are, by reading all of them."""
    from medgen.data.card_facts import facts_of
    from medgen.data.layouts.detect import load_cohort

    manifest = load_cohort(cohort, settings)
    grids = []
    with bar("measuring") as progress:
        for case in manifest:
            grids.append(case.read_image().grid)
            progress(len(grids), len(manifest))
    return facts_of(manifest, grids)
