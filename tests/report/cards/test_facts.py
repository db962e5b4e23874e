"""Every fact is made of the fields that it names: change one of them and the sentence changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from medgen.errors import ConfigError
from medgen.report.cards.checklist import CHECKLISTS, load
from medgen.report.cards.facts.catalogue import FACTS, fact_of
from medgen.report.cards.records import Reader, RunRecords, read_records
from tests.builders.run_records import RUNS


def records_of(kind: str, tmp_path) -> RunRecords:
    return read_records(RUNS[kind](tmp_path / kind))


def leaves(value: Any, path: tuple[Any, ...] = ()):
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list) and value:
        for key, item in enumerate(value):
            yield from leaves(item, (*path, key))
    else:
        yield path


def other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 3
    if isinstance(value, str):
        return f"{value} or not"
    return {"more": 1} if value == {} else ["more"] if value == [] else "something"


def changed(document: Any, path: tuple[Any, ...]) -> Any:
    if not path:
        return other(document)
    key, *rest = path
    if isinstance(document, list):
        return [changed(item, tuple(rest)) if place == key else item for place, item in enumerate(document)]
    return {name: changed(item, tuple(rest)) if name == key else item for name, item in document.items()}


def with_change(records: RunRecords, file: str, path: tuple[Any, ...]) -> RunRecords:
    documents = {**records.documents, file: changed(records.documents[file], path)}
    return replace(records, documents=documents)


def without(document: Any, path: tuple[Any, ...]) -> Any:
    key, *rest = path
    if isinstance(document, list):
        kept = [item for place, item in enumerate(document) if rest or place != key]
        return [without(item, tuple(rest)) if rest and place == key else item for place, item in enumerate(kept)]
    kept = {name: item for name, item in document.items() if rest or name != key}
    return {name: without(item, tuple(rest)) if rest and name == key else item for name, item in kept.items()}


def versions_of(records: RunRecords, file: str, path: tuple[Any, ...]):
    """The records with one thing below a field changed, and with one of them gone."""
    if file in records.tables:
        rows = records.tables[file]
        for kept in (rows[1:], rows[:-1], ()) if rows else (({path[0]: "x"},),):
            yield replace(records, tables={**records.tables, file: kept})
        return
    value = records.get(file, *path)
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for place in [path, *((*path, key) for key in keys)]:
        yield replace(records, documents={**records.documents, file: without(records.documents[file], place)})
    for leaf in leaves(value, path):
        yield with_change(records, file, leaf)


def told(records: RunRecords, name: str) -> str | None:
    try:
        return FACTS[name](Reader(records))
    except (TypeError, ValueError, KeyError, AttributeError, StopIteration):
        # A field of another type: no longer the same sentence either.
        return "cannot be said"


def pairs(tmp_path):
    for kind in RUNS:
        records = records_of(kind, tmp_path)
        for name in FACTS:
            read = Reader(records)
            if FACTS[name](read) is not None:
                yield kind, name, records, read


def test_every_fact_is_known_by_some_run(tmp_path):
    assert {name for _, name, _, _ in pairs(tmp_path)} == set(FACTS)


def test_a_sentence_follows_every_field_that_it_says_it_is_made_of(tmp_path):
    deaf = []
    for kind, name, records, read in pairs(tmp_path):
        text = told(records, name)
        for file, path in read.found:
            if all(told(version, name) == text for version in versions_of(records, file, path)):
                deaf.append((kind, name, file, path))
    assert deaf == []


def test_numbers_of_a_sentence_are_those_of_its_fields(tmp_path):
    records = records_of("anomaly", tmp_path)
    known = fact_of(records, "voxel_performance")
    assert known is not None
    assert "voxel average precision 0.31 [0.155, 0.465] (95 % interval, 4 subjects)" in known.text
    assert "metrics.json: voxel.1.ap" in known.sources
    assert "16 mm (2 of 2)" in fact_of(records, "smallest_lesion").text
    assert "right deep, +3 sd: none of those tried" in fact_of(records, "smallest_lesion").text
    assert fact_of(records, "never_found").text == "Kinds of implants of which none had a finding: foreign (2)."


def test_subjects_in_two_parts_are_told(tmp_path):
    records = records_of("train", tmp_path)
    rows = records.tables["splits.csv"]
    leak = replace(records, tables={**records.tables, "splits.csv": (*rows, {**rows[0], "part": "validation"})})
    assert "not disjoint by subject: 1 of 6 subjects are in more than one" in fact_of(leak, "split_level").text


def test_an_unknown_fact_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="fact 'luck': unknown"):
        fact_of(records_of("train", tmp_path), "luck")


def test_every_fact_answers_an_item_or_stands_in_a_card():
    from medgen.report.cards import intended_use, model_card

    asked = {name for checklist in CHECKLISTS for item in load(checklist).items for name in item.facts}
    cards = {name for names in model_card._FACTS.values() for name in names}
    used = {*intended_use._POPULATION, *intended_use._PERFORMANCE, *intended_use._LIMITS, "preprocessing"}
    assert set(FACTS) == asked | cards | used
