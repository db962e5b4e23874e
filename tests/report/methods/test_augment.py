"""What is said of synthetic scans and of the study follows settings and results."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from medgen.data.cases import Case, Manifest
from medgen.report.methods import augment
from medgen.report.methods.text import MethodsText
from medgen.segmentation.segmenter import SegmenterConfig
from medgen.synthesis.cohort.consensus import ConsensusConfig
from medgen.synthesis.fidelity.comparison import FidelityConfig
from medgen.synthesis.filtering.filter import FilterConfig, FilterResult
from medgen.synthesis.filtering.pool import Candidate, CandidatePool
from medgen.synthesis.value.config import ValueConfig


def told(tell, *arguments) -> str:
    text = MethodsText("Methods")
    tell(text, *arguments)
    return text.markdown


def backend(name: str, **families: str) -> SimpleNamespace:
    return SimpleNamespace(name=name, families=families)


def pool(**accepted: tuple[int, int]) -> CandidatePool:
    """By backend, how many samples passed, and how many did not."""
    made = []
    for name, (good, bad) in accepted.items():
        results = [*[FilterResult(True, {}, {}, "")] * good, *[FilterResult.unusable("no")] * bad]
        made += [Candidate(f"{name}-{number}", None, result, name, number) for number, result in enumerate(results)]
    return CandidatePool(tuple(made))


def test_parts_and_labels(tmp_path):
    cases = tuple(Case(id=f"c{number}", subject=f"s{number}", images=(Path("x"),)) for number in range(5))
    named = {"labelled": Manifest("a", tmp_path, cases[:4]), "test": Manifest("b", tmp_path, cases[4:])}
    said = told(augment.parts, {**named, "unlabelled": Manifest("c", tmp_path, ())}, {1: "CSF", 7: "lesion"}, 1)
    assert "labelled: 4 scans of 4 subjects; test: 1 scan of 1 subject)" in said
    assert "unlabelled" not in said
    assert "1 CSF and 7 lesion" in said
    assert "1 scan could not be prepared" in said
    assert "could not" not in told(augment.parts, named, {1: "CSF"}, 0)


def test_inferred_labels_are_told_only_where_scans_got_some():
    none = SimpleNamespace(scans=None, members=None, left_out=())
    assert "consensus" not in told(augment.inferred_labels, ConsensusConfig(), none)
    some = SimpleNamespace(scans=SimpleNamespace(ids=("a", "b")), members=object(), left_out=("c",))
    said = told(augment.inferred_labels, ConsensusConfig(members=3), some)
    assert "2 unlabelled scans got labels by the consensus of 3 segmenters" in said
    assert "1 on which they agree less" in said
    assert "noisy student" not in said
    assert "in 2 rounds" in told(augment.inferred_labels, ConsensusConfig(rounds=2), some)
    assert "noisy student" in told(augment.inferred_labels, ConsensusConfig(rounds=2), some)


def test_generators_cite_what_they_follow_and_nothing_else():
    said = told(augment.generators, [backend("shape+spade", labels="maskvae", painter="spade")], ("few scans.",))
    assert "`shape+spade`" in said
    assert "few scans." in said
    assert "Park et al." in said
    assert "Skandarani et al." in said
    assert "Zhao et al." not in said
    moved = told(augment.generators, [backend("deform")], ())
    assert "Zhao et al." in moved
    assert "Park et al." not in moved
    assert "chosen by" not in moved


def test_samples_are_counted_and_the_bounds_are_those_of_the_filter():
    backends = [backend("deform"), backend("joint")]
    said = told(augment.accepted, FilterConfig(volume_sd=2.5), pool(deform=(3, 2), joint=(0, 4)), backends)
    assert "3 of 5 by `deform` and 0 of 4 by `joint`" in said
    assert "volumes within 2.5" in said
    assert "percentile 5 of real scans" in said


def test_the_audit_says_whether_it_is_valid_and_every_stamp():
    def audit(*problems):
        stamps = {"deform": SimpleNamespace(stamp="internal use only"), "joint": SimpleNamespace(stamp="share")}
        return SimpleNamespace(training=(5, 6), held_out=(1, 2), problems=problems, valid=not problems, backends=stamps)

    said = told(augment.audited, audit())
    assert "6 scans of 5 training subjects and 2 scans of 1 held-out subject" in said
    assert "valid by its controls" in said
    assert "`deform` internal use only and `joint` share" in said
    assert "not valid (copies were missed)" in told(augment.audited, audit("copies were missed"))


def test_likeness_is_told_with_neighbours_and_splits():
    said = told(augment.compared, FidelityConfig(k=7, splits=33))
    assert "with 7 neighbours" in said
    assert "in 33 splits" in said


def test_the_study_is_told_with_arms_segmenter_and_verdict():
    judged = SimpleNamespace(
        comparisons=[
            SimpleNamespace(role="other", sentence="NO EVIDENCE: another"),
            SimpleNamespace(role="verdict", sentence="USE: it helped"),
        ]
    )
    config = ValueConfig(
        seeds=4,
        arms=("real", "carvemix", "carvemix+synthetic"),
        segmenter=SegmenterConfig(steps=321, channels=(8, 24)),
        tolerance_mm=2.5,
        bootstrap=777,
        p_synthetic=0.25,
    )
    said = told(augment.study, config, judged, {"test": 20, "validation": 3})
    for words in (
        "widths 8, 24",
        "321 steps",
        "4 seeds",
        "20 test and 3 validation subjects",
        "at 2.5 mm",
        "777 resamples",
        "probability 0.25",
        "Arm `carvemix`",
        "Zhang et al.",
        "USE: it helped.",
    ):
        assert words in said
    assert "NO EVIDENCE" not in said
    assert "Arm `standard`" not in said
    assert "Arm `carvemix+synthetic`" not in said
