import json

import pytest

from medgen.errors import AuditError, DataError
from medgen.report.cards.records import Reader, read_records, records_in_progress, well_formed
from tests.builders.run_records import seal


def test_a_run_is_read_with_its_kind_and_its_weights(run):
    kinds = {
        "anomaly": "anomaly detector",
        "augment": "generators of labelled scans",
        "train": "generative model",
    }
    records = read_records(run)
    assert records.kind == kinds[run.name]
    assert list(records.weights) == ["model/weights-0.safetensors"]


@pytest.mark.parametrize("name", ["metrics.json", "outputs.json", "config.yaml"])
def test_a_folder_without_a_record_is_no_finished_run(run_of, name):
    run = run_of("anomaly")
    (run / name).unlink()
    with pytest.raises(DataError, match=f"no {name}; expected the folder of a finished run"):
        read_records(run)


@pytest.mark.parametrize("name", ["metrics.json", "splits.csv", "model/artifact.json", "config.yaml", "manifest.csv"])
def test_a_changed_record_is_not_believed(run_of, name):
    run = run_of("anomaly")
    (run / name).write_text((run / name).read_text() + " ")
    with pytest.raises(AuditError, match="is not as the run wrote it"):
        read_records(run)


def test_a_changed_list_of_hashes_is_not_believed(run_of):
    run = run_of("anomaly")
    outputs = json.loads((run / "outputs.json").read_text())
    (run / "outputs.json").write_text(json.dumps({**outputs, "seed": 8}))
    with pytest.raises(AuditError, match=r"outputs\.json: is not as the run wrote it"):
        read_records(run)


@pytest.mark.parametrize("content", ["[1, 2]", "{", "null"])
def test_records_of_another_form_are_refused_in_one_line(run_of, content):
    run = run_of("anomaly")
    (run / "metrics.json").write_text(content)
    seal(run)
    with pytest.raises(DataError) as raised:
        read_records(run)
    assert "metrics.json" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_cannot_be_made_of_records_is_one_line(run_of):
    records = read_records(run_of("anomaly"))
    with pytest.raises(DataError, match="not as this version of medgen writes them"):
        well_formed(records, lambda: {}["missing"])


def test_a_record_with_a_value_that_cannot_be_is_named(run_of):
    from medgen.report.cards.model_card import fields_of

    run = run_of("anomaly")
    artifact = json.loads((run / "model" / "artifact.json").read_text())
    (run / "model" / "artifact.json").write_text(json.dumps({**artifact, "sha256": "none"}))
    seal(run)
    with pytest.raises(DataError, match=r"\(field artifacts_sha256\.model: .*; run it anew"):
        fields_of(read_records(run))


def test_a_reader_tells_which_fields_it_found(run_of):
    read = Reader(read_records(run_of("anomaly")))
    read("metrics.json", "scan", 0, "auroc")
    read("metrics.json", "nothing")
    read.table("splits.csv", "part")
    read.table("splits.csv", "nothing")
    assert read.sources == ["metrics.json: scan.0.auroc", "splits.csv: part"]


def test_records_at_the_end_of_a_run_are_what_it_will_record(run_of):
    run = run_of("train")
    finished = read_records(run)
    (run / "outputs.json").unlink()
    assert records_in_progress(run).weights == finished.weights
