"""What the files of one DICOM series must have in common, and how many there should be."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from medgen.faults import Fault
from medgen.io.dicom.header import Header

# Differences in these mean several volumes in one series, or values that cannot be compared.
_ALWAYS = (
    "patients",
    "studies",
    "modalities",
    "classes of object",
    "patient positions",
    "units of values",
    "tube voltages",
    "frames of reference",
    "values of BitsAllocated",
    "values of PixelRepresentation",
    "photometric interpretations",
    "echo times",
    "time points",
    "b-values",
    "reconstruction kernels",
    "stacks",
    "image types (magnitude, phase)",
    "kinds of image (localizer and not)",
    "ways to rescale values (with and without slope or intercept)",
)
# These differ from slice to slice in sound series too: they only explain why a place is taken twice.
_EXPLAIN = ("acquisition numbers", "flip angles", "inversion times", "trigger times", "acquisition times")


def grouped(headers: Sequence[Header], source: str) -> list[Fault]:
    """The faults of single files, one for all files that share it."""
    groups: dict[tuple[str, str, str], list[Header]] = defaultdict(list)
    for header in headers:
        for fault in header.faults:
            groups[fault.found, fault.expected, fault.action].append(header)
    faults = []
    for (found, expected, action), members in groups.items():
        if len(members) == 1:
            faults.append(Fault(str(members[0].path), found, expected, action))
        else:
            where = f" in {len(members)} of {len(headers)} files, first {members[0].path.name}"
            faults.append(Fault(source, found + where, expected, action))
    return faults


def mixed(headers: Sequence[Header], source: str) -> tuple[list[Fault], str]:
    """Faults for what differs within a series and must not, and what else differs, in words."""
    faults = []
    for name in _ALWAYS:
        count = _kinds([trait[name] for header in headers for trait in header.traits if name in trait])
        if count > 1:
            action = "separate them into folders, or export the series again"
            faults.append(Fault(source, f"{count} {name} in one series", "one volume, measured one way", action))
    explain = []
    for name in _EXPLAIN:
        values = [trait[name] for header in headers for trait in header.traits if name in trait]
        count = _kinds(values)
        # As many values as slices explain nothing.
        if 1 < count <= max(len(values) // 2, 2):
            explain.append(f"{count} {name}")
    return faults, f" (they have {', '.join(explain)})" if explain else ""


def _kinds(values: Sequence[Any]) -> int:
    """Number of different values; numbers within 1 % of each other are one."""
    try:
        numbers = sorted(float(value) for value in values)
    except (TypeError, ValueError):
        return len({str(value) for value in values})
    return sum(
        1
        for index, value in enumerate(numbers)
        if not index or value - numbers[index - 1] > 0.01 * max(abs(value), abs(numbers[index - 1]))
    )


def copies(headers: Sequence[Header], source: str) -> list[Fault]:
    """Files with one SOPInstanceUID: the same image twice, or another image under its name."""
    counts = Counter(header.instance[0] for header in headers if header.instance[0])
    twice = [uid for uid, count in counts.items() if count > 1]
    if not twice:
        return []
    first = [header.path.name for header in headers if header.instance[0] == twice[0]]
    extra = sum(counts[uid] - 1 for uid in twice)
    found = f"{extra} copies: {first[0]} and {first[1]} have one SOPInstanceUID"
    return [Fault(source, found, "one file per image", "remove the copies")]


def counted(headers: Sequence[Header], step: float | None, slices: int | None, source: str) -> list[Fault]:
    """Faults for a number of slices that is not the declared one, or half of the one that was measured.

    Args:
        headers: Headers of all files of a series.
        step: Distance between slices in mm, if it is regular.
        slices: Declared by the user.
        source: Name of the series.
    """
    found = sum(len(header.traits) for header in headers)
    faults = []
    if slices is not None and found != slices:
        action = "add the missing slices or remove what is too much, or correct the declared number"
        faults.append(Fault(source, f"{found} slices", f"{slices} slices, as declared", action))
    numbers = sorted(int(header.instance[1]) for header in headers if header.instance[1].isdigit())
    spacing = [float(trait["spacing"]) for header in headers for trait in header.traits if "spacing" in trait]
    if step and len(numbers) == found > 1 and len(spacing) == found and min(spacing) > 0:
        # Regular gaps of several steps, in the numbers as in the places: a rule left slices out.
        times = round(step / spacing[0])
        gaps = set(np.diff(numbers).tolist())
        if (
            times > 1
            and abs(step / spacing[0] - times) < 0.02
            and gaps == {times}
            and max(spacing) < 1.01 * min(spacing)
        ):
            what = f"only every {times}. slice: {step:.3f} mm apart, measured every {spacing[0]:.3f} mm"
            faults.append(Fault(source, what, "all slices of the series", "add the missing slices"))
    return faults
