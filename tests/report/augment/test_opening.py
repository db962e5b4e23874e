"""The first screen of the reports on synthetic scans: another result, another sentence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from medgen.metrics.halves import Measure
from medgen.metrics.interval import Interval
from medgen.pipelines.augment.study import usefulness
from medgen.report.augment.opening import Made, answer_words, decisive, made_facts, next_words, opening, why_words
from medgen.report.augment.value import StudyResults
from medgen.report.html import Report
from medgen.synthesis.fidelity.comparison import Fidelity
from medgen.synthesis.fidelity.results import FidelityResults
from medgen.synthesis.filtering.copies import CopyBounds
from medgen.synthesis.filtering.filter import FilterResult
from medgen.synthesis.filtering.pool import Candidate, CandidatePool
from medgen.synthesis.privacy.results import SHARE, Audit, BackendAudit
from medgen.synthesis.usefulness import NOT_MEASURED
from medgen.synthesis.value.config import ValueConfig
from medgen.synthesis.value.undecided import Learning
from medgen.synthesis.value.verdict import judge
from tests.builders.made_up import made_up
from tests.builders.printed_numbers import texts

GOOD, BAD = FilterResult(True, {}, {}, "sub-01"), FilterResult(False, {}, {"copy": "too like sub-01"}, "sub-01")


def study(gain: float, *, seeds: int = 5, learning: Learning | None = None, other: float | None = None) -> StudyResults:
    arms = {"standard": 0.0, "standard+synthetic": gain, **({} if other is None else {"standard+deform": other})}
    rows = made_up({12: arms}, rng=np.random.default_rng(0), seeds=seeds)
    judged = judge(rows, 0, 200, learning=learning)
    return StudyResults(judged, ValueConfig(seeds=seeds), {1: "CSF"}, {"test": 30})


def made(**changed: Any) -> Made:
    candidates = tuple(Candidate(f"s{n}", None, GOOD if n < 6 else BAD, "deform", n) for n in range(10))
    item = BackendAudit("deform", "0" * 64, True, 6, (), {}, {}, {}, SHARE, "nobody is copied")
    audit = Audit((), {"deform": item}, CopyBounds(0.9, 0.97, 0.7, 0.88, 25), (25, 30), (9, 11), ())
    return replace(
        Made(CandidatePool(candidates), {"deform": 0}, audit, "", None, {1: "CSF"}, ("flow", "spade")), **changed
    )


@pytest.mark.parametrize("gain", [0.03, 0.0, -0.03])
def test_the_first_sentence_says_the_word_and_the_two_numbers_it_compares(gain: float) -> None:
    results = study(gain)
    verdict = usefulness(results)
    said = answer_words(verdict, results)
    assert said.startswith(f"**{results.judgement.word}: ")
    told = decisive(results)
    assert told is not None
    dice = {
        item.arm: item.interval.estimate
        for item in results.judgement.summaries
        if item.label is None and item.metric == "dice"
    }
    assert f"**{dice[told.arm]:.3f}** (1 is perfect)" in said
    assert f"to **{dice[told.ordinary]:.3f}**" in said
    assert f"{told.difference.estimate:+.3f} [{told.difference.low:+.3f}, {told.difference.high:+.3f}]" in said
    assert "trained on 12 patients" in said
    assert "on 30 patients that nothing was trained on" in said
    assert "on 1 patient that" in answer_words(verdict, replace(results, subjects={"test": 1}))


def test_what_cannot_be_decided_is_said_with_its_reason_and_what_to_raise() -> None:
    results = study(0.0, learning=Learning(4, {}))
    said = answer_words(usefulness(results), results)
    assert "**The study cannot decide**: its segmenters were trained for 4 steps, fewer than 50." in said
    assert any("value.segmenter.steps" in step for step in next_words(usefulness(results), results, made(), "run"))
    assert "cannot decide" not in answer_words(usefulness(results), study(0.0))


def test_without_a_study_the_scans_are_not_measured_and_the_next_step_is_to_measure() -> None:
    assert answer_words(NOT_MEASURED, None).startswith("**NOT MEASURED: ")
    steps = next_words(NOT_MEASURED, None, made(), "run")
    assert "value.enabled=true" in steps[0]


def test_where_no_arm_had_scans_the_reason_is_told() -> None:
    rows = made_up({12: {"standard": 0.0}}, rng=np.random.default_rng(0), seeds=2)
    results = StudyResults(judge(rows, 0, 200), ValueConfig(seeds=2), {1: "CSF"}, {"test": 30})
    said = answer_words(usefulness(results), results)
    assert said.startswith("**NO EVIDENCE: ")
    assert said.endswith("No synthetic arm could be run, since no scan passed the filter.")


def test_next_steps_follow_the_word_and_the_seeds() -> None:
    use, harm = study(0.03), study(-0.03)
    steps = " ".join(next_words(usefulness(use), use, made(), "run7"))
    assert "Train with them as `standard+synthetic` did" in steps
    assert "--model run7/model" in steps
    assert "not tried" not in steps
    steps = " ".join(next_words(usefulness(harm), harm, made(), "run7"))
    assert "Train your segmenter by `standard`, without synthetic scans." in steps
    assert "Generators that were not tried: flow and spade" in steps
    assert "not tried" not in " ".join(next_words(usefulness(harm), harm, made(untried=()), "run7"))
    assert "value.seeds=5" not in steps
    few = study(-0.03, seeds=3)
    assert "3 trainings of each kind cannot show" in " ".join(next_words(usefulness(few), few, made(), "run7"))


def test_a_better_mixture_of_the_same_run_is_named_with_its_number() -> None:
    results = study(-0.03, other=-0.001)
    told = decisive(results)
    assert told is not None
    # The choice is made on validation subjects, of which there are none here: the first arm is the one that is told.
    assert told.arm == "standard+synthetic"
    steps = " ".join(next_words(usefulness(results), results, made(), "run"))
    best = next(item for item in results.judgement.comparisons if item.role == "other")
    assert f"`standard+deform` came off better on the test patients ({best.difference.estimate:+.3f}" in steps
    assert "came off better" not in " ".join(
        next_words(usefulness(study(-0.03, other=-0.06)), study(-0.03, other=-0.06), made(), "r")
    )


def test_reasons_are_what_was_seen() -> None:
    harm = study(-0.03)
    verdict = usefulness(harm)
    (quiet,) = why_words(verdict, harm, made())
    assert quiet.endswith("most samples were accepted, and how like real scans they are was not measured.")
    (quiet,) = why_words(verdict, harm, made(fidelity=FidelityResults((), {}, {}, 8, "auditors")))
    assert quiet.endswith("most samples were accepted, and no goal of likeness was clearly missed.")
    assert why_words(usefulness(study(0.03)), study(0.03), made()) == []
    assert "raised 2 alarms" in why_words(verdict, harm, made(alarms={"deform": 2}))[0]
    few = CandidatePool(made().pool.candidates[4:])
    (said,) = why_words(verdict, harm, made(pool=few))
    assert said.startswith("The filter accepted 2 of 6 samples of deform; most often failed: memorised (r with")
    assert said.endswith(", by 4.")
    interval = Interval(0.5, 0.4, 0.6, 9)
    missed = Measure("kid", interval, interval, 0.1, Interval(10.0, 9.0, 11.0, 9), goal=(-np.inf, 3.0))
    near = replace(missed, name="mmd", ratio=Interval(3.2, 2.0, 4.0, 9))
    item = Fidelity("deform", "held-out", 16, 20, 20, 20, (missed, near), ())
    likeness = FidelityResults((item,), {}, {"flow": 3}, 8, "auditors")
    reasons = why_words(verdict, harm, made(fidelity=likeness))
    # A goal whose interval crosses it is not named.
    assert reasons[0] == (
        "deform scans are not like real ones in how they look (kid: 10.000 times what two halves of the real scans "
        "reach; goal at most 3)."
    )
    assert reasons[1].startswith("flow has 3 accepted scans: too few")


def test_facts_follow_pool_and_audit() -> None:
    facts = made_facts(made())
    assert facts["synthetic scans"] == "6 accepted of 10 samples"
    assert facts["copies of patients"] == "none found by an audit that caught the planted ones"
    assert facts["may be shared"] == "deform: share"
    failed = made_facts(made(audit=replace(made().audit, problems=("no planted copy was found",))))
    assert "NOT valid" in failed["copies of patients"]
    item = replace(made().audit.backends["deform"], flagged={"s0": "a copy"})
    assert made_facts(made(audit=replace(made().audit, backends={"deform": item})))["copies of patients"].startswith(
        "1 f"
    )


def test_the_first_screen_has_its_colour_and_says_why_nothing_was_exported() -> None:
    for gain, level in ((0.03, "good"), (0.0, "neutral"), (-0.03, "bad")):
        results, report = study(gain), Report("run")
        opening(report, usefulness(results), results, made(refused="an audit failed"), "run")
        html = report.html()
        assert f'class="verdict {level}"' in html
        said = " ".join(texts(html))
        assert "an audit failed" in said
        assert "true differences of less than about" in said
    few, report = study(0.03, seeds=3), Report("run")
    opening(report, usefulness(few), few, made(), "run")
    # Too few trainings to say what would have been seen.
    assert "true differences" not in " ".join(texts(report.html()))
