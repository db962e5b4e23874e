"""Cohorts below the folder of the runs: prepared ones forget a case, too; of others it is said that they hold it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medgen.audit.forgetting.content import named_in, take_out
from medgen.audit.forgetting.names import Names
from medgen.runs.outputs import RECORD

# What medgen data prepare writes beside the scans.
_PREPARED, _RECIPE = "prepared.csv", "recipe.yaml"
_MANIFEST = "manifest.csv"


def prepared_with(names: Names, runs: Sequence[Path]) -> list[Path]:
    """Folders of ``medgen data prepare`` that hold a case."""
    found = {path.parent for root in runs for path in root.rglob(_PREPARED) if (path.parent / _RECIPE).is_file()}
    return sorted(folder for folder in found if any(_names_it(path, folder, names) for path in _files(folder)))


def forget_prepared(folder: Path, names: Names) -> tuple[int, list[str]]:
    """Take a case out of a prepared cohort: the number of files removed, and what was edited.

    Raises:
        DataError: If a file cannot be changed.
    """
    removed, edited = 0, []
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        what = take_out(path, name, names, model=False, others=True)
        removed += what == "removed"
        edited += [name] if what == "edited" else []
    return removed, edited


def cohorts_with(names: Names, runs: Sequence[Path]) -> list[Path]:
    """Cohorts that hold a case: these are scans, which medgen did not make from others, and stay."""
    return sorted(
        {
            path.parent
            for root in runs
            for path in root.rglob(_MANIFEST)
            if not (path.parent / RECORD).exists() and not (path.parent / "config.yaml").exists()
            if "mlartifacts" not in path.parts and named_in(path, names)
        }
    )


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _names_it(path: Path, folder: Path, names: Names) -> bool:
    return names.about(path.relative_to(folder).as_posix()) or (
        path.suffix in (".csv", ".yaml") and named_in(path, names)
    )
