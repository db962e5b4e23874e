import csv
import io
import json

import pytest

from medgen.errors import ConfigError
from medgen.report.cards.checklist import (
    CHECKLISTS,
    TO_WRITE,
    answer,
    conditions,
    counts,
    load,
    markdown,
    plain,
    score,
    table,
)
from medgen.report.cards.facts.catalogue import fact_of
from medgen.report.cards.records import read_records
from tests.builders.run_records import AUGMENT_METRICS, seal

# Of the tool's table of weights.
WEIGHTS = [
    0.0368, 0.0735, 0.0919, 0.0438, 0.0292, 0.0438, 0.0292, 0.0337, 0.0225, 0.0112, 0.0622, 0.0311, 0.0415, 0.02, 0.02,
    0.03, 0.02, 0.0599, 0.03, 0.0352, 0.0234, 0.0176, 0.0117, 0.0293, 0.0176, 0.0375, 0.0749, 0.0075, 0.0075, 0.0075,
]  # fmt: skip
TRIPOD = [
    "1", "2", "3a", "3b", "3c", "4", "5a", "5b", "6a", "6b", "6c", "7", "8a", "8b", "8c", "9a", "9b", "9c",
    "10", "11", "12a", "12b", "12c", "12d", "12e", "12f", "12g", "13", "14", "15", "16", "17", "18a", "18b", "18c",
    "18d", "18e", "18f", "19", "20a", "20b", "20c", "21", "22", "23a", "23b", "24", "25", "26", "27a", "27b", "27c",
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("claim", [str(n) for n in range(1, 45)]),
        ("tripod-ai", TRIPOD),
        ("metrics", [str(n) for n in range(1, 31)]),
    ],
)
def test_items_are_numbered_and_ordered_as_the_checklist_does(name, numbers):
    checklist = load(name)
    assert [item.number for item in checklist.items] == numbers
    assert "doi:10." in checklist.citation


def test_only_what_is_for_evaluation_alone_applies_to_it_alone():
    applies = {item.number: item.applies for item in load("tripod-ai").items}
    assert [number for number, told in applies.items() if told == "E"] == ["12f", "12g", "20c", "24"]
    assert [number for number, told in applies.items() if told == "D"] == [
        "9a", "12a", "12b", "12c", "15", "22", "27a", "27b",
    ]  # fmt: skip


def test_weights_of_the_score_are_those_of_the_tool():
    assert [item.weight for item in load("metrics").items] == WEIGHTS
    assert sum(WEIGHTS) == pytest.approx(1)


def test_items_are_conditional_as_in_the_tool():
    needed = {item.number: item.conditions for item in load("metrics").items if item.conditions}
    assert needed == {
        "8": ("1",),
        "9": ("1", "2"),
        "10": ("1",),
        "12": ("3",),
        "14": ("4",),
        "15": ("4",),
        "16": ("4",),
        "17": ("5",),
    }


@pytest.mark.parametrize("name", list(CHECKLISTS))
def test_every_item_is_answered_or_left_to_the_authors_by_name(name, run):
    records = read_records(run)
    for own in answer(load(name), records):
        assert own.text or own.to_write.startswith(f"{TO_WRITE}: ")
        assert bool(own.text) == bool(own.sources)
        for known in own.facts:
            assert fact_of(records, known.name) == known
        if own.state == "authors":
            assert own.to_write
        if own.state == "in part":
            assert own.text
            assert own.to_write


def test_an_answer_names_its_fields_and_follows_them(run_of):
    run = run_of("anomaly")
    before = {own.item.number: own for own in answer(load("claim"), read_records(run))}
    assert "seed 7" in before["19"].text
    assert before["19"].sources == ("splits.csv: part", "outputs.json: seed")
    seal(run, seed=8)
    after = {own.item.number: own for own in answer(load("claim"), read_records(run))}
    assert "seed 8" in after["19"].text


def test_a_run_without_a_test_answers_no_item_about_tests(run_of):
    told = {own.item.number: own for own in answer(load("claim"), read_records(run_of("train")))}
    assert told["32"].state == "authors"
    assert told["32"].to_write == f"{TO_WRITE}: Evaluation on internal data"


def test_a_page_counts_its_items_and_names_what_is_open(run_of):
    run = run_of("anomaly")
    records, checklist = read_records(run), load("claim")
    page, told = markdown(checklist, records), counts(answer(checklist, records))
    assert f"{told['answered']} of 44 items are answered from the records of the run, {told['in part']} in part" in page
    assert page.count(f"*{TO_WRITE}:") == told["in part"] + told["authors"]
    assert "[`splits.csv`: part; `outputs.json`: seed]" in page
    assert str(run) not in page


def test_a_table_has_a_row_for_each_item(run_of):
    rows = list(csv.DictReader(io.StringIO(table(answer(load("tripod-ai"), read_records(run_of("augment")))))))
    assert [row["item"] for row in rows] == TRIPOD
    (funding,) = [row for row in rows if row["item"] == "18a"]
    assert (funding["state"], funding["text"]) == ("authors", "")
    assert funding["to_be_written"] == f"{TO_WRITE}: funding and the role of funders"


def test_plain_data_survive_json(run):
    data = plain(load("metrics"), read_records(run))
    assert json.loads(json.dumps(data)) == data
    assert len(data["items"]) == 30


def test_a_score_is_told_only_of_what_is_known(run_of):
    records = read_records(run_of("anomaly"))
    checklist = load("metrics")
    found = score(checklist, answer(checklist, records))
    assert found is not None
    # 13, 18, 21, 22, 23, 25 and 26; 17 depends on a condition that only the authors can answer.
    known = 0.0415 + 0.0599 + 0.0234 + 0.0176 + 0.0117 + 0.0176 + 0.0375
    assert (found.yes, found.no) == (pytest.approx(known), 0)
    assert found.lowest == pytest.approx(known)
    assert found.highest == pytest.approx(1)
    assert "17" in found.unknown
    assert "It is no score of the study" in found.words


def test_a_leak_counts_as_no(run_of):
    run = run_of("anomaly")
    rows = (run / "splits.csv").read_text()
    (run / "splits.csv").write_text(f"{rows}sim-0000,sim-0000,test\n")
    seal(run)
    checklist = load("metrics")
    answers = answer(checklist, read_records(run))
    found = score(checklist, answers)
    assert found is not None
    assert found.no == pytest.approx(0.0599)
    assert found.highest == pytest.approx(1 - 0.0599)


def test_items_of_segmentation_count_where_a_run_segments(run_of):
    checklist = load("metrics")
    segmenting, other = (read_records(run_of(kind)) for kind in ("augment", "train"))
    assert conditions(checklist, segmenting)["1"] is True
    assert conditions(checklist, other)["1"] is None
    judged = {own.item.number: (own.judged, own.applies) for own in answer(checklist, segmenting)}
    assert judged["9"] == (True, True)
    assert AUGMENT_METRICS["value"]


def test_checklists_without_weights_have_no_score(run):
    checklist = load("claim")
    assert score(checklist, answer(checklist, read_records(run))) is None


def test_an_unknown_checklist_is_refused():
    with pytest.raises(ConfigError, match="checklist 'strobe': unknown; expected one of claim, tripod-ai, metrics"):
        load("strobe")
