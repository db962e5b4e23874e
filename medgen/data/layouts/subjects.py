"""Whom each scan shows: a list, a pattern or the layout says it, or each scan counts as another subject."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from medgen import io
from medgen.data.cases import COLUMNS, Case
from medgen.data.layouts.name_groups import GROUP, MARK, begin_alike, kinds_of, look_like_visits, subject_of
from medgen.data.layouts.tables import read_table
from medgen.faults import Fault, fail
from medgen.system.advice import setting, shown


@dataclass(frozen=True)
class Owned:
    """Cases with their subjects.

    Attributes:
        cases: The cases, each with its subject.
        source: How the subjects are known, as a phrase that is printed.
        faults: What is wrong with what says it, or that nothing says it and names are not clear.
        decisions: What was decided without being told.
    """

    cases: list[Case]
    source: str
    faults: tuple[Fault, ...] = ()
    decisions: tuple[str, ...] = ()


def owned(cases: Sequence[Case], root: Path, config: str | None, layout: str, known_by: str, *, ask: bool) -> Owned:
    """Find out whose scan each case is, and fill it in.

    Args:
        cases: With subject "" where the layout does not say.
        root: Folder of the cohort.
        config: ``cohort.subjects``: a list beside the data, or a pattern for the case ids.
        layout: Name of the cohort's layout, for messages.
        known_by: How the layout itself knows subjects; empty if it does not.
        ask: Whether names that look like several scans of one subject are a fault where nothing says whose they are.
    """
    if config and (MARK in config or GROUP in config):
        return _by_pattern(cases, root, config)
    path = root / (config or "subjects.csv")
    # A link that leads nowhere or a pipe is refused when it is read, not taken for no list.
    if os.path.lexists(path) and not (layout == "csv" and not config):
        return _by_list(cases, path)
    own = [replace(case, subject=case.subject or case.id) for case in cases]
    if config:
        action = f"correct it, or give a pattern such as {setting('subjects', '{subject}_*')}"
        return Owned(own, "", (Fault(str(path), "no such file", "the subject list", action),))
    if known_by:
        return Owned(own, known_by, tuple(_lettered(own, root) if ask and layout == "bids" else ()))
    faults, decisions = _asked(cases, root, layout) if ask else ([], [])
    return Owned(
        own, "nothing says whose scans they are: each counts as another subject's", tuple(faults), tuple(decisions)
    )


def _by_pattern(cases: Sequence[Case], root: Path, pattern: str) -> Owned:
    told = {case.id: subject_of(pattern, case.id) for case in cases}
    lost = [name for name, subject in told.items() if not subject]
    faults = []
    if lost:
        text = f"{len(lost)} of {len(cases)} case ids do not match {setting('subjects', pattern)}: {shown(lost)}"
        faults.append(Fault(str(root), text, "a pattern for all of them", "correct it, or write a list subjects.csv"))
    return Owned([replace(case, subject=told[case.id] or case.id) for case in cases], f"from the pattern {pattern}",
                 tuple(faults))  # fmt: skip


def _by_list(cases: Sequence[Case], path: Path) -> Owned:
    own = [replace(case, subject=case.subject or case.id) for case in cases]
    columns, rows = read_table(path)
    if len(columns) < 2:
        fault = Fault(str(path), f"{len(columns)} columns", "case id and subject", "correct the file")
        return Owned(own, "", (fault,))
    owners: dict[str, str] = {}
    about: dict[str, dict[str, str]] = {}
    faults = []
    for line, row in rows:
        case, subject = row[columns[0]], row[columns[1]]
        if not case or not subject or owners.setdefault(case, subject) != subject:
            text = f"case {case!r} with subject {subject!r}" + (" as well" if case in owners else "")
            faults.append(Fault(f"{path}:{line}", text, "one subject for each case", "correct the line"))
        about[case] = {name: row[name] for name in columns[2:] if name and name not in COLUMNS and row[name]}
    absent = [case.id for case in cases if case.id not in owners]
    if absent:
        text = f"no subject for {len(absent)} of {len(cases)} cases, such as {absent[0]}"
        faults.append(Fault(str(path), text, "a line for every case", "add them, in the first column as the case id"))
    filled = [
        replace(
            case,
            subject=owners.get(case.id, case.id),
            attributes={**about.get(case.id, {}), **case.attributes},
        )
        for case in cases
    ]
    return Owned(filled, f"from the list {path.name}", tuple(faults))


def _asked(cases: Sequence[Case], root: Path, layout: str) -> tuple[list[Fault], list[str]]:
    """Ask whose scans they are where their names look like several of one subject."""
    names = [case.id for case in cases if not case.subject]
    files = {case.id: case.images[0] for case in cases}
    alone = setting("subjects", MARK)
    if kinds := kinds_of(names):
        values = [value or "no further word" for value in kinds.values]
        text = (
            f"several scans with one name but for a part ({shown(values, 6)}), such as {shown(kinds.example, 4)}: "
            f"{len(kinds.several)} such groups of {len(names)} scans"
        )
        pattern = kinds.subject_pattern()
        one = setting("subjects", pattern) if pattern else "a list subjects.csv (case, subject)"
        ways = [f"scans of one subject: {one}", f"each of another subject: {alone}"]
        glob = next((found for value in kinds.values if (found := kinds.file_pattern(value))), "")
        if glob and layout != "csv":
            file = files[kinds.named(next(value for value in kinds.values if kinds.file_pattern(value)))[0]]
            stem = io.stem(file)
            # Ids are cleaned names: a blank of the file's is a dash there, and a glob has to match the file.
            glob = glob if fnmatchcase(stem, f"*{glob}*") else glob.replace("-", "?")
            # Channel numbers stand in file names, not in ids.
            glob += "" if stem.endswith(tuple(filter(None, kinds.values))) or glob.endswith("*") else "*"
            glob += "" if file.is_dir() else file.name[len(stem) :]
            # Layouts with folders of masks would lose these by a pattern for images alone.
            only = (
                f"only such scans: {setting('images', glob)}; or " if layout == "folder" and file.parent == root else ""
            )
            ways.append(f"{only}without such scans: {setting('leave_out', glob)}")
        return [Fault(str(root), text, "to be told whose scans they are", f"say which: {'; or '.join(ways)}")], []
    groups = begin_alike(names)
    if not groups:
        return [], []
    some, count = shown(groups[0], 4), sum(map(len, groups))
    one = "a list subjects.csv (case, subject)"
    if look_like_visits(groups[0]):
        text = f"{count} scans whose names begin alike and go on with dates or visits, such as {some}"
        action = f"say which: scans of one subject: {one}; or each of another subject: {alone}"
        return [Fault(str(root), text, "to be told whose scans they are", action)], []
    return [], [
        f"names of {count} scans begin alike, such as {some}; each counts as another subject, since nothing else is "
        f"said (by {one})"
    ]


def _lettered(cases: Sequence[Case], root: Path) -> list[Fault]:
    """Ask whose scans they are where subjects of a BIDS tree differ in a letter or visit only: sub-01A and sub-01B."""
    kinds = kinds_of(sorted({case.subject.removeprefix("sub-") for case in cases}))
    if kinds is None or not kinds.last:
        return []
    if not kinds.visits and not all(len(value) == 1 and value.isalpha() for value in filter(None, kinds.values)):
        return []
    names = sorted({case.subject for case in cases})
    named = "|".join(re.escape(value) for value in kinds.values if value)
    one, alone = f"(?P<subject>sub-[^_]*?[0-9])[-_.]?({named})?(_.*)?", "(?P<subject>sub-[^_]+)(_.*)?"
    listed = "a list subjects.csv (case, subject)"
    ways = [setting("subjects", way) if all(subject_of(way, case.id) for case in cases) else listed
            for way in (one, alone)]  # fmt: skip
    text = (
        f"subjects with one name but for a part ({shown([value or 'no further word' for value in kinds.values], 6)}), "
        f"such as {shown([f'sub-{name}' for name in kinds.example], 4)}: {len(kinds.several)} such groups of "
        f"{len(names)} subjects"
    )
    action = f"say which: scans of one subject: {ways[0]}; or each of another subject: {ways[1]}"
    return [Fault(str(root), text, "to be told whose scans they are", action)]


def with_participants(cases: Sequence[Case], root: Path) -> tuple[list[Case], list[str]]:
    """What the ``participants.tsv`` of a BIDS cohort, where there is one, says of each subject; what it does not say.

    Ids without ``sub-`` are those with it.

    Raises:
        FaultyDataError: If it is no such table, or lists a participant twice.
    """
    path = root / "participants.tsv"
    if not os.path.lexists(path):
        return list(cases), []
    columns, rows = read_table(path, "\t")
    if columns[:1] != ["participant_id"]:
        raise fail(path, f"first column {columns[0] if columns else ''!r}", "participant_id", "correct the header line")
    about: dict[str, dict[str, str]] = {}
    for line, row in rows:
        name = f"sub-{row['participant_id'].removeprefix('sub-')}"
        if name in about:
            raise fail(f"{path}:{line}", f"participant {name!r} twice", "one line for each", "remove one of them")
        known = {key: value for key, value in row.items() if value and value.lower() != "n/a"}
        about[name] = {key: value for key, value in known.items() if key and key not in ("participant_id", *COLUMNS)}
    subjects = sorted({case.subject for case in cases})
    lost = [name for name in subjects if name not in about]
    decisions = []
    if lost:
        decisions.append(
            f"participants.tsv has no line for {len(lost)} of {len(subjects)} subjects ({shown(lost)}): nothing is "
            f"known of their age and sex; it lists {shown(about)}"
        )
    return [replace(case, attributes={**about.get(case.subject, {}), **case.attributes}) for case in cases], decisions
