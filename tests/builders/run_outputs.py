"""The files of a finished run beside what its stages say of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medgen.data.cards.form import UNFILLED
from medgen.pipelines.stages import Pipeline
from medgen.report.cards.lint import differences, lint
from medgen.runs.outputs import output_files


def undeclared(out: Path, stages: Pipeline[Any]) -> list[str]:
    """Files below the folder of a run that no stage of its list names."""
    names = [output.name for output in stages.outputs()]
    folders = tuple(name for name in names if name.endswith("/"))
    return [file for file in output_files(out) if file not in names and not file.startswith(folders)]


def unlike_the_run(out: Path, card: str = "model_card.md") -> list[str]:
    """What is wrong with a card that a run has just written, beside what only its authors know."""
    problems = [problem for problem in lint(out / card) if UNFILLED not in problem]
    return [*problems, *differences(out / card, out)]
