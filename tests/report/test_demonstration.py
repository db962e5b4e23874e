"""What the demo says follows from what its runs have measured."""

from __future__ import annotations

import copy
import json

import pytest

from medgen.report import demonstration

ANOMALY = {
    "findings": {
        "level": 0.5,
        "groups": [
            {"by": "kind", "name": "blur", "scans": 2, "shares": [{"level": 0.5, "found": 1}]},
            {
                "by": "all",
                "name": "all",
                "scans": 24,
                "shares": [{"level": 0.25, "found": 6}, {"level": 0.5, "found": 8}],
            },
        ],
    }
}
AUGMENT = {
    "verdict": "NO EVIDENCE",
    "generators": {"a": {"accepted": 12, "rejected": 1}, "b": {"accepted": 7, "rejected": 6}},
}


@pytest.fixture
def demo(tmp_path):
    for name, metrics in (("anomaly", ANOMALY), ("augment", AUGMENT)):
        (tmp_path / "my demo" / name).mkdir(parents=True)
        (tmp_path / "my demo" / name / "report.html").write_text("")
        (tmp_path / "my demo" / name / "metrics.json").write_text(json.dumps(metrics))
    splits = "case,subject,part\nsim-1,sim-1,fold-1\nsim-7,sim-7,test\n"
    (tmp_path / "my demo" / "anomaly" / "splits.csv").write_text(splits)
    return tmp_path / "my demo"


def test_the_end_says_where_to_look_what_to_expect_and_what_to_try(demo):
    said = demonstration.closing(demo)
    assert f"  medgen open '{demo}/anomaly'" in said
    assert f"  medgen open '{demo}/augment'" in said
    assert any("findings on 8 of 24 implanted anomalies at 0.5 false findings" in line for line in said)
    assert any("verdict NO EVIDENCE, 19 labelled brains beside real ones, and why 7 more" in line for line in said)
    scan, model, out = demo / "cohort" / "images" / "sim-7.nii.gz", demo / "anomaly" / "model", demo / "scored"
    assert said[-1] == f"  medgen anomaly score '{scan}' --model '{model}' --out '{out}'"


def test_other_results_are_told_otherwise():
    other = copy.deepcopy(ANOMALY)
    other["findings"]["level"] = 0.25
    other["findings"]["groups"][1]["scans"] = 30
    assert "on 6 of 30 implanted anomalies at 0.25 false" in demonstration.found_words(other)
    assert "verdict USE" in demonstration.helped_words({**AUGMENT, "verdict": "USE"})
    one = {"a": {"accepted": 3, "rejected": 2}}
    assert "3 labelled brains beside real ones, and why 2" in demonstration.helped_words({**AUGMENT, "generators": one})


def test_a_run_without_a_report_is_not_named(demo):
    (demo / "augment" / "report.html").unlink()
    assert not any("augment" in line for line in demonstration.closing(demo))


def test_the_beginning_says_what_will_be_done_and_how_long_it_takes(tmp_path):
    said = "\n".join(demonstration.opening(tmp_path, 12, 3.5, ["deform", "joint"], 754.0))
    for words in ("12 simulated brains of 3.5 mm", "(deform, joint)", "about 13 min here", str(tmp_path)):
        assert words in said


def test_a_machine_of_half_the_speed_takes_twice_as_long(monkeypatch):
    monkeypatch.setattr(demonstration, "probe", lambda: 1.0)
    once = demonstration.seconds_here()
    monkeypatch.setattr(demonstration, "probe", lambda: 2.0)
    assert demonstration.seconds_here() == pytest.approx(2 * once)
    assert demonstration.seconds_here() > 60
