import pytest

from medgen.errors import DataError
from medgen.report.cards.intended_use import UNKNOWN, markdown, sections
from medgen.report.cards.records import read_records
from tests.builders.run_records import seal

HEADINGS = [
    "Intended purpose",
    "Intended users",
    "Population it was measured on",
    "Inputs",
    "Outputs",
    "Performance",
    "Limits of performance",
    "Not intended for",
    "Human oversight",
    "Version and records",
    "Status",
]


def told(run):
    return {section.heading: " ".join(section.lines) for section in sections(read_records(run))}


def test_every_heading_has_something_below_it(run):
    found = sections(read_records(run))
    assert [section.heading for section in found] == HEADINGS
    assert all(section.lines and all(section.lines) for section in found)
    assert "Not for clinical use" in told(run)["Status"]


def test_population_and_performance_are_those_of_the_run(run_of):
    found = told(run_of("anomaly"))
    assert "6 scans of 6 subjects" in found["Population it was measured on"]
    assert "scan AUROC 0.62 [0.31, 0.93] (95 % interval, 4 subjects)" in found["Performance"]
    assert "Kinds of implants of which none had a finding: foreign (2)." in found["Limits of performance"]
    assert "sex female (test) 1 of 2" in found["Population it was measured on"]


def test_what_was_not_measured_is_said(run_of):
    found = told(run_of("train"))
    assert found["Performance"] == UNKNOWN
    assert "Performance by age, sex or scanner: not measured" in found["Population it was measured on"]


def test_the_verdict_and_the_audit_go_with_generators(run_of):
    found = told(run_of("augment"))
    assert "NO EVIDENCE" in found["Performance"]
    assert "deform: internal use only" in found["Performance"]
    assert "2 scans passed the filter" in found["Outputs"]


def test_the_page_names_who_asks_for_what(run):
    page = markdown(read_records(run))
    assert "## Human oversight\n\n(AI Act Art. 13(3)(d) and Art. 14, Annex IV 2(e))\n\n- " in page
    assert str(run) not in page


def test_a_run_that_trained_nothing_has_no_intended_use(run_of):
    run = run_of("train")
    (run / "model" / "artifact.json").unlink()
    seal(run)
    with pytest.raises(DataError, match="has trained no model"):
        markdown(read_records(run))
