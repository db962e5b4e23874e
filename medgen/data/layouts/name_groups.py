"""What names of files say of each other: parts in which the files of one subject differ, such as visits or kinds."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from medgen.errors import ConfigError

# In a pattern, where the subject stands.
MARK, GROUP = "{subject}", "(?P<subject>"
# Words that tell scans of one person apart: visits, phases, sides, repetitions.
_VISIT = re.compile(
    r"(v|visit|ses|session|tp|t|time|timepoint|wk|week|m|mo|month|y|yr|year|d|day|run|rep|repeat|scan|frame|phase|acq|fu|"
    r"followup|bl|baseline|pre|post|ed|es|sys|dia|l|r|lh|rh|left|right|test|retest|mr|exam|study)[-.]?\d*[a-z]?"
    r"|(19|20)\d{6}|(19|20)\d\d-\d\d-\d\d",
    re.IGNORECASE,
)
_SEPARATOR = re.compile(r"[_\-. ]+")
# A letter or visit straight after the number of a subject: 01a, P01L, P003V2, 07post.
_GLUED = re.compile(r"(\D*\d{2,})([A-Za-z]|(?:v|ses|tp|fu)\d+|pre|post|baseline|bl|followup|fu)", re.IGNORECASE)


@dataclass(frozen=True)
class Kinds:
    """Names that are alike but for one part, whose values recur.

    Attributes:
        values: What stands in that part, most frequent first; empty where a name lacks it.
        groups: Name without that part → value → name; groups of one name, too.
        first: Whether it is the first part of the names; else it stands at the end or in between.
        last: Whether it is the last part.
    """

    values: tuple[str, ...]
    groups: Mapping[str, Mapping[str, str]]
    first: bool
    last: bool

    @property
    def several(self) -> list[Mapping[str, str]]:
        """The groups of more than one name, value → name."""
        return [group for group in self.groups.values() if len(group) > 1]

    @property
    def example(self) -> list[str]:
        """The names of one such group."""
        return sorted(self.several[0].values())

    @property
    def visits(self) -> bool:
        """Whether the values read as visits, sides or phases of one person."""
        named = [value for value in self.values if value]
        return bool(named) and all(_VISIT.fullmatch(value) for value in named)

    @property
    def numbered(self) -> bool:
        """Whether the values are numbers, or differ in a number only, as those of subjects do."""
        shapes = {re.sub(r"\d+", "#", value) for value in self.values}
        return len(shapes) == 1 and "#" in shapes.pop()

    def named(self, value: str) -> list[str]:
        """All names with this value."""
        return [group[value] for group in self.groups.values() if value in group]

    def subject_pattern(self) -> str:
        """What makes the names of a group one subject, as ``cohort.subjects`` takes it; empty if no pattern does.

        >>> kinds_of(["a_V1", "a_V2", "b_V1", "b_V2"]).subject_pattern()
        '{subject}_V*'
        """
        return next((pattern for pattern in self._subject_patterns() if self._separates(pattern)), "")

    def _subject_patterns(self) -> Iterator[str]:
        value, name = next((value, group[value]) for group in self.several for value in group if value)
        at = 0 if self.first else name.rindex(value) if self.last else name.index(value)
        before, after = name[:at], name[at + len(value) :]
        start = re.match(r"[A-Za-z-]*", min(filter(None, self.values), key=len))
        word = start[0] if start and all(re.match(rf"{re.escape(start[0])}\d", value) for value in self.values) else ""
        if self.first:
            yield f"*{_between(after, head=True)}{{subject}}"
        else:
            yield f"{{subject}}{_between(before, head=False)}{word}*"
        named = "|".join(re.escape(value) for value in self.values if value)
        yield f"(?P<subject>.*[0-9])({named})"
        yield (
            f"({named})[-_. ](?P<subject>.+)" if self.first else f"(?P<subject>.+?)([-_. ]({named}))?{re.escape(after)}"
        )
        yield f"(?P<subject>.+?)[-_. ]({named}).*"

    def _separates(self, pattern: str) -> bool:
        owners = [{subject_of(pattern, name) for name in group.values()} for group in self.groups.values()]
        told = [next(iter(names)) for names in owners if len(names) == 1]
        return len(told) == len(owners) and "" not in told and len(set(told)) == len(told)

    def file_pattern(self, value: str) -> str:
        """A glob for the names with this value, without suffix; empty where none can say it."""
        name = self.named(value)[0] if value else ""
        if value and self.last:
            return f"*{_between(name[: -len(value)], head=False)}{value}"
        if value and self.first:
            return f"{value}{_between(name[len(value) :], head=True)}*"
        return f"*{value}*" if value else ""


def kinds_of(names: Sequence[str]) -> Kinds | None:
    """The part in which names of one subject seem to differ; None if no part does.

    Names are split at ``_``, ``-``, ``.`` and blanks. A part counts where it has one value in at least half of all
    groups of names that are else alike, and at least one group has two values or more.

    >>> kinds_of(["a_V1", "a_V2", "b_V1", "b_V2"]).values
    ('V1', 'V2')
    >>> kinds_of(["volume-0", "volume-1", "segmentation-0", "segmentation-1"]).values
    ('segmentation', 'volume')
    >>> kinds_of(["s_1", "s_2", "s_3"]) is None
    True
    """
    best: tuple[tuple[float, ...], Kinds] | None = None
    for parts in _splittings(names):
        for place in _places(parts.values()):
            rated = _rated(parts, place)
            if rated is not None and (best is None or rated[0] > best[0]):
                best = rated
    return None if best is None else best[1]


def check_pattern(text: str) -> None:
    """Refuse a pattern of subjects that cannot be one.

    Raises:
        ConfigError: If it is a regular expression that is none, or names the subject twice.
    """
    try:
        subject_of(text, "")
    except (re.error, IndexError):
        raise ConfigError(
            f"subjects: {text!r} is no pattern; expected {MARK} once, and * for what varies, or a regular expression "
            f"with {GROUP}...)"
        ) from None


def subject_of(pattern: str, name: str) -> str:
    """The subject that a pattern finds in a case id; empty where it does not match.

    Args:
        pattern: With ``{subject}``, and ``*`` for anything, such as ``{subject}_V*``; or a regular expression with a
            group of that name.
        name: Case id.

    Raises:
        re.error: If it is a regular expression that is none.

    >>> subject_of("{subject}_V*", "P_01_V2"), subject_of("{subject}", "P_01"), subject_of("*-{subject}", "ct-7")
    ('P_01', 'P_01', '7')
    """
    if "(?P<subject>" not in pattern:
        head, _, tail = pattern.partition("{subject}")
        pattern = f"{_glob(head)}(?P<subject>.+){_glob(tail)}"
    match = re.fullmatch(pattern, name)
    return "" if match is None else match["subject"] or ""


def _glob(text: str) -> str:
    return ".*?".join(re.escape(part) for part in text.split("*"))


def begin_alike(names: Sequence[str]) -> list[list[str]]:
    """Groups of names that share their first parts, the last of which holds a number, and differ in the rest.

    >>> begin_alike(["P1_20200101", "P1_20210304", "P2_20200506"])
    [['P1_20200101', 'P1_20210304']]
    """
    parts = {name: tuple(part for part in _SEPARATOR.split(name) if part) for name in names}
    longest = max((len(part) for part in parts.values()), default=0)
    for length in range(longest - 1, 0, -1):
        groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for name, split in parts.items():
            if len(split) > length and any(sign.isdigit() for sign in split[length - 1]):
                groups[split[:length]].append(name)
        several = [sorted(group) for group in groups.values() if len(group) > 1]
        if several and len(groups) > 1 and max(map(len, several)) <= 8:
            return several
    return []


def look_like_visits(group: Sequence[str]) -> bool:
    """Whether names that begin alike go on with dates or words for visits."""
    common = len(_common(group))
    ends = [_SEPARATOR.sub(" ", name[common:]).split() for name in group]
    return all(end and any(_VISIT.fullmatch(part) for part in end) for end in ends)


def _common(names: Sequence[str]) -> str:
    """What all names begin with, up to a separator."""
    shortest = min(names, key=len)
    length = next((i for i, sign in enumerate(shortest) if any(name[i] != sign for name in names)), len(shortest))
    cuts = [match.end() for match in _SEPARATOR.finditer(shortest[:length])]
    return shortest[: cuts[-1]] if cuts else ""


def _splittings(names: Sequence[str]) -> Iterator[dict[str, tuple[str, ...]]]:
    """The names in parts: at underscores, which group what hyphens join; at every separator; behind numbers."""
    yield {name: tuple(part for part in name.split("_") if part) for name in names}
    fine = {name: tuple(part for part in _SEPARATOR.split(name) if part) for name in names}
    yield fine
    glued = {}
    for name, parts in fine.items():
        match = _GLUED.fullmatch(parts[0]) if parts else None
        glued[name] = (*match.groups(), *parts[1:]) if match else parts
    if glued != fine:
        yield glued


def _places(parts: Collection[tuple[str, ...]]) -> list[int]:
    """Places in names to try: counted from the end (-1, -2, ...) and from the start (0, 1, ...)."""
    longest = min(8, max((len(part) for part in parts), default=0))
    return [*range(-1, -longest - 1, -1), *range(longest)]


def _rated(parts: Mapping[str, tuple[str, ...]], place: int) -> tuple[tuple[float, ...], Kinds] | None:
    groups: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for name, split in parts.items():
        index = place if place >= 0 else len(split) + place
        if 0 <= index < len(split) and len(split) > 1:
            groups[(*split[:index], *split[index + 1 :])].setdefault(split[index], name)
    for name, split in parts.items():
        if split in groups:
            groups[split].setdefault("", name)
    # A name that stands alone in one group and lacks the part of another is told by the latter.
    lacking = {group[""] for group in groups.values() if "" in group}
    kept = {base: group for base, group in groups.items() if not (len(group) == 1 and set(group.values()) <= lacking)}
    several = [group for group in kept.values() if len(group) > 1]
    counts = Counter(value for group in kept.values() for value in group)
    if len(kept) < 2 or not several:
        return None
    common = counts.most_common(1)[0][1]
    if common < 2 or 2 * common < len(kept):
        return None
    values = tuple(value for value, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    told = [len(parts[name]) for group in kept.values() for value, name in group.items() if value]
    kinds = Kinds(
        values,
        {"_".join(base): dict(group) for base, group in kept.items()},
        first=all(place in (0, -length) for length in told),
        last=all(place in (-1, length - 1) for length in told),
    )
    # Numbers count subjects more often than they tell kinds apart; by chance some recur.
    numbered = kinds.numbered and not kinds.visits
    if numbered and 3 * common < 2 * len(kept):
        return None
    covered = len(several) / len(kept)
    return (not numbered, covered >= 0.5, -len(values), place < 0, covered), kinds


def _between(text: str, *, head: bool) -> str:
    """The separator at the head, or at the end, of what surrounds a part of a name."""
    match = re.match(r"[_\-. ]+", text) if head else re.search(r"[_\-. ]+$", text)
    return match[0] if match else ""
