"""Numbered references, and docstrings as their source."""

from __future__ import annotations

import re

import pytest

from medgen.anomaly.scores.catalogue import registered
from medgen.models.catalogue import available, family_class
from medgen.report.methods import references
from medgen.report.methods.text import MethodsText, software, sources_in, summary


def test_references_are_numbered_in_the_order_of_the_text_and_listed_once():
    text = MethodsText("Methods")
    text.add("One", f"First{text.cite('B')}, then{text.cite('A', 'B')}.")
    text.add("Two", f"Again{text.cite('A')}.", "")
    assert "First [1], then [1, 2]." in text.markdown
    assert "Again [2]." in text.markdown
    assert text.markdown.endswith("## References\n\n1. B\n2. A\n")


def test_nothing_is_listed_that_is_not_cited():
    text = MethodsText("Methods")
    text.add("One", "Nothing.")
    text.add("Two", "")
    assert "References" not in text.markdown
    assert "Two" not in text.markdown


@pytest.mark.parametrize(
    ("commit", "changed"), [("unknown", None), ("0123456789abcdef", False), ("0123456789abcdef", True)]
)
def test_software_says_versions_commit_and_seed(commit, changed):
    text = MethodsText("Methods")
    software(text, {"medgen": "9.8.7", "python": "3.99", "torch": "missing"}, commit, changed, 42)
    assert "medgen 9.8.7" in text.markdown
    assert "python 3.99" in text.markdown
    assert "torch" not in text.markdown
    assert "seed 42" in text.markdown
    assert ("commit 0123456789ab" in text.markdown) == (commit != "unknown")
    assert ("changes that are not in it" in text.markdown) == (changed is True)


@pytest.mark.parametrize("name", available())
def test_every_family_names_its_source_and_what_it_is(name):
    family = family_class(name)
    assert sources_in(family), "its docstring needs a paragraph 'Source: ...'"


@pytest.mark.parametrize("name", [*registered("voxel"), *registered("scan")])
def test_every_score_has_a_summary_and_whole_sources(name):
    from medgen.anomaly.scores.catalogue import get

    own = get(name).function
    assert summary(own)
    assert not summary(own).endswith(".")
    # A year each: otherwise a list was cut apart in the middle of a title.
    assert [source for source in sources_in(own) if not re.search(r"\b(19|20)\d\d\b", source)] == []


def test_every_reference_is_used_by_some_sentence():
    from pathlib import Path

    folder = Path(references.__file__).parent
    code = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py") if path.name != "references.py")
    names = [name for name in vars(references) if name.isupper()]
    assert len(names) > 10
    assert [name for name in names if f"references.{name}" not in code] == []
