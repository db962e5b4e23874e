"""The house keeps its order: small rooms, short files, a sentence on every door."""

from __future__ import annotations

import ast
import re
import runpy
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(path for folder in ("medgen", "pipelines") for path in (ROOT / folder).rglob("*.py"))
# Folders whose members are found by their file are as long as their list.
LISTS = (
    "medgen/anomaly/scores",
    "medgen/implants/kinds",
    "medgen/models/families",
    "medgen/segmentation/ordinary/arms",
    "medgen/synthesis/backends",
    "medgen/synthesis/label_sources",
    "medgen/synthesis/painters",
    "pipelines/bench/speed/contests",
)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_no_folder_holds_more_than_fourteen_modules() -> None:
    count = Counter(name(path.parent) for path in MODULES if path.name != "__init__.py")
    assert {folder: number for folder, number in count.items() if number > 14 and folder not in LISTS} == {}


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_is_short_and_says_what_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    said = ast.get_docstring(ast.parse(text))
    assert said, "no docstring"
    assert said.splitlines()[0].endswith((".", "?", ":"))


def test_every_folder_has_a_door() -> None:
    assert [name(path.parent) for path in MODULES if not (path.parent / "__init__.py").is_file()] == []


def test_no_class_bears_the_name_of_its_modules_only_function() -> None:
    twins = []
    for path in MODULES:
        body = ast.parse(path.read_text(encoding="utf-8")).body
        # A decorator may: @score makes a Score.
        functions = {node.name for node in body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")}
        classes = {node.name.lower() for node in body if isinstance(node, ast.ClassDef)}
        if len(functions) == 1 and functions & classes and path.name != "base.py":
            twins.append(name(path))
    assert twins == []


def test_the_map_names_every_folder_with_the_sentence_on_its_door() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    written = runpy.run_path(str(ROOT / "docs" / "architecture.py"))["folders"](ROOT)
    assert written in page, "run python docs/architecture.py"


def _stands_for_something(named: str) -> bool:
    # The diagrams leave out `medgen/` and suffixes.
    return any((ROOT / root / f"{named}{suffix}").exists() for root in ("", "medgen", "docs") for suffix in ("", ".py"))


def test_every_path_on_the_map_is_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    quoted = re.findall(r"`([\w./-]+/[\w./-]*)`", page)
    linked = re.findall(r"\]\(([^)#]+)\)", page)
    drawn = [label.partition(":")[0] for label in re.findall(r'\w\["([^"]+)"\]', page)]
    assert len(quoted) > 100
    assert len(drawn) > 20
    assert [named for named in (*quoted, *linked, *drawn) if not _stands_for_something(named)] == []


def test_the_map_answers_each_question_once() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition("## Where is ...?")[2].partition("\n## ")[0]
    questions = re.findall(r"^\| (?!\*\*|question|-)([^|]+) \| ([^|]+) \|$", table, re.MULTILINE)
    assert len(questions) >= 40
    assert len({question for question, _ in questions}) == len(questions)
    assert [question for question, answer in questions if "`" not in answer] == []
