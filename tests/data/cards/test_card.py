from pathlib import Path

import pytest
import yaml

from medgen.data.cards.card import SECTIONS, lint, new_card, read_card, render, synthetic_card
from medgen.data.cards.fields import CardFields
from medgen.errors import DataError

CARDS = sorted((Path(__file__).resolve().parents[3] / "data_cards").glob("*.md"))
FIELDS = {
    "name": "phantoms",
    "version": "1",
    "kind": "collected",
    "description": "Ten phantoms.",
    "modality": "MR",
    "n_cases": 10,
    "n_subjects": 5,
    "spacing": [1, 1, 2.5],
    "labels": {1: "sphere"},
    "licence": "CC0-1.0",
    "source": "a scanner",
    "citation": "none needed",
    "intended_use": "testing",
    "not_for": "anything else",
    "known_biases": ["all are round"],
    "preprocessing": "none",
    "privacy": "no person",
}


def write(path, changes=None, body=None, drop=()):
    front = {key: value for key, value in {**FIELDS, **(changes or {})}.items() if key not in drop}
    body = "\n".join(f"## {name}\n\nText.\n" for name in SECTIONS) if body is None else body
    path.write_text(f"---\n{yaml.safe_dump(front)}---\n\n{body}", encoding="utf-8")
    return path


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_shipped_cards_are_complete(path):
    assert lint(path) == []
    assert "not for clinical use" in read_card(path).body.lower()


def test_shipped_cards_are_the_three():
    assert [path.stem for path in CARDS] == ["msd_hippocampus", "oasis", "simulated"]


def test_a_card_reads_back(tmp_path):
    fields = CardFields.model_validate(FIELDS)
    path = tmp_path / "card.md"
    path.write_text(render(fields, dict.fromkeys(SECTIONS, "Text.")), encoding="utf-8")
    card = read_card(path)
    assert card.fields == fields
    assert card.fields.labels == {1: "sphere"}
    assert lint(path) == []


def test_render_refuses_missing_sections():
    with pytest.raises(ValueError, match="Limits"):
        render(CardFields.model_validate(FIELDS), {"Composition": "a", "Collection": "b", "Use": "c"})


def test_a_number_is_a_version(tmp_path):
    assert read_card(write(tmp_path / "card.md", {"version": 1.5})).fields.version == "1.5"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"n_cases": 0}, "n_cases"),
        ({"colour": "red"}, "field colour is unknown"),
        ({"spacing": [1, 0, 1]}, "spacing"),
        ({"known_biases": []}, "known_biases"),
        ({"n_subjects": 11}, "n_subjects is 11, n_cases 10"),
        ({"labels": {0: "background"}}, "values from 1"),
        ({"kind": "simulated"}, "needs generator and seeds"),
        ({"kind": "synthetic", "provenance": {"generator": "x", "seeds": [1]}}, "needs artifact_sha256"),
        ({"source": "/home/someone/scans"}, "absolute path '/home/someone/scans'"),
        ({"source": "C:\\scans"}, "absolute path"),
        ({"licence": "TO BE FILLED IN"}, "field licence: still holds template text"),
    ],
)
def test_lint_names_the_field(tmp_path, changes, problem):
    problems = lint(write(tmp_path / "card.md", changes))
    assert len(problems) == 1
    assert problem in problems[0]
    assert "\n" not in problems[0]


def test_lint_lists_everything(tmp_path):
    path = write(
        tmp_path / "card.md", {"n_cases": "many"}, "## Use\n\n## Limits\n\nSome.\n", drop=("licence", "privacy")
    )
    problems = lint(path)
    expected = {
        "field n_cases",
        "field licence is missing",
        "field privacy is missing",
        "section '## Composition' is missing",
        "section '## Collection' is missing",
        "section '## Use' is empty",
    }
    assert {next(e for e in expected if p.startswith(e)) for p in problems} == expected
    assert len(problems) == len(expected)
    with pytest.raises(DataError, match=r"5 more; see medgen card lint"):
        read_card(path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("# A title only", "no front matter"),
        ("---\na: [1\n---\n", "not plain YAML at line"),
        ("---\na: !!python/object/apply:os.getcwd []\n---\n", "not plain YAML"),
        ("---\n- a\n---\n", "is a list"),
        ("---\na: 1\n", "no front matter"),
    ],
)
def test_lint_of_other_files(tmp_path, text, problem):
    path = tmp_path / "card.md"
    path.write_text(text, encoding="utf-8")
    problems = lint(path)
    assert len(problems) == 1
    assert problem in problems[0]
    with pytest.raises(DataError, match=r"card\.md"):
        read_card(path)


def test_missing_and_binary_files(tmp_path):
    assert "no such card" in lint(tmp_path / "none.md")[0]
    (tmp_path / "card.md").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read as text" in lint(tmp_path / "card.md")[0]


def test_a_new_card_has_every_field_and_is_not_yet_complete(tmp_path):
    path = tmp_path / "card.md"
    path.write_text(
        new_card("mine", {"n_cases": 4, "n_subjects": 2, "spacing": [1, 1, 3], "labels": {2: "lesion"}}),
        encoding="utf-8",
    )
    front = yaml.safe_load(path.read_text(encoding="utf-8").split("---")[1])
    assert set(CardFields.model_fields) - set(front) == {
        "spacing_range",
        "shape_range",
        "orientation",
        "sex",
        "age",
        "measured",
    }
    problems = lint(path)
    assert len(problems) == 14
    assert all("template text" in problem for problem in problems)


def test_a_synthetic_card_is_complete(tmp_path):
    path = tmp_path / "card.md"
    text = synthetic_card(
        "made",
        kind="synthetic",
        n_cases=3,
        n_subjects=3,
        spacing=(1.0, 1.0, 1.00001),
        labels={1: "a"},
        seeds=(1, 2),
        generator="deform",
        description="Three.",
        modality="MR T1",
        licence="CC0-1.0",
        known_biases=["few"],
        privacy="derived from patients",
        intended_use="training",
        not_for="sharing",
        sections=dict.fromkeys(SECTIONS, "Text."),
        artifact_sha256="a" * 64,
        parents_sha256="b" * 64,
    )
    path.write_text(text, encoding="utf-8")
    card = read_card(path)
    assert card.fields.provenance.seeds == (1, 2)
    assert card.fields.provenance.parents_sha256 == "b" * 64
