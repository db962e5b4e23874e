"""Parts of a cohort: by subject, nested, and masks that count as unknown are gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from medgen.data.cases import Case, Manifest
from medgen.errors import DataError
from medgen.synthesis.cohort.split import CohortSplit, divide


def cohort(labelled: int = 20, unlabelled: int = 6) -> Manifest:
    cases = [
        Case(f"c{n}-{side}", f"s{n}", (Path(f"c{n}-{side}.nii"),), Path(f"m{n}-{side}.nii"))
        for n in range(labelled)
        for side in "ab"
    ]
    cases += [Case(f"u{n}", f"x{n}", (Path(f"u{n}.nii"),)) for n in range(unlabelled)]
    # A labelled subject with one more scan that has no mask.
    cases.append(Case("c0-c", "s0", (Path("c0-c.nii"),)))
    return Manifest("test", Path(), tuple(cases), {1: "one"})


def parts(**changes: object) -> CohortSplit:
    options: dict[str, object] = {"test": 0.4, "labelled_subjects": 5, "unlabelled_cases": None, "seed": 3, **changes}
    return divide(cohort(), **options)  # type: ignore[arg-type]


def test_parts_are_disjoint_by_subject_and_nothing_held_out_is_unlabelled() -> None:
    made = parts()
    assert len(made.labelled.subjects) == 5
    assert len(made.test.subjects) == 8
    groups = [set(part.subjects) for part in (made.labelled, made.unlabelled, made.test)]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]
    assert all(case.mask is None for case in made.unlabelled)
    assert all(case.mask is not None for case in (*made.labelled, *made.test))


def test_fewer_subjects_are_nested_and_leave_the_test_part_alone() -> None:
    made = parts()
    fewer = made.fewer(2)
    assert len(fewer.labelled.subjects) == 2
    assert set(fewer.labelled.subjects) < set(made.labelled.subjects)
    assert set(fewer.labelled.subjects) == set(parts(labelled_subjects=2).labelled.subjects)
    assert set(made.labelled.subjects) - set(fewer.labelled.subjects) <= set(fewer.unlabelled.subjects)
    assert all(case.mask is None for case in fewer.unlabelled)
    assert fewer.test == made.test


def test_all_subjects_and_limits() -> None:
    everyone = parts(labelled_subjects=None)
    assert len(everyone.labelled.subjects) == 12
    assert len(parts(unlabelled_cases=3).unlabelled) == 3
    assert len(parts(unlabelled_cases=0).unlabelled) == 0
    assert parts() == parts()
    assert parts(seed=4).test != parts().test


def test_impossible_wishes_are_refused() -> None:
    with pytest.raises(DataError, match="expected 2 to 12"):
        parts(labelled_subjects=13)
    with pytest.raises(DataError, match="has a mask"):
        divide(cohort().unlabelled(), test=0.5, labelled_subjects=None, unlabelled_cases=None, seed=0)


def test_validation_takes_the_last_subjects_and_changes_nobody_else() -> None:
    without, made = parts(labelled_subjects=4), parts(labelled_subjects=4, validation=0.2)
    assert made.test == without.test
    assert made.labelled == without.labelled
    assert len(made.validation.subjects) == 4
    assert set(made.validation.subjects) == set(parts(labelled_subjects=None).labelled.subjects) - set(
        parts(labelled_subjects=None, validation=0.2).labelled.subjects
    )
    assert not set(made.validation.subjects) & {*made.labelled.subjects, *made.unlabelled.subjects}
    assert all(case.mask is not None for case in made.validation)
    assert made.fewer(2).validation == made.validation
    assert sorted(made.held_out) == sorted([*made.test.subjects, *made.validation.subjects])
    assert list(made.named()) == ["labelled", "unlabelled", "validation", "test"]
    assert list(without.named()) == ["labelled", "unlabelled", "test"]
    with pytest.raises(DataError, match="4 for validation; expected 2 to 8"):
        parts(labelled_subjects=9, validation=0.2)


def test_folds_hold_every_subject_out_once() -> None:
    folds = [parts(fold=(number, 4), labelled_subjects=None) for number in range(4)]
    held_out = [subject for fold in folds for subject in fold.test.subjects]
    assert sorted(held_out) == sorted({case.subject for case in cohort().labelled()})
    for fold in folds:
        assert not set(fold.test.subjects) & (set(fold.labelled.subjects) | set(fold.unlabelled.subjects))
        assert len(fold.labelled.subjects) == 15


def test_two_labelled_subjects_are_too_few() -> None:
    with pytest.raises(DataError, match="2 labelled subjects; expected at least 3"):
        divide(cohort(2), test=0.5, labelled_subjects=None, unlabelled_cases=None, seed=0)
