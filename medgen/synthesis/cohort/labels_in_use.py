"""Which label numbers a run uses: a choice among the cohort's own, partial annotations, and numbers that fit a byte."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace

from medgen.data.annotation import annotated_labels, annotation_faults, listed, structures, unlike_binary_masks
from medgen.data.cases import Case, Manifest
from medgen.data.integrity import mask_faults, mixed_channels
from medgen.errors import DataError
from medgen.faults import Fault, FaultyDataError
from medgen.progress import Progress
from medgen.synthesis.cohort.split import CohortSplit
from medgen.system.processes import thread_pool
from medgen.volume import Volume

_BYTE = 255


@dataclass(frozen=True)
class Labelling:
    """The labels of a run.

    Attributes:
        names: Number in use → name.
        original: Number in use → number in the mask files. They differ only where a number is above 255.
    """

    names: Mapping[int, str]
    original: Mapping[int, int]

    @classmethod
    def of(cls, numbers: Collection[int], names: Mapping[int, str]) -> Labelling:
        """Keep the numbers if they fit a byte; number them 1 to n in ascending order if one is above 255.

        Raises:
            DataError: If there are none, or more than 255.

        >>> Labelling.of([30, 1035], {1035: "insula"})
        Labelling(names={1: 'label 30', 2: 'insula'}, original={1: 30, 2: 1035})
        """
        ordered = sorted(set(numbers))
        if not ordered or len(ordered) > _BYTE:
            raise DataError(f"{len(ordered)} labels in use; expected 1 to {_BYTE}; choose with the key labels")
        own = ordered if ordered[-1] <= _BYTE else range(1, len(ordered) + 1)
        original = dict(zip(own, ordered, strict=True))
        return cls({mine: names.get(file, f"label {file}") for mine, file in original.items()}, original)

    def apply(self, manifest: Manifest) -> Manifest:
        """The cohort as the run sees it: masks read with the numbers in use, incompletely annotated ones taken away.

        What is not in use counts as background. A scan whose ``annotated`` column lacks a label in use would teach
        that the structure is absent, so that it lends its image only.
        """
        relabel = {file: mine for mine, file in self.original.items()}
        complete = without_partial(manifest, relabel)
        cases = tuple(case if case.mask is None else replace(case, relabel=relabel) for case in complete)
        return replace(complete, cases=cases, labels=dict(self.names))


def labels_in_use(manifest: Manifest, wanted: Sequence[int]) -> tuple[int, ...]:
    """The label numbers that were asked for, else those that the cohort declares; empty if it declares none.

    Raises:
        DataError: If a wanted label is 0, negative or not declared, or a column ``annotated`` names no structures.
    """
    annotated = {number for case in manifest for number in annotated_labels(case) or ()}
    known = set(structures(manifest.labels)) or annotated
    if faults := annotation_faults(manifest.cases, manifest.labels):
        raise FaultyDataError(faults)
    wrong = sorted(number for number in wanted if number < 1 or (known and number not in known))
    if wrong:
        raise DataError(
            f"{manifest.name}: labels asks for {wrong[0]}; expected some of the cohort's labels "
            f"({listed(known) or 'numbers of 1 and more'}); correct the key labels"
        )
    return tuple(sorted(set(wanted) or known))


def without_partial(manifest: Manifest, labels: Collection[int]) -> Manifest:
    """The cohort without the masks of scans in which not every one of these labels was annotated."""
    cases = []
    for case in manifest:
        annotated = annotated_labels(case)
        partial = annotated is not None and not set(labels) <= annotated
        cases.append(replace(case, mask=None) if partial else case)
    return replace(manifest, cases=tuple(cases))


def check_masks(
    parts: CohortSplit,
    declared: Mapping[int, str],
    labels: Sequence[int],
    *,
    workers: int = 2,
    progress: Progress | None = None,
) -> tuple[int, ...]:
    """Read every mask that will be used, before anything is trained, and refuse wrong ones, all of them at once.

    A scan that cannot be read may be left out of a run; one whose labels are wrong must not be left out silently, nor
    taught. Masks of unlabelled parts are not read.

    Args:
        parts: The run's split of the cohort, with label numbers as in the files.
        declared: The cohort's label names; empty declares nothing.
        labels: Labels in use; empty for all that occur in training masks.
        workers: Threads.
        progress: Called with (scans done, scans).

    Returns:
        The labels in use.

    Raises:
        FaultyDataError: Naming every mask that is on another grid, fractional, negative, undeclared, empty or has
            voxels to ignore, every scan with an unusual number of channels, and every label that no training mask has.
    """
    everything = [case for part in fields(parts) for case in getattr(parts, part.name)]
    # As the cohort has them: parts are drawn, and whoever corrects masks goes through them by name.
    everything.sort(key=lambda case: case.id)
    cases = [case for case in everything if case.mask is not None]
    faults: list[Fault] = []
    channels: list[tuple[Case, int]] = [(case, _channels(case, None)) for case in everything if case.mask is None]
    held: list[tuple[Case, tuple[int, ...]]] = []
    trained: set[int] = set()
    learners, count = set(parts.labelled.subjects), 0
    with thread_pool(workers) as pool:
        for case, (read, found, values) in zip(cases, pool.map(lambda case: _look(case, declared), cases), strict=True):
            faults += found
            channels.append((case, _channels(case, read)))
            held.append((case, values))
            if case.subject in learners:
                trained.update(values)
            count += 1
            if progress is not None:
                progress(count, len(cases))
    faults += mixed_channels(channels) + unlike_binary_masks(held, declared)
    used = tuple(sorted(labels or trained - (set(declared) - set(structures(declared)))))
    where = str(parts.labelled.root)
    # Only where the masks themselves are sound: a mask that could not be read may be the one that has the label.
    if not faults:
        faults += [
            Fault(
                where,
                f"label {number} ({declared.get(number, 'unnamed')}) in no mask of the {len(parts.labelled)} "
                "labelled training scans",
                "every label in use in at least one",
                "add subjects that have it, or leave it out with the key labels",
            )
            for number in used
            if number not in trained
        ]
    if faults:
        raise FaultyDataError(faults)
    return used


def _look(case: Case, declared: Mapping[int, str]) -> tuple[int | None, list[Fault], tuple[int, ...]]:
    """Channels of the image (None if it cannot be read), and faults and label numbers of the mask."""
    image: Volume | None = None
    # Preparing the scan will say what is wrong with the image; the mask is looked at all the same.
    with suppress(DataError):
        image = case.read_image()
    faults, values = mask_faults(case, image, declared)
    return None if image is None else len(image.data), faults, values


def _channels(case: Case, read: int | None) -> int:
    return read if read is not None else int(case.attributes.get("channels") or len(case.images))
