"""Scans that a model knows are told of when they are scored, and refused where others are needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from medgen.data.cases import Case, Manifest
from medgen.errors import AuditError
from medgen.models.artifact import TrainedModel
from medgen.pipelines.anomaly.known_scans import check_strangers, inputs_of, known_scans, learnt_words
from medgen.preprocessing.recipe import Preprocess
from medgen.training.transfer.source import Lineage, recorded

META = {
    "inputs": {"anna": {"image": "aa;bb", "mask": "cc"}},
    "adapted": [{"inputs": {"ben": {"image": "dd"}}}],
    **recorded(Lineage(files=frozenset({"aa", "dd", "ee"}))),
}
MODEL = TrainedModel([], Preprocess(shape=(8, 8, 8), spacing=(1, 1, 1)), meta=META)
WHICH = {
    "bb": "anna of the scans that the model was made from",
    "dd": "ben of the scans that the model was adapted with",
    "ee": "one of the scans that the model has learnt from",
}


def test_scores_and_adaptation_know_the_same_scans() -> None:
    read = {name: {"image T1": name} for name in (*WHICH, "cc", "ff")}
    assert [text.split(":")[0] for text in learnt_words(read, known_scans(MODEL))] == [
        f"{n} is {w}" for n, w in WHICH.items()
    ]
    for digest in read:
        case = Case("new", "new", (Path("new.nii"),), sha256={"new.nii": digest})
        manifest = Manifest("site", Path(), (case,))
        assert inputs_of(manifest, ["new"]) == {"new": {"image": digest}}
        if digest in WHICH:
            with pytest.raises(AuditError, match=f"new.nii: is {WHICH[digest]}; expected healthy scans of other"):
                check_strangers(MODEL, manifest)
        else:
            check_strangers(MODEL, manifest)


def test_many_known_scans_are_told_of_in_one_sentence() -> None:
    known = {str(number): f"case {number} of the scans that the model was made from" for number in range(9)}
    read = {f"scan-{number}": {"image": str(number)} for number in range(12)}
    assert learnt_words(read, known) == [
        "9 of 12 scans are known to the model (scan-0, scan-1, scan-2 and 6 more), which has learnt from them: their "
        "p-values and findings do not hold; the run's own report has what is known of them."
    ]
    assert len(learnt_words(dict(list(read.items())[:3]), known)) == 3
