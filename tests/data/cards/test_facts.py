import json
from dataclasses import replace

import numpy as np
import pytest
import yaml

from medgen.data.cards.card import lint, new_card
from medgen.data.cards.facts import differences, facts_of
from medgen.data.cards.fields import CardFields
from medgen.data.layouts.detect import load_cohort
from medgen.volume import Grid
from tests.builders.cohort_folders import labels, scan

SPACINGS = ((0.7, 0.667, 0.667), (0.8, 0.7, 0.7), (0.7, 0.667, 0.667))
TEXT = dict.fromkeys(
    ("description", "licence", "source", "citation", "intended_use", "not_for", "preprocessing", "privacy"), "text"
)


@pytest.fixture
def cohort(tmp_path):
    for number, spacing in enumerate(SPACINGS):
        grid = Grid((12 + number, 14, 10), np.diag([-spacing[0], -spacing[1], spacing[2], 1.0]))
        scan(tmp_path / f"imagesTr/c{number}_0000.nii.gz", number, grid)
        labels(tmp_path / f"labelsTr/c{number}.nii.gz", grid)
    about = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1, "b": 2}, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    (tmp_path / "subjects.csv").write_text("case,subject,Sex,age\nc0,s0,F,61\nc1,s1,M,95\nc2,s0,F,61\n")
    return load_cohort(tmp_path)


@pytest.fixture
def facts(cohort):
    return facts_of(cohort, [case.read_image().grid for case in cohort])


def test_what_is_measured(facts):
    assert facts.fields() == {
        "n_cases": 3,
        "n_subjects": 2,
        "spacing": [0.7, 0.667, 0.667],
        "spacing_range": [[0.7, 0.8], [0.667, 0.7], [0.667, 0.7]],
        "shape_range": [[12, 14], [14, 14], [10, 10]],
        "orientation": ["LPS"],
        "labels": {1: "a", 2: "b"},
        "modality": "CT",
        "sex": {"F": 1, "M": 1},
        "age": [61.0, 61.0],
    }


def test_a_new_card_invents_nothing(tmp_path, facts):
    card = tmp_path / "card.md"
    card.write_text(new_card("mine"))
    front = yaml.safe_load(card.read_text().split("---")[1])
    for name in ("modality", "n_cases", "n_subjects", "spacing"):
        assert front[name] == "TO BE FILLED IN"
        assert f"field {name}: still holds template text; fill it in" in lint(card)
    card.write_text(new_card("mine", facts.fields()))
    front = yaml.safe_load(card.read_text().split("---")[1])
    assert {name: front[name] for name in facts.fields()} == facts.fields()
    assert not any(name in " ".join(lint(card)) for name in ("spacing", "shape_range", "n_cases", "modality", "sex"))


def test_a_card_and_its_cohort(facts):
    base = {"name": "mine", "version": "1", "kind": "collected", "known_biases": ["few"], **TEXT}
    card = CardFields.model_validate({**base, **facts.fields()})
    assert differences(card, facts) == []
    wrong = {
        "n_cases": 4,
        "n_subjects": 3,
        "spacing": (1, 1, 1),
        "spacing_range": ((1, 1), (1, 1), (1, 1)),
        "shape_range": ((64, 64), (64, 64), (64, 64)),
        "orientation": ("RAS",),
        "labels": {1: "a"},
        "modality": "MR",
        "sex": {"F": 2},
        "age": (20, 30),
    }
    for name, value in wrong.items():
        (told,) = differences(CardFields.model_validate({**base, **facts.fields(), name: value}), facts)
        assert told.startswith(f"{name}: the card says ")
    told = differences(CardFields.model_validate({**base, **facts.fields(), "spacing": (1, 1, 1)}), facts)
    assert told == ["spacing: the card says 1, 1, 1, the cohort has 0.7, 0.667, 0.667"]
    # What a card leaves out, and what the cohort does not state, is no difference.
    short = {key: value for key, value in facts.fields().items() if key not in ("sex", "age", "orientation")}
    assert differences(CardFields.model_validate({**base, **short}), facts) == []
    assert differences(card, replace(facts, modality="", sex={}, age=None)) == []
    longer = CardFields.model_validate({**base, **facts.fields(), "modality": "CT of the chest"})
    assert differences(longer, facts) == []
