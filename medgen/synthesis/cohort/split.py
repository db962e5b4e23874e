"""Who is tested, who is labelled, and who only lends images: the parts of a synthesis run, by subject."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medgen.data.cases import Case, Manifest, kfold_subjects, split_subjects
from medgen.errors import DataError
from medgen.seeds import derive


@dataclass(frozen=True)
class CohortSplit:
    """A cohort divided by subject into training, test and validation cases; no subject is in two parts.

    Attributes:
        labelled: Training cases with masks.
        unlabelled: Training cases of further subjects; their masks, where there are any, have been taken away.
        test: Held-out cases with masks, for the proof.
        validation: Held-out cases with masks of further subjects, on which choices are made; may be empty.
    """

    labelled: Manifest
    unlabelled: Manifest
    test: Manifest
    validation: Manifest = field(default_factory=lambda: Manifest("validation", Path(), ()))

    @property
    def held_out(self) -> list[str]:
        """Subjects that nothing may learn from."""
        return [*self.test.subjects, *self.validation.subjects]

    def named(self) -> dict[str, Manifest]:
        """The parts by name, without empty validation."""
        parts = {"labelled": self.labelled, "unlabelled": self.unlabelled}
        return parts | ({"validation": self.validation} if len(self.validation) else {}) | {"test": self.test}

    def fewer(self, subjects: int) -> CohortSplit:
        """The same with the first ``subjects`` labelled subjects only; the others' images become unlabelled."""
        kept = set(ordered(self.labelled)[:subjects])
        rest = [replace(case, mask=None) for case in self.labelled if case.subject not in kept]
        return CohortSplit(
            labelled=_with(self.labelled, [case for case in self.labelled if case.subject in kept]),
            unlabelled=replace(self.unlabelled, cases=(*rest, *self.unlabelled.cases)),
            test=self.test,
            validation=self.validation,
        )


def divide(
    manifest: Manifest,
    *,
    test: float,
    labelled_subjects: int | None,
    unlabelled_cases: int | None,
    seed: int,
    validation: float = 0.0,
    fold: tuple[int, int] | None = None,
) -> CohortSplit:
    """Split a cohort.

    Args:
        manifest: The cohort; cases without masks are used as unlabelled ones.
        test: Share of the subjects with masks that is held out.
        labelled_subjects: Subjects whose masks may be used; None for all that are not held out. The other training
            subjects count as unlabelled: their masks are never read.
        unlabelled_cases: Most unlabelled cases; None for all, 0 for none.
        seed: Seed of the run, from which every random stream is derived.
        validation: Share of the subjects with masks that is held out for choices, rounded. They are the last ones in
            the order in which subjects become labelled, so that the test part and the first labelled subjects do not
            depend on it.
        fold: (k, n) holds out the k-th of n folds instead of the share ``test``; equal seeds give equal folds.

    Raises:
        DataError: If there are too few subjects with masks.
    """
    with_masks = manifest.labelled()
    if not len(with_masks):
        raise DataError(
            f"{manifest.root}: none of {len(manifest)} scans has a mask; augmentation by synthesis needs labelled "
            "scans: add masks, such as labels/<case>.nii.gz, or name them in the column mask of a manifest.csv"
        )
    if len(with_masks.subjects) < 3:
        raise DataError(
            f"{manifest.name}: {len(with_masks.subjects)} labelled subjects; expected at least 3, two to learn from "
            "and one held out for testing; add labelled subjects"
        )
    if fold is None:
        split = split_subjects(with_masks, {"train": 1 - test, "test": test}, seed)
        train, tested = split["train"], split["test"]
    else:
        train, tested = kfold_subjects(with_masks, fold[1], seed)[fold[0]]
    held_out = set(tested.subjects)
    order = ordered(train, seed)
    choosing = round(validation * len(with_masks.subjects))
    order, last = order[: len(order) - choosing], order[len(order) - choosing :]
    wanted = len(order) if labelled_subjects is None else labelled_subjects
    if wanted > len(order) or wanted < 2:
        raise DataError(
            f"{manifest.name}: {wanted} labelled training subjects wanted, {len(order)} are there after "
            f"{len(held_out)} were held out for testing and {choosing} for validation; expected 2 to {len(order)}: "
            "change labelled_subjects, test or validation"
        )
    held_out |= set(last)
    kept = set(order[:wanted])
    others = [
        replace(case, mask=None) for case in manifest if case.subject not in kept and case.subject not in held_out
    ]
    others.sort(key=lambda case: (derive(seed, "unlabelled", case.id), case.id))
    cases = [case for name in order[:wanted] for case in train if case.subject == name]
    return CohortSplit(
        labelled=_with(manifest, cases),
        unlabelled=_with(manifest, others if unlabelled_cases is None else others[:unlabelled_cases]),
        test=tested,
        validation=_with(manifest, [case for case in train if case.subject in set(last)]),
    )


def ordered(manifest: Manifest, seed: int | None = None) -> list[str]:
    """Subjects in the order in which they become labelled; without a seed, in the manifest's order."""
    if seed is None:
        return list(dict.fromkeys(case.subject for case in manifest))
    return sorted(manifest.subjects, key=lambda name: (derive(seed, "labelled", name), name))


def _with(manifest: Manifest, cases: Sequence[Case]) -> Manifest:
    return replace(manifest, cases=tuple(cases))
