"""Registered models: a version for each digest, runs that used it, comparison, champion."""

from __future__ import annotations

from dataclasses import replace

import pytest

from medgen.errors import ConfigError, DataError
from medgen.runs.keys import Key
from medgen.runs.model_registry import Registry
from medgen.runs.store.registry import Version, compare, find, promote

from .conftest import Stored, make_model

NAME = "medgen-anomaly-brains"
KEYS = (Key("test.voxel_ap", "average precision", "higher"), Key("test.implants", "implants"))


def test_every_digest_has_a_version_with_its_run_and_the_newest_is_the_candidate(stored: Stored) -> None:
    first = stored.client.get_model_version(NAME, "1")
    assert first.run_id == stored.run("first").info.run_id
    assert first.tags["medgen.model.sha256"] == "1" * 64
    assert first.source.endswith("/artifacts/model")
    assert stored.client.get_model_version_by_alias(NAME, "candidate").version in (2, "2")


def test_a_model_of_mlflow_3_ties_run_and_version(stored: Stored) -> None:
    run = stored.run("first")
    (made,) = run.outputs.model_outputs
    model = stored.client.get_logged_model(made.model_id)
    assert (model.source_run_id, str(model.status)) == (run.info.run_id, "READY")
    assert model.tags["mlflow.modelVersions"] == f'[{{"name": "{NAME}", "version": 1}}]'


@pytest.mark.parametrize(("name", "number"), [("scored", "1"), ("later", "2")])
def test_a_run_that_used_a_model_leads_to_its_version(stored: Stored, name: str, number: str) -> None:
    run = stored.run(name)
    assert run.data.tags["medgen.model.version"] == f"{NAME}/{number}"
    assert run.data.tags["medgen.model.uri"] == f"models:/{NAME}/{number}"
    assert f"[{NAME} version {number}](#/models/{NAME}/versions/{number})" in run.data.tags["mlflow.note.content"]
    maker = stored.run({"1": "first", "2": "second"}[number])
    assert [own.model_id for own in run.inputs.model_inputs] == [own.model_id for own in maker.outputs.model_outputs]


def test_intervals_apart_decide_by_what_is_better(stored: Stored) -> None:
    registry = Registry.of([str(stored.root / "first")])
    first, second = registry.version(str(stored.root / "first")), registry.version(f"{NAME}/2")
    rows = compare(first, second, KEYS)
    assert [(row.key.name, row.word) for row in rows] == [("test.voxel_ap", "better"), ("test.implants", "")]
    assert rows[0].first == "0.25 [0.2, 0.3]"
    assert compare(second, first, KEYS)[0].word == "worse"
    assert compare(first, second, [replace(KEYS[0], better="lower")])[0].word == "worse"
    overlapping = replace(second, numbers={**second.numbers, "test.voxel_ap.low": 0.29})
    assert compare(first, overlapping, KEYS)[0].word == "not decided"


def test_what_was_not_measured_alike_is_not_compared(stored: Stored) -> None:
    first, second = find(stored.client, f"{NAME}/1"), find(stored.client, f"{NAME}/2")
    for other, said in (
        (replace(second, tests={"brains: test": "ef" * 32}), "tested on different scans"),
        (replace(second, settings={"evaluation.per_scan": "9"}), r"evaluation.per_scan is 8 against 9"),
        (replace(second, kind="augment"), "nothing to compare"),
        (replace(second, tests={}), "names no test scans"),
    ):
        with pytest.raises(DataError, match=said):
            compare(first, other, KEYS)


def test_the_champion_moves_to_the_better_one_and_not_back(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    client = stored.client

    def champion() -> str:
        return str(client.get_model_version_by_alias(NAME, "champion").version)

    assert "the first champion" in promote(client, find(client, f"{NAME}/1"), KEYS)[0]
    assert promote(client, find(client, f"{NAME}/1"), KEYS) == [f"{NAME}/1 is the champion already"]
    promote(client, find(client, f"{NAME}@candidate"), KEYS)
    assert champion() == "2"
    said = client.get_model_version(NAME, "2").description
    assert "in place of version 1" in said
    assert "| test.voxel_ap | 0.25 [0.2, 0.3] | 0.55 [0.5, 0.6] | better |" in said
    assert said.endswith("Detector of x")
    with pytest.raises(DataError, match="worse than the champion"):
        promote(client, find(client, f"{NAME}/1"), KEYS)
    assert champion() == "2"
    assert "although: a test" in promote(client, find(client, f"{NAME}/1"), KEYS, "a test")[0]
    assert champion() == "1"
    assert "although: a test" in client.get_model_version(NAME, "1").description
    # Tested on other scans.
    make_model(stored.root / "third", "3" * 64, 0.8, scans="99" * 32)
    third = Registry.of([str(stored.root / "third")]).version(str(stored.root / "third"))
    assert third.aliases == ("candidate",)
    with pytest.raises(DataError, match="different scans"):
        promote(client, third, KEYS)
    assert champion() == "1"


@pytest.mark.parametrize("called", ["brains", "brains/one", "@champion", "/3"])
def test_a_name_that_is_none_is_refused(stored: Stored, called: str) -> None:
    with pytest.raises(ConfigError, match="NAME/NUMBER"):
        find(stored.client, called)


@pytest.mark.parametrize("called", ["absent/1", f"{NAME}/77", f"{NAME}@absent", "absent@champion"])
def test_a_version_that_is_not_there_is_one_sentence(stored: Stored, called: str) -> None:
    with pytest.raises(DataError, match=r"no such"):
        find(stored.client, called)


def test_a_store_that_is_not_there_is_not_made(tmp_path) -> None:
    with pytest.raises(DataError, match="no such MLflow store"):
        Registry.of(["a/1"], str(tmp_path / "none.db"))
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_a_model_says_how_to_send_it(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = str(stored.root / "scored")
    with pytest.raises(DataError, match="medgen audit sync"):
        Registry.of([folder]).version(folder)


def test_a_number_without_interval_has_no_word() -> None:
    one = Version("a", "1", "anomaly", "r", (), {"test.voxel_ap": 0.1}, {"t": "1"}, {})
    assert compare(one, replace(one, number="2", numbers={"test.voxel_ap": 0.9}), KEYS)[0].word == ""
