import re

import pytest

from medgen.config import parse_config
from medgen.data.layouts.detect import CohortConfig, load_cohort
from medgen.errors import ConfigError
from medgen.faults import FaultyDataError
from tests.builders.cohort_folders import labels, scan


def refusal(path, **config):
    with pytest.raises(FaultyDataError) as caught:
        load_cohort(path, CohortConfig(**config))
    return str(caught.value)


@pytest.fixture
def visits(tmp_path):
    for person in range(3):
        for visit in (1, 2):
            scan(tmp_path / f"images/P{person}_V{visit}.nii.gz", person)
            labels(tmp_path / f"labels/P{person}_V{visit}.nii.gz")
    return tmp_path


def test_visits_are_asked_about_and_every_answer_works(visits):
    text = refusal(visits)
    assert "P0_V1, P0_V2: 3 such groups of 6 scans" in text
    assert "'cohort.subjects={subject}_V*'" in text
    assert "'cohort.leave_out=*_V1.nii.gz'" in text
    own = load_cohort(visits, CohortConfig(subjects="{subject}_V*"))
    assert (own.subjects, len(own)) == (["P0", "P1", "P2"], 6)
    assert own.intake.subjects == "from the pattern {subject}_V*"
    assert len(load_cohort(visits, CohortConfig(subjects="{subject}")).subjects) == 6
    assert len(load_cohort(visits, CohortConfig(leave_out="*_V1.nii.gz"))) == 3
    (visits / "subjects.csv").write_text(
        "case,subject\n" + "".join(f"P{p}_V{v},x{p}\n" for p in range(3) for v in (1, 2))
    )
    assert load_cohort(visits).subjects == ["x0", "x1", "x2"]


def test_patterns_must_match_every_id(visits):
    assert "6 of 6 case ids do not match 'cohort.subjects={subject}-*': P0_V1, P0_V2, P1_V1 and 3 more" in refusal(
        visits, subjects="{subject}-*"
    )
    with pytest.raises(ConfigError, match="no pattern"):
        parse_config(CohortConfig, {"subjects": "(?P<subject>["}, "here")


def test_dates_are_asked_about_and_other_beginnings_are_said(tmp_path):
    for name in ("P1_20200101", "P1_20210304", "P2_20200506"):
        scan(tmp_path / "a" / f"{name}.nii.gz")
    for name in ("P1_abc", "P1_def", "P2_ghi"):
        scan(tmp_path / "b" / f"{name}.nii.gz")
    assert "names begin alike and go on with dates or visits, such as P1_20200101, P1_20210304" in refusal(
        tmp_path / "a"
    )
    (decision,) = load_cohort(tmp_path / "b").intake.decisions
    assert decision.startswith("names of 2 scans begin alike, such as P1_abc, P1_def")


def test_manifests_without_subjects_are_asked_about(tmp_path):
    for name in ("P0_pre", "P0_post", "P1_pre", "P1_post"):
        scan(tmp_path / f"{name}.nii.gz")
    rows = "".join(f"{name},{name}.nii.gz\n" for name in ("P0_pre", "P0_post", "P1_pre", "P1_post"))
    (tmp_path / "manifest.csv").write_text(f"id,image\n{rows}")
    assert "several scans with one name but for a part" in refusal(tmp_path)
    rows = "".join(f"P{p}_{v},P{p},P{p}_{v}.nii.gz\n" for p in range(2) for v in ("pre", "post"))
    (tmp_path / "manifest.csv").write_text(f"id,subject,image\n{rows}")
    assert load_cohort(tmp_path).subjects == ["P0", "P1"]


def test_participants_without_prefix(tmp_path):
    for name in ("01", "02"):
        scan(tmp_path / f"sub-{name}/anat/sub-{name}_T1w.nii.gz")
    (tmp_path / "participants.tsv").write_text("participant_id\tage\n01\t34\n03\t50\n")
    manifest = load_cohort(tmp_path)
    assert [case.attributes.get("age") for case in manifest] == ["34", None]
    assert manifest.intake.decisions[0].startswith("participants.tsv has no line for 1 of 2 subjects (sub-02)")


def test_the_answer_to_names_with_blanks_matches_their_files(tmp_path):
    for person in range(3):
        for visit in (1, 2):
            scan(tmp_path / f"P {person} V{visit}.nii.gz", 10 * person + visit)
    text = refusal(tmp_path)
    advised = next(iter(re.findall(r"'cohort\.leave_out=([^']*)'", text)))
    assert advised == "*?V1.nii.gz"
    assert len(load_cohort(tmp_path, CohortConfig(leave_out=advised))) == 3


def test_a_pattern_of_files_to_leave_out_that_stands_for_none_is_refused(visits):
    text = refusal(visits, leave_out=("*_V1.nii.gz", "*-V2.nii.gz"))
    assert "no file that '*-V2.nii.gz' stands for" in text
