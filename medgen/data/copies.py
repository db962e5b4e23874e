"""Scans that are counted twice, and label maps that are counted as scans: told by comparing what files hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from medgen.data.cases import Case
from medgen.data.content import Traits, is_copy, perhaps_copies, stripped_to
from medgen.faults import Fault
from medgen.system.advice import apart, glob_like, setting


@dataclass(frozen=True)
class Seen:
    """A case that was looked at.

    Attributes:
        case: The case; it may have several images, one per channel.
        traits: What is compared of its first channel: grid, intensities and whether they are labels.
        content: Hash of its voxels.
    """

    case: Case
    traits: Traits
    content: str


def likely_copies(seen: Sequence[Seen]) -> list[tuple[Seen, Seen]]:
    """Pairs of scans of which the first may be a copy of the second; label maps are none."""
    scans = [item for item in seen if not item.traits.labels]
    return [(scans[copy], scans[whole]) for copy, whole in perhaps_copies([item.traits for item in scans])]


def doubles(seen: Sequence[Seen], pairs: Sequence[tuple[Seen, Seen]]) -> list[Fault]:
    """One scan under two subjects: a split could put it on both sides.

    Equal voxels are one scan, and so are those that differ in the order in which they are stored, in a scale or by
    rounding.

    Args:
        seen: Every case.
        pairs: Likely copies and their originals, as :func:`likely_copies` gives them.
    """
    groups: dict[str, list[Case]] = defaultdict(list)
    for item in seen:
        groups[item.content].append(item.case)
    faults = []
    for cases in groups.values():
        if len({case.subject for case in cases}) > 1:
            first, *others = cases
            shown = ", ".join(f"{case.id} (subject {case.subject})" for case in others[:4])
            faults.append(_double(first, f"the same voxels as {shown}"))
    order = {id(item): place for place, item in enumerate(seen)}
    for other, one in pairs:
        if order[id(one)] > order[id(other)] or one.case.subject == other.case.subject or one.content == other.content:
            continue
        if is_copy(other.traits, one.traits):
            name = f"{other.case.id} (subject {other.case.subject})"
            faults.append(_double(one.case, f"the same scan as {name}, stored in another way (orientation or scale)"))
    return faults


def _double(case: Case, found: str) -> Fault:
    text, action = f"{found}, but subject {case.subject}", "remove the copies, or give them one subject"
    return Fault(str(case.images[0]), text, "different scans for different subjects", action)


def label_maps(seen: Sequence[Seen]) -> list[Fault]:
    """Label maps that are counted as further scans: told by the scans on the same grid."""
    faults = []
    scans = [item for item in seen if not item.traits.labels]
    for item in seen:
        own = item.traits
        beside = [other.case for other in scans if other.traits.grid.same_as(own.grid)] if own.labels else []
        if beside:
            case = item.case
            near = max(beside, key=lambda other: SequenceMatcher(None, other.id, case.id).ratio())
            name, scan = apart(case.images[0], near.images[0])
            text = f"few whole numbers on the grid of {scan}, as a label map has, but counted as a scan"
            images, masks = glob_like(near.images[0].name), glob_like(case.images[0].name)
            patterns = f"for example {setting('images', images)} {setting('masks', masks)}"
            if not ("*" in images and "*" in masks and case.images[0].parent == near.images[0].parent):
                patterns = "patterns for images and masks"
            if images == masks:
                patterns = "or name masks after their scans, <scan>_mask"
            action = (
                f"if it is the mask of a scan, say which files are which, {patterns}; if it belongs to no scan, leave "
                f"it out: {setting('leave_out', name)}"
            )
            faults.append(Fault(str(case.images[0]), text, "scans only", action))
    return faults


def stripped_copies(pairs: Sequence[tuple[Seen, Seen]]) -> list[Fault]:
    """Copies without skull, or otherwise emptied around, that are counted as further scans.

    Args:
        pairs: Likely copies and their originals, as :func:`likely_copies` gives them.
    """
    faults = []
    for copy, whole in pairs:
        around = stripped_to(copy.traits, whole.traits)
        if around is not None:
            name, scan = apart(copy.case.images[0], whole.case.images[0])
            nothing = "zeros" if around == 0 else f"{around:g}"
            text = f"the same scan as {scan} with {nothing} around, but counted as another scan"
            action = f"keep one of them, for example leave this one out: {setting('leave_out', name)}"
            faults.append(Fault(str(copy.case.images[0]), text, "one copy of each scan", action))
    return faults
