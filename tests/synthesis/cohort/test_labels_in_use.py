"""Label numbers of a run: chosen, declared, partly annotated, large; each wrong wish is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from medgen import io
from medgen.data.cases import Case, Manifest
from medgen.data.layouts.detect import load_cohort
from medgen.errors import DataError
from medgen.faults import FaultyDataError
from medgen.synthesis.cohort.labels_in_use import Labelling, check_masks, labels_in_use, without_partial
from medgen.synthesis.cohort.split import CohortSplit, divide


def cohort(labels: dict[int, str], *annotated: str) -> Manifest:
    cases = [
        Case(f"c{n}", f"s{n}", (Path(f"c{n}.nii"),), Path(f"m{n}.nii"), {"annotated": text} if text else {})
        for n, text in enumerate(annotated)
    ]
    return Manifest("test", Path(), tuple(cases), labels)


def test_labels_are_those_wanted_else_declared_else_annotated() -> None:
    declared = cohort({2: "a", 7: "b", 30: "c", 31: "ignore"}, "", "2;7")
    assert labels_in_use(declared, ()) == (2, 7, 30)
    assert labels_in_use(declared, (30, 2)) == (2, 30)
    assert labels_in_use(cohort({}, "2; 9", "2"), ()) == (2, 9)
    assert labels_in_use(cohort({}, ""), ()) == ()
    assert labels_in_use(cohort({}, ""), (5,)) == (5,)


@pytest.mark.parametrize(
    ("manifest", "wanted", "text"),
    [
        (cohort({2: "a"}, ""), (3,), r"labels asks for 3; expected some of the cohort's labels \(2\)"),
        (cohort({}, ""), (0,), "labels asks for 0"),
        (cohort({2: "a", 5: "ignore"}, ""), (5,), "labels asks for 5"),
        (cohort({2: "a"}, "2;8"), (), "names label 8, which is not declared"),
        (cohort({2: "a", 5: "ignore"}, "", "2;5"), (), 'case c1: .* label 5, which stands for voxels to ignore.*"2"$'),
        (cohort({2: "a"}, "a"), (), "case c0: annotated 'a'"),
    ],
)
def test_wrong_wishes_are_refused(manifest: Manifest, wanted: tuple[int, ...], text: str) -> None:
    with pytest.raises(DataError, match=text):
        labels_in_use(manifest, wanted)


def test_partly_annotated_scans_keep_their_image_only_for_the_labels_they_lack() -> None:
    manifest = cohort({2: "a", 7: "b"}, "", "2", "2;7")
    assert [case.mask is None for case in without_partial(manifest, (2, 7))] == [False, True, False]
    assert [case.mask is None for case in without_partial(manifest, (2,))] == [False, False, False]
    seen = Labelling.of((2, 7), manifest.labels).apply(manifest)
    assert [case.mask is None for case in seen] == [False, True, False]
    assert seen.labels == {2: "a", 7: "b"}


def test_numbers_are_kept_up_to_255_and_counted_above() -> None:
    assert Labelling.of((7, 255), {}).original == {7: 7, 255: 255}
    assert Labelling.of((7, 256), {}).original == {1: 7, 2: 256}
    with pytest.raises(DataError, match="300 labels in use; expected 1 to 255"):
        Labelling.of(range(1, 301), {})
    with pytest.raises(DataError, match="0 labels in use"):
        Labelling.of((), {})


@pytest.fixture
def parts(tmp_path: Path, write_thick_slices: Callable[..., Path]) -> CohortSplit:
    manifest = load_cohort(write_thick_slices(tmp_path / "cohort", n=5))
    return divide(manifest, test=0.4, labelled_subjects=None, unlabelled_cases=None, seed=0)


def test_sound_masks_give_the_labels_in_use(parts: CohortSplit) -> None:
    seen: list[tuple[int, int]] = []
    assert check_masks(parts, {}, (), progress=lambda done, total: seen.append((done, total))) == (2, 7, 30)
    assert seen == [(number, 5) for number in range(1, 6)]
    assert check_masks(parts, {2: "a", 7: "b", 30: "c"}, (7,)) == (7,)


def test_voxels_to_ignore_need_a_declaration_of_what_is_complete(parts: CohortSplit) -> None:
    with pytest.raises(DataError, match=r"voxels to ignore \(label 30\).*column annotated"):
        check_masks(parts, {2: "a", 7: "b", 30: "ignore"}, (2, 7))


def test_wrong_masks_are_named_in_the_order_of_the_cases(parts: CohortSplit) -> None:
    with pytest.raises(FaultyDataError) as error:
        check_masks(parts, {2: "a", 7: "b", 30: "Ignore"}, ())
    names = [fault.file for fault in error.value.faults]
    assert len(names) == 5
    assert names == sorted(names)


def test_what_is_advised_for_voxels_to_ignore_is_enough(parts: CohortSplit) -> None:
    def told(manifest: Manifest) -> Manifest:
        return replace(manifest, cases=tuple(replace(case, attributes={"annotated": "2;7"}) for case in manifest))

    advised = CohortSplit(**{part.name: told(getattr(parts, part.name)) for part in fields(parts)})
    with pytest.raises(DataError, match='"2;7" for case'):
        check_masks(parts, {2: "a", 7: "b", 30: "ignore"}, ())
    assert check_masks(advised, {2: "a", 7: "b", 30: "ignore"}, ()) == (2, 7)


def test_a_label_that_only_the_test_part_has_cannot_be_learnt(parts: CohortSplit) -> None:
    for case in parts.labelled:
        mask = io.read(case.mask)
        io.write(mask.with_data(np.where(mask.data == 30, 7, mask.data)), case.mask)
    with pytest.raises(DataError, match=r"label 30 \(c\) in no mask of the 3 labelled training scans"):
        check_masks(parts, {2: "a", 7: "b", 30: "c"}, (2, 7, 30))
    assert check_masks(parts, {2: "a", 7: "b", 30: "c"}, (2, 7)) == (2, 7)


def test_masks_are_read_with_the_numbers_in_use(parts: CohortSplit) -> None:
    case = parts.labelled.cases[0]
    plain = case.read_mask()
    mapped = replace(case, relabel={2: 1, 30: 2}).read_mask()
    assert plain is not None
    assert mapped is not None
    assert np.array_equal(mapped.data == 1, plain.data == 2)
    assert np.array_equal(mapped.data == 2, plain.data == 30)
    assert np.array_equal(mapped.data == 0, np.isin(plain.data, (0, 7)))
