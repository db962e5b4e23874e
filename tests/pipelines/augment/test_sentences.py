"""Sentences of the augment report follow the results they are made from: another result, another sentence."""

from __future__ import annotations

import html
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medgen.metrics.halves import Measure
from medgen.metrics.interval import Interval
from medgen.pipelines.augment.study import usefulness
from medgen.report.augment.audit import audit_section, printed_audit
from medgen.report.augment.cohort import consensus_sentence
from medgen.report.augment.fidelity import fidelity_lines
from medgen.report.augment.value import StudyResults, study_lines, study_metrics, study_section
from medgen.report.html import Report
from medgen.runs.folder import RunFolder
from medgen.synthesis.cohort.consensus import Consensus
from medgen.synthesis.cohort.label_bias import LabelBias
from medgen.synthesis.export.card import people_in, people_of
from medgen.synthesis.fidelity.comparison import Fidelity
from medgen.synthesis.fidelity.results import FidelityResults
from medgen.synthesis.filtering.copies import CopyBounds
from medgen.synthesis.filtering.pool import Candidate, CandidatePool
from medgen.synthesis.privacy.results import INTERNAL, SHARE, Audit, BackendAudit, Check, Control
from medgen.synthesis.sources import Sources
from medgen.synthesis.value.config import ValueConfig
from medgen.synthesis.value.undecided import Learning
from medgen.synthesis.value.verdict import Comparison, judge
from medgen.volume import Volume
from tests.builders.labelled_scans import blobs
from tests.builders.made_up import made_up
from tests.builders.printed_numbers import texts

ARMS = {"real": -0.1, "standard": 0.0, "standard+synthetic": 0.0}


def study(gain: float, *, seeds: int = 5, learning: Learning | None = None) -> StudyResults:
    gains = {5: {**ARMS, "standard+synthetic": gain}, 10: {**ARMS, "standard+synthetic": gain}}
    rows = made_up(gains, rng=np.random.default_rng(0), seeds=seeds)
    judged = judge(rows, 0, 200, learning=learning)
    return StudyResults(judged, ValueConfig(seeds=seeds), {1: "CSF"}, {"test": 30})


def page(results: StudyResults, folder: Path) -> str:
    report = Report("study")
    study_section(report, results, RunFolder(folder))
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", "", report.html())))


@pytest.mark.parametrize("gain", [0.03, 0.0, -0.03])
@pytest.mark.parametrize("learning", [None, Learning(4, {}), Learning(600, {5: 0.99})])
@pytest.mark.parametrize("seeds", [3, 5])
def test_report_console_and_metrics_say_the_same(
    gain: float, learning: Learning | None, seeds: int, tmp_path: Path
) -> None:
    results = study(gain, seeds=seeds, learning=learning)
    metrics, text, lines = study_metrics(results), page(results, tmp_path), study_lines(results)
    for item in metrics["comparisons"]:
        assert item["sentence"] in lines
        assert item["sentence"].startswith(item["word"])
        assert ("the study cannot decide" in item["sentence"]) is bool(item["undecided"])
        for word in {"USE", "HARMFUL", "NO EVIDENCE"} - {item["word"]}:
            assert not item["sentence"].startswith(word)
    for item in results.judgement.verdicts:
        assert item.sentence in text
    assert (metrics["caution"] != "") is (seeds < 5)
    assert metrics["caution"] in text
    # No other words of a decision than those of the object that holds it.
    assert "for a decision" not in text
    said = usefulness(results)
    word, sentence = said.word, said.sentence
    assert sentence.startswith(word)
    assert word == results.judgement.word


def test_each_field_of_a_comparison_changes_its_sentence() -> None:
    (item, *_) = study(0.03, seeds=3).judgement.verdicts
    others: dict[str, Any] = {
        "arm": "standard+joint",
        "ordinary": "real",
        "subjects": 77,
        "role": "standard",
        "difference": Interval(0.123, 0.1, 0.2, 30),
        "p_holm": 0.0321,
        "word": "HARMFUL",
        "seeds": 2,
        "undecided": "there is a reason",
    }
    of_a_harm: dict[str, Any] = {"base": "strong", "base_difference": Interval(-0.02, -0.03, -0.01, 30)}
    unsaid = {"p"}
    assert {field.name for field in fields(Comparison)} == {*others, *of_a_harm, *unsaid}
    for name, value in others.items():
        assert replace(item, **{name: value}).sentence != item.sentence, name
    harm = replace(item, word="HARMFUL", base="standard", base_difference=Interval(-0.05, -0.06, -0.04, 30))
    for name, value in of_a_harm.items():
        assert replace(harm, **{name: value}).sentence != harm.sentence, name


def test_what_became_of_unlabelled_scans_follows_the_bias() -> None:
    good = LabelBias(1, 6, Interval(1.01, 0.98, 1.04, 6), Interval(0.9, 0.8, 0.95, 6), 0.06, 0.06)
    bad = replace(good, label=2, volume_ratio=Interval(0.7, 0.6, 0.8, 6))
    names = {1: "WM", 2: "CSF"}
    assert consensus_sentence(Consensus(None, {}, 0.0), names) == ""
    said = consensus_sentence(Consensus(None, {}, 0.0, bias=(good, bad)), names)
    assert said == (
        "No unlabelled scan was labelled, since inferred labels are biased (CSF): these scans lend their images only."
    )
    both = consensus_sentence(Consensus(None, {}, 0.0, bias=(replace(bad, label=1), bad)), names)
    assert "(WM and CSF)" in both
    kept = consensus_sentence(Consensus(None, {"a": 0.8, "b": 0.9}, 0.75, bias=(good,)), names)
    assert kept.startswith("0 of 2 unlabelled scans")
    assert "0.800 to 0.900; below 0.750" in kept
    assert "CSF" not in kept


