import re

import pytest
import yaml

from medgen.data.cards.form import TODO, sections_of
from medgen.errors import DataError
from medgen.report.cards.model_card import NAME, SECTIONS, fields_of, markdown, write_model_card
from medgen.report.cards.records import read_records, records_in_progress
from tests.builders.run_records import seal


def front(text):
    return yaml.safe_load(text.split("---")[1])


def test_a_card_has_every_section_and_only_its_authors_fields_are_open(run):
    records = read_records(run)
    text = markdown(records, fields_of(records))
    assert tuple(sections_of(text)) == SECTIONS
    assert [key for key, value in front(text).items() if value == TODO] == ["licence", "contact"]
    assert str(run) not in text


def test_numbers_are_those_of_the_run(run_of):
    fields = fields_of(read_records(run_of("anomaly")))
    assert (fields.n_scans, fields.n_subjects, fields.n_learnt_from) == (6, 6, 4)
    assert fields.parts["calibration"].scans == 4
    assert fields.performance["scan AUROC"].estimate == 0.62
    assert fields.performance["implants found at 0.5 expected false findings"].n == 4
    assert fields.calibration is not None
    assert fields.calibration.findings_threshold == 2.937
    assert fields.never_found == ("foreign",)
    assert fields.smallest_lesion_mm == {"left deep, -3 sd": 16.0, "right deep, +3 sd": None}
    assert fields.artifacts_sha256 == {"model": "c" * 64}


def test_generators_have_their_audit_and_verdict(run_of):
    fields = fields_of(read_records(run_of("augment")))
    assert fields.verdict == "NO EVIDENCE"
    assert fields.audit == {"deform": "internal use only", "joint": "not audited"}
    assert fields.artifacts_sha256 == {"deform": "a" * 64, "joint": "b" * 64}
    assert fields.n_learnt_from == 3


def test_every_number_of_the_table_stands_in_the_front_matter(run_of):
    records = read_records(run_of("anomaly"))
    fields = fields_of(records)
    rows = re.findall(r"^\| (.+?) \| ([\d.]+) \|", markdown(records, fields), flags=re.MULTILINE)
    assert {name: float(number) for name, number in rows} == {
        name: value.estimate for name, value in fields.performance.items()
    }


def test_a_run_that_trained_nothing_has_no_card(run_of):
    run = run_of("train")
    (run / "model" / "artifact.json").unlink()
    seal(run)
    with pytest.raises(DataError, match="has trained no model; expected a finished run of medgen anomaly run"):
        fields_of(read_records(run))


def test_a_card_is_written_at_the_end_of_a_run(run_of):
    run = run_of("train")
    (run / "outputs.json").unlink()
    # As in a run whose journal says more than the records that are made up here.
    records = records_in_progress(run)
    records.documents["outputs.json"].update(seed=7, run_id="f" * 32)
    assert write_model_card(run, records) == run / NAME
    assert front((run / NAME).read_text())["seed"] == 7
