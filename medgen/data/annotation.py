"""What of a scan was annotated: labels that are complete in it, and nnU-Net's number for voxels that nobody judged."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from medgen.data.cases import Case
from medgen.faults import Fault, fail
from medgen.system.advice import setting

# Column of a manifest (or of subjects.csv) with the label numbers that were annotated in a scan, joined by ";".
ANNOTATED = "annotated"
# Name of nnU-Net's label for voxels without annotation.
IGNORE = "ignore"
# What programs that store pictures write for "yes".
_WHITE = frozenset({255, 32767, 65535})


def annotated_labels(case: Case) -> frozenset[int] | None:
    """The labels that were annotated in a scan, of its column ``annotated``; None if it does not say: all of them.

    Raises:
        FaultyDataError: If the column is not numbers joined by ``;``.
    """
    text = case.attributes.get(ANNOTATED, "").strip()
    if not text:
        return None
    try:
        return frozenset(int(number) for number in text.replace(",", ";").split(";") if number.strip())
    except ValueError:
        raise fail(f"case {case.id}", f"{ANNOTATED} {text!r}", 'label numbers such as "2;7"', "correct it") from None


def structures(labels: Mapping[int, str]) -> dict[int, str]:
    """The declared labels that are structures: the number of voxels to ignore is none.

    >>> structures({1: "a", 2: "ignore"})
    {1: 'a'}
    """
    return {number: name for number, name in labels.items() if name.lower() != IGNORE}


def annotation_faults(cases: Sequence[Case], labels: Mapping[int, str]) -> list[Fault]:
    """What is wrong with the column ``annotated``: numbers that are no structures of the cohort.

    Args:
        cases: Whose columns are looked at.
        labels: Declared label numbers; empty declares nothing.

    Returns:
        One fault for each wrong number, which names the first case that has it.

    Raises:
        FaultyDataError: As :func:`annotated_labels`.
    """
    own = structures(labels)
    wrong: dict[int, list[Case]] = {}
    for case in cases if own else ():
        for number in sorted((annotated_labels(case) or frozenset()) - set(own)):
            wrong.setdefault(number, []).append(case)
    faults = []
    for number, having in sorted(wrong.items()):
        more = f" (and {len(having) - 1} more cases)" if len(having) > 1 else ""
        if number in labels:
            what = f"which stands for voxels to ignore{more}"
            action = f'write those that are complete in the scan, such as "{_joined(own)}"'
        else:
            what = f"which is not declared{more}"
            action = "correct the column, or declare it (cohort.labels)"
        text = f"the column {ANNOTATED} names label {number}, {what}"
        expected = f"some of the declared labels ({listed(own)})"
        faults.append(Fault(f"case {having[0].id}", text, expected, action))
    return faults


def ignored_faults(case: Case, values: Collection[int], labels: Mapping[int, str]) -> list[Fault]:
    """A fault where a mask has voxels to ignore and nothing says which labels are complete all the same.

    Where the column says it, such voxels belong to none of these labels and count as background.

    Args:
        case: With a mask.
        values: Label numbers of the mask.
        labels: Declared label numbers.
    """
    own = structures(labels)
    ignored = sorted(set(values) & (set(labels) - set(own)))
    if not ignored or annotated_labels(case) is not None:
        return []
    action = (
        f"complete it, or list the labels that are complete in a column {ANNOTATED} of subjects.csv (case, subject, "
        f'{ANNOTATED}) or of the manifest, such as "{_joined(own)}" for case {case.id}'
    )
    return [Fault(str(case.mask), f"voxels to ignore (label {ignored[0]})", "a complete annotation", action)]


def unlike_binary_masks(masks: Sequence[tuple[Case, Collection[int]]], labels: Mapping[int, str]) -> list[Fault]:
    """A fault for masks of 0 and 255 among masks of 0 and 1: one structure that would count as two.

    Args:
        masks: Cases with the label numbers of their masks.
        labels: Declared label numbers; who declares both numbers means two structures.
    """
    masks = [(case, values) for case, values in masks if values]
    numbers = Counter(number for _, values in masks for number in values)
    if any(len(values) > 1 for _, values in masks) or 1 not in numbers or set(numbers) - {1, *_WHITE} or labels:
        return []
    usual = max(numbers, key=lambda number: (numbers[number], -number))
    names = json.dumps({str(number): f"structure {number}" for number in sorted(numbers)})
    action = f"store both in the same way; if they are two structures, say so: {setting('labels', names)}"
    return [
        Fault(str(case.mask), f"0 and {number}", f"0 and {usual} as in {numbers[usual]} other masks", action)
        for case, values in masks
        for number in values
        if number != usual
    ]


def listed(numbers: Collection[int]) -> str:
    """Label numbers for a sentence, the first ones where there are many."""
    some = sorted(numbers)
    return ", ".join(map(str, some[:12])) + (", ..." if len(some) > 12 else "")


def _joined(numbers: Collection[int]) -> str:
    return ";".join(map(str, sorted(numbers)))
