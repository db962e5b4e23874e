"""What MLflow's pages show, read back as MLflow reads it: data sets, tables, pictures, times, descriptions."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas
import pytest
from PIL import Image

from medgen.runs import tracking
from medgen.runs.store.shown import table_of

from .conftest import CANARY, SCANS, Stored


def artifacts(stored: Stored, name: str, folder: str = "") -> list[str]:
    return sorted(item.path for item in stored.client.list_artifacts(stored.run(name).info.run_id, folder or None))


def test_a_run_is_named_by_its_cohort_and_described(stored: Stored) -> None:
    run = stored.run("first")
    assert run.info.run_name == f"anomaly-brains-{stored.ids['first'][:8]}"
    assert run.data.tags["mlflow.note.content"].startswith("> **Found** 3 of 4.")


def test_data_sets_have_context_digest_and_numbers(stored: Stored) -> None:
    found = {item.tags[0].value: item.dataset for item in stored.run("first").inputs.dataset_inputs}
    assert found.keys() == {"training", "test"}
    test = found["test"]
    assert (test.name, test.digest) == ("brains: test", SCANS[:12])
    assert json.loads(test.profile) == {"sha256": SCANS, "scans": 4, "subjects": 4}
    assert json.loads(test.source) == {"cohort": "brains"}


def test_a_table_is_read_by_mlflow(stored: Stored) -> None:
    run = stored.run("first")
    # As mlflow.load_table does with the file.
    table = pandas.read_json(stored.client.download_artifacts(run.info.run_id, "tables/scans.json"), orient="split")
    assert table["case"].tolist() == ["a", "b"]
    assert table["score"].tolist()[0] == 1.5
    assert table["p"].tolist() == [0.25, 0.5]
    assert json.loads(run.data.tags["mlflow.loggedArtifacts"]) == [{"path": "tables/scans.json", "type": "table"}]


def test_a_column_with_a_word_stays_text_and_no_number_is_null() -> None:
    found = table_of("a,b\n1,nan\nx,2\n")
    assert found == {"columns": ["a", "b"], "data": [["1", None], ["x", 2.0]]}
    assert table_of("") == {"columns": [], "data": []}


def test_pictures_of_one_key_have_steps_and_small_copies(stored: Stored) -> None:
    names = artifacts(stored, "first", "images")
    whole = [re.fullmatch(r"images/(.+)\+step\+(\d+)\+timestamp\+\d+\+[0-9a-f-]+\.png", name) for name in names]
    found = {int(match[2]): match for match in whole if match}
    assert sorted(found) == [0, 1, 2]
    assert {match[1] for match in found.values()} == {"Heatmaps  of tests"}
    assert all(f"{match[0][:-4]}+compressed.webp" in names for match in found.values())
    place = stored.client.download_artifacts(stored.run("first").info.run_id, found[2][0])
    with Image.open(place) as picture:
        assert (picture.size, picture.getpixel((0, 0))) == ((300, 200), (160, 160, 160))
    small = stored.client.download_artifacts(stored.run("first").info.run_id, f"{found[2][0][:-4]}+compressed.webp")
    with Image.open(small) as picture:
        assert max(picture.size) == 256


def test_a_part_that_ran_elsewhere_has_its_own_times(stored: Stored) -> None:
    (part,) = stored.client.search_runs(["1"], "attributes.run_name = 'elsewhere'", max_results=1)
    assert (part.info.start_time, part.info.end_time) == (1_700_000_000_000, 1_700_000_060_000)
    assert part.data.metrics == {"dice": 0.5}


def test_a_refused_run_says_so_where_and_not_what_file(stored: Stored) -> None:
    run = stored.run("refused")
    assert run.info.status == "FAILED"
    assert run.data.tags["medgen.failed_stage"] == "prepare"
    assert run.data.tags["mlflow.note.content"].startswith("**Refused** (DataError)")
    assert "patient" not in json.dumps(run.data.tags)


def test_a_model_folder_is_there_once(stored: Stored) -> None:
    assert artifacts(stored, "first", "model") == ["model/artifact.json"]
    (tag,) = (key for key in stored.run("first").data.tags if key.startswith("sha256."))
    assert tag == "sha256.model"


def test_nothing_holds_a_path(stored: Stored) -> None:
    for name in ("first", "scored", "refused"):
        run = stored.run(name)
        assert CANARY not in json.dumps([run.data.tags, run.data.params])
    version = stored.client.get_model_version("medgen-anomaly-brains", "1")
    assert version.description.endswith("Detector of x")


@pytest.mark.parametrize("name", ["scored", "first", "later"])
def test_what_is_sent_twice_is_there_once(stored: Stored, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def everything() -> list[object]:
        runs = [stored.client.get_run(run.info.run_id) for run in stored.client.search_runs(["1"], max_results=500)]
        said = [(run.info.run_id, run.data.tags, run.data.metrics, str(run.inputs), str(run.outputs)) for run in runs]
        models = stored.client.search_model_versions("name = 'medgen-anomaly-brains'")
        files = sorted(path.as_posix() for path in Path(stored.root, "mlartifacts").rglob("*") if path.is_file())
        aliases = stored.client.get_registered_model("medgen-anomaly-brains").aliases
        logged = [model.model_id for model in stored.client.search_logged_models(["1"])]
        return [sorted(said, key=str), [(own.version, own.tags) for own in models], files, aliases, logged]

    before = everything()
    (stored.root / name / "journal.cursor").unlink()
    assert tracking.sync(stored.root / name) > 0
    assert everything() == before
