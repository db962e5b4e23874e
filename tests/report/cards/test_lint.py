"""Cards say what their runs have: whatever is changed in one is named."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from medgen.data.cards.card import render
from medgen.data.cards.form import sections_of
from medgen.errors import DataError
from medgen.report.cards.compare import unlike
from medgen.report.cards.lint import differences, lint
from medgen.report.cards.lint import run_of as run_above
from medgen.report.cards.model_card import fields_of, markdown
from medgen.report.cards.model_fields import AUTHORS_FIELDS
from medgen.report.cards.records import read_records
from medgen.report.cards.synthetic_card import facts_of
from medgen.synthesis.export import card as synthetic
from tests.builders.run_records import RUNS, seal
from tests.report.cards.test_facts import changed, leaves


def model_card(run, where):
    records = read_records(run)
    where.write_text(markdown(records, fields_of(records, "CC0-1.0", "us@example.org")), encoding="utf-8")
    return where


def cohort_card(run, where):
    facts = facts_of(read_records(run))
    where.write_text(render(synthetic.fields_of(facts), synthetic.sections_of(facts)), encoding="utf-8")
    return where


def split(text):
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def written(path, front, body):
    path.write_text(f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n{body}", encoding="utf-8")
    return path


def other(front: dict[str, Any], path) -> dict[str, Any]:
    """Front matter with one leaf changed to something that its schema still allows."""
    value: Any = front
    for step in path:
        value = value[step]
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value):
        new: Any = "9" * 64
    elif isinstance(value, bool):
        new = not value
    elif isinstance(value, int):
        new = value + 1
    elif isinstance(value, float):
        new = value + 0.001
    elif value == "anomaly detector":
        new = "generative model"
    elif value in ("generative model", "generators of labelled scans"):
        new = "anomaly detector"
    else:
        new = f"{value} not"
    return _set(front, path, new)


def _set(document: Any, path, new: Any) -> Any:
    if not path:
        return new
    key, *rest = path
    if isinstance(document, list):
        return [_set(item, rest, new) if place == key else item for place, item in enumerate(document)]
    return {name: _set(item, rest, new) if name == key else item for name, item in document.items()}


def dotted(path) -> str:
    """As differences name it: a list is one field, but the numbers of labels are names."""
    return ".".join(str(step) for step in path if not isinstance(step, int) or path[0] == "labels")


def test_an_untouched_card_has_no_problem(run, tmp_path):
    card = model_card(run, tmp_path / "card.md")
    assert lint(card) == []
    assert differences(card, run) == []


def test_every_changed_field_of_a_model_card_is_named(run, tmp_path):
    front, body = split(model_card(run, tmp_path / "card.md").read_text(encoding="utf-8"))
    silent = []
    for path in leaves(front):
        if path[0] in (*AUTHORS_FIELDS, "card"):
            continue
        value: Any = front
        for step in path:
            value = value[step]
        if value in (None, [], {}):
            continue
        found = differences(written(tmp_path / "changed.md", other(front, path), body), run)
        if not any(problem.startswith(f"{dotted(path)}: the card says") for problem in found):
            silent.append((path, found))
    assert silent == []


def test_every_changed_line_of_a_model_card_is_named(run, tmp_path):
    card = model_card(run, tmp_path / "card.md")
    front, body = split(card.read_text(encoding="utf-8"))
    for heading, text in sections_of(body).items():
        for line in filter(str.strip, text.splitlines()):
            if set(line) <= set("|-") or line.startswith("| measured"):
                continue
            section = body.index(f"## {heading}\n")
            at = body.index(line, section)
            altered = body[:at] + line + "9" + body[at + len(line) :]
            found = differences(written(card, front, altered), run)
            assert any(problem.startswith(f"section '## {heading}': the run says {line!r}") for problem in found), line


def test_what_authors_add_is_theirs(run_of, tmp_path):
    run = run_of("anomaly")
    card = model_card(run, tmp_path / "card.md")
    front, body = split(card.read_text(encoding="utf-8"))
    front |= {"name": "our model", "version": "2", "licence": "MIT"}
    assert differences(written(card, front, f"{body}\n- We thank all.\n\n## Funding\n\nNone.\n"), run) == []


def test_an_untouched_card_of_a_synthetic_cohort_has_no_problem(run_of, tmp_path):
    run = run_of("augment")
    card = cohort_card(run, tmp_path / "card.md")
    assert lint(card) == []
    assert differences(card, run) == []


def test_every_changed_field_of_a_synthetic_card_is_named(run_of, tmp_path):
    run = run_of("augment")
    front, body = split(cohort_card(run, tmp_path / "card.md").read_text(encoding="utf-8"))
    authors = ("name", "version", "licence", "source", "citation", "kind", "preprocessing")
    silent = []
    for path in leaves(front):
        value: Any = front
        for step in path:
            value = value[step]
        if path[0] in authors or value in (None, [], {}):
            continue
        found = differences(written(tmp_path / "changed.md", other(front, path), body), run)
        if not any(problem.startswith(f"{dotted(path)}: the card says") for problem in found):
            silent.append((path, found))
    assert silent == []


def test_the_verdict_below_the_front_matter_is_compared_too(run_of, tmp_path):
    run = run_of("augment")
    card = cohort_card(run, tmp_path / "card.md")
    card.write_text(card.read_text(encoding="utf-8").replace("may be chance", "is real"), encoding="utf-8")
    (problem,) = differences(card, run)
    assert problem.startswith("section '## Limits': the run says 'Value study of the run that made them: NO EVIDENCE")


def test_counts_that_do_not_add_up_need_no_run(run_of, tmp_path):
    run = run_of("augment")
    front, body = split(cohort_card(run, tmp_path / "card.md").read_text(encoding="utf-8"))
    front["measured"]["generators"]["deform"] |= {"exported": 1, "acceptance": 0.9}
    assert lint(written(tmp_path / "card.md", front, body)) == [
        "measured.generators: 1 exported, n_cases is 2; expected the same",
        "measured.generators.deform.acceptance is 0.9; expected accepted over all, 0.6667",
    ]


def test_a_card_of_another_run_is_one_line(run_of, tmp_path):
    card = model_card(run_of("train"), tmp_path / "card.md")
    (problem,) = differences(card, _other_run(tmp_path))
    assert problem.startswith(f"is the card of another run, {'f' * 32}; expected that of")


def test_a_cohort_of_another_run_is_one_line(run_of, tmp_path):
    card = cohort_card(run_of("augment"), tmp_path / "card.md")
    text = card.read_text(encoding="utf-8")
    for old in ("a" * 64, "b" * 64):
        text = text.replace(old, f"{old[0]}7" * 32)
    card.write_text(text, encoding="utf-8")
    (problem,) = differences(card, tmp_path / "augment")
    assert "is the card of another run's cohort" in problem


def _other_run(tmp_path):
    run = RUNS["anomaly"](tmp_path / "other")
    seal(run, run_id="8" * 32)
    return run


def test_template_text_cannot_be_compared(run_of, tmp_path):
    run = run_of("augment")
    front, body = split(cohort_card(run, tmp_path / "card.md").read_text(encoding="utf-8"))
    card = written(tmp_path / "card.md", {**front, "n_cases": "TO BE FILLED IN"}, body)
    assert lint(card) == ["field n_cases: still holds template text; fill it in"]
    assert differences(card, run) == []


def test_a_data_card_is_of_no_run(run_of, tmp_path):
    from tests.data.cards.test_card import write

    with pytest.raises(DataError, match="describes collected data; expected a model card or the card of a synthetic"):
        differences(write(tmp_path / "card.md"), run_of("train"))


def test_a_run_without_a_synthetic_cohort_has_no_card_for_it(run_of, tmp_path):
    card = cohort_card(run_of("augment"), tmp_path / "card.md")
    with pytest.raises(DataError, match="has exported no synthetic cohort"):
        differences(card, run_of("train"))


def test_the_run_above_a_card_is_found(run_of, tmp_path):
    run = run_of("augment")
    assert run_above(run / "synthetic" / "card.md") == run
    assert run_above(tmp_path / "card.md") is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("no front matter", "no front matter"),
        ("---\ncard: model\nname: [\n---\n", "front matter"),
        ("---\ncard: model\n---\n", "field name is missing; add it"),
        ("---\ncard: data\n---\n", "field card: "),
    ],
)
def test_a_broken_card_is_told_in_a_line(tmp_path, text, problem):
    path = tmp_path / "card.md"
    path.write_text(text, encoding="utf-8")
    found = lint(path)
    assert any(problem in line for line in found)
    assert all("\n" not in line for line in found)


def test_leaves_that_differ_are_named():
    assert list(unlike({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}})) == ["a.b: the card says 1, 2, the run has 1, 3"]
    assert list(unlike({"a": 1.0}, {"a": 1})) == []


def test_the_helper_changes_one_leaf():
    assert changed({"a": [1, {"b": 2}]}, ("a", 1, "b")) == {"a": [1, {"b": 5}]}
