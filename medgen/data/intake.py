"""What of a cohort's folder was taken for what, and what was left out and why: kept with the cohort for all to say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# File names that are listed for each reason; the number of files is always given.
_EXAMPLES = 20


@dataclass(frozen=True)
class LeftOut:
    """Files that are no case, for one reason.

    Attributes:
        reason: Such as ``"*.json"`` or ``"._* of macOS"``.
        files: Paths relative to the cohort, with forward slashes, sorted; the first ones where there are very many.
        count: How many there are.
    """

    reason: str
    files: tuple[str, ...]
    count: int


@dataclass(frozen=True)
class Intake:
    """How the cases of a cohort were found.

    Attributes:
        layout: Layout that the folder was read as; empty for cohorts that were not read from a folder.
        chosen: Whether the layout was made out from what is there (False: it was asked for).
        subjects: How it is known whom a scan shows, such as ``"the list subjects.csv"``.
        masks: How masks were told from scans, such as ``"names (gt)"``; empty if there is nothing to say.
        decisions: What was decided where names left a choice, one sentence each.
        left_out: What was found and is no case.
        channels: Name of each image channel, where the cohort says them.
        regions: Name → label numbers, where labels are nested regions (nnU-Net).
        class_order: Label number that each region is drawn with, in the order of ``regions``; empty without regions.
    """

    layout: str = ""
    chosen: bool = False
    subjects: str = ""
    masks: str = ""
    decisions: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    channels: tuple[str, ...] = ()
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    class_order: tuple[int, ...] = ()

    def left_out_sentence(self, *, examples: bool = True) -> str:
        """All that was left out in one line, with a file for each reason if asked; empty if nothing was.

        >>> Intake(left_out=(LeftOut("*.json", ("a.json",), 1), LeftOut("._* of macOS", (), 4))).left_out_sentence()
        'left out: 5 files: 4 ._* of macOS, 1 *.json (a.json)'
        """
        if not self.left_out:
            return ""
        total = sum(item.count for item in self.left_out)
        parts = []
        for item in sorted(self.left_out, key=lambda item: (-item.count, item.reason)):
            example = f" ({item.files[0]})" if item.files and examples else ""
            parts.append(f"{item.count} {item.reason}{example}")
        return f"left out: {total} file{'s' if total > 1 else ''}: {', '.join(parts)}"

    def to_plain(self) -> dict[str, Any]:
        """How the cohort was found, as plain data for JSON files."""
        return {
            "layout": self.layout,
            "subjects_from": self.subjects,
            "masks_from": self.masks,
            "decisions": list(self.decisions),
            "left_out": [
                {"reason": item.reason, "count": item.count, "files": list(item.files[:_EXAMPLES])}
                for item in self.left_out
            ],
            "channels": list(self.channels),
            "regions": {name: list(numbers) for name, numbers in self.regions.items()},
        }


def grouped(reasons: Sequence[tuple[str, str]]) -> tuple[LeftOut, ...]:
    """(file, reason) of every file that was left out, by reason."""
    files: dict[str, list[str]] = defaultdict(list)
    for file, reason in reasons:
        files[reason].append(file)
    return tuple(
        LeftOut(reason, tuple(sorted(names)[:_EXAMPLES]), len(names)) for reason, names in sorted(files.items())
    )
