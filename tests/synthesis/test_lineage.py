"""Nobody stands on both sides: every rule, and what its error names."""

from __future__ import annotations

from pathlib import Path

import pytest

from medgen.data.cases import Case, Manifest
from medgen.errors import AuditError, DataError
from medgen.synthesis.lineage import (
    HeldOut,
    RunSplits,
    guard,
    guard_masks,
    guard_parts,
    guard_reference,
    guard_split,
    read_origin,
)

SPLITS = RunSplits(
    Path("run/splits.csv"),
    {"a-1": "labelled", "b-1": "unlabelled", "c-1": "test", "d-1": "validation"},
    {"a-1": "a", "b-1": "b", "c-1": "c", "d-1": "d"},
)


def case(name: str, subject: str, digest: str) -> Case:
    return Case(name, subject, (Path(f"{name}.nii.gz"),), sha256={"image": digest})


def held_out() -> HeldOut:
    parts = {"labelled": case("a-1", "a", "1"), "validation": case("d-1", "d", "4"), "test": case("c-1", "c", "3")}
    return HeldOut({name: Manifest(name, Path(), (item,)) for name, item in parts.items()})


def test_what_is_apart_passes() -> None:
    guard(["a-1"], ["a-1", "b-1"])
    guard_split(["a"], ["c"])
    guard_reference(["a"], ["c"])
    guard_parts("training", ["a"], "test", ["c"])
    guard_masks("elsewhere", ["a"], ["a", "b"])
    SPLITS.refuse_training(["a-1", "b"])
    SPLITS.refuse_validation(["c", "d-1"])
    SPLITS.refuse_study(["c", "d"])
    SPLITS.refuse_parents("syn-1", ["a-1", "b"])
    held_out().refuse(case("syn-1", "syn-1", "9"), ["a-1", "a"], "syn-1")
    assert SPLITS.taught == {"a": "labelled", "b": "unlabelled"}
    assert SPLITS.held_out == {"c", "c-1", "d", "d-1"}


@pytest.mark.parametrize(
    ("refused", "error", "message"),
    [
        (lambda: guard(["a-1", "x"], ["a-1"]), AuditError, "parent 'x', which is not a training case"),
        (lambda: guard_split(["a", "c"], ["c"]), AuditError, "'c' is both learnt from and held out for testing"),
        (lambda: guard_reference(["a"], ["a"]), DataError, "'a' is both learnt from and held out; the audit"),
        (lambda: guard_parts("training", ["a"], "test", ["a"]), AuditError, "'a' is in the training and in the test"),
        (lambda: guard_masks("x", ["a", "b"], ["a"]), AuditError, "x: its generator saw the masks of 2 .*'b' among"),
        (lambda: SPLITS.refuse_training(["a", "c"]), AuditError, r"'c' is held out in run/splits.csv.*\(1 such\)"),
        (lambda: SPLITS.refuse_validation(["b-1", "c"]), AuditError, "'b-1' is to be validated on"),
        (lambda: SPLITS.refuse_study(["b", "c"]), AuditError, "run: its generators learnt from subject 'b'"),
        (lambda: SPLITS.refuse_parents("syn", ["c-1"]), AuditError, "run: synthetic scan syn has the parent 'c-1'"),
    ],
)
def test_who_is_on_both_sides_is_named(refused, error, message) -> None:
    with pytest.raises(error, match=message):
        refused()


@pytest.mark.parametrize(
    ("made", "parents", "message"),
    [
        (case("syn", "syn", "9"), ["c-1"], "HERE was made from c-1, which is in the test part"),
        (case("syn", "syn", "9"), ["d"], "HERE was made from d, which is in the validation part"),
        (case("syn", "c", "9"), [], "HERE bears the name of 'c' of the test part"),
        (case("d-1", "syn", "9"), [], "HERE bears the name of 'd-1' of the validation part"),
        (case("syn", "syn", "3"), [], "HERE holds a file of c-1 of the test part"),
    ],
)
def test_a_scan_made_of_held_out_ones_is_refused_under_any_name(made, parents, message) -> None:
    with pytest.raises(AuditError, match=message):
        held_out().refuse(made, parents, "HERE")


def test_splits_are_read_or_refused(tmp_path) -> None:
    path = tmp_path / "splits.csv"
    path.write_text("case,subject,part\na-1,a,labelled\nc-1,c,test\n")
    assert read_origin(path).learnt == {"a", "a-1"}
    path.write_text("case,part\na-1,labelled\n")
    with pytest.raises(DataError, match="expected case, subject and part"):
        read_origin(path)