BOUNDS = CopyBounds(copy=0.91, identity=0.97, typical=0.7, highest=0.88, subjects=25)
CHECK = Check("share of copies", Interval(0.1, 0.05, 0.2, 30), 0.04, True, "more copies than expected")
ITEM = BackendAudit(
    "deform", "0" * 64, True, 30, (CHECK,), {}, {"deform-0": 0.8}, {"deform-0": "sub-01"}, SHARE, "nobody is copied"
)
CONTROL = Control("planted copies", "positive", Interval(1.0, 0.9, 1.0, 12), "at least 0.9", True)
AUDIT = Audit((CONTROL,), {"deform": ITEM}, BOUNDS, (25, 30), (9, 11), ())


def audit_page(audit: Audit, folder: Path) -> str:
    def pair(candidate: Candidate, name: str) -> tuple[Volume, Volume, Volume, Volume | None]:
        raise AssertionError("the pool holds no candidate")

    report = Report("audit")
    audit_section(report, audit, CandidatePool(()), pair, {1: "CSF"}, RunFolder(folder))
    return "\n".join([*texts(report.html()), *printed_audit(audit)])


def test_each_field_of_an_audit_changes_what_is_said(tmp_path: Path) -> None:
    before = audit_page(AUDIT, tmp_path)
    intervals = Interval(0.5, 0.4, 0.6, 9)
    changed = [
        *(
            replace(AUDIT, controls=(replace(CONTROL, **{name: value}),))
            for name, value in {
                "name": "n",
                "kind": "negative",
                "interval": intervals,
                "expected": "0.5",
                "passed": False,
            }.items()
        ),
        *(
            replace(AUDIT, backends={"deform": replace(ITEM, **{name: value})})
            for name, value in {"scans": 31, "checks": (), "stamp": INTERNAL, "reason": "two are copied"}.items()
        ),
        *(
            replace(AUDIT, backends={"deform": replace(ITEM, checks=(replace(CHECK, **{name: value}),))})
            for name, value in {"name": "n", "interval": intervals, "expected": 0.07, "words": "as expected"}.items()
        ),
        *(
            replace(AUDIT, bounds=replace(BOUNDS, **{name: value}))
            for name, value in {"copy": 0.92, "identity": 0.98, "highest": 0.87, "subjects": 12}.items()
        ),
        *(
            replace(AUDIT, **{name: value})
            for name, value in {"training": (24, 30), "held_out": (9, 12), "problems": ("no copy was found",)}.items()
        ),
    ]
    pages = [audit_page(audit, tmp_path) for audit in changed]
    assert before not in pages
    assert len(set(pages)) == len(pages)


def test_an_audit_that_failed_its_controls_judges_nothing(tmp_path: Path) -> None:
    valid = audit_page(AUDIT, tmp_path)
    assert "more copies than expected" in valid
    assert "A number is suspicious if its whole interval is above" in valid
    failed = audit_page(replace(AUDIT, problems=("no planted copy was found",)), tmp_path)
    assert "more copies than expected" not in failed
    assert "not judged" in failed
    assert "Nothing follows from these numbers, since the audit failed its controls." in failed


def test_a_card_counts_everybody_who_was_learnt_from() -> None:
    alone = Sources(blobs(6, 0, "a"), None, (1, 4), {})
    assert people_of(*people_in(alone)) == "6 labelled subjects"
    more = Sources(blobs(6, 0, "a"), blobs(4, 1, "u", labelled=False), (1, 4), {})
    assert people_of(*people_in(more)) == "6 labelled and 4 unlabelled subjects"


def test_why_no_rate_of_false_alarms_is_promised() -> None:
    assert str(BOUNDS).endswith("false alarms of 5 % or fewer")
    assert "with fewer than 19 subjects" in str(replace(BOUNDS, subjects=12))
    alike = str(replace(BOUNDS, copy=0.86))
    assert "fewer than" not in alike
    assert alike.endswith(
        "since two training subjects are more alike than that, a rate of false alarms cannot be promised"
    )


def test_a_ratio_is_not_printed_under_the_name_of_the_measure() -> None:
    interval = Interval(0.5, 0.4, 0.6, 9)
    ratio = Measure("kid", interval, interval, 0.1, Interval(10.455, 9.0, 11.0, 9), goal=(-np.inf, 3.0))
    value = replace(ratio, name="coverage", goal=(0.7, np.inf), judged="synthetic")
    item = Fidelity("deform", "held-out", 16, 20, 20, 20, (ratio, value), ())
    (line,) = fidelity_lines(FidelityResults((item,), {}, {}, 4, "auditors"))
    assert "kid / floor 10.5: not met (ratio at most 3)" in line.replace("10.46", "10.5").replace("10.455", "10.5")
    assert "coverage 0.5" in line
    assert "kid 10" not in line
