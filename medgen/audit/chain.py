"""Follow the hash chain of a journal and name each line that is not as it was written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medgen.runs.chain import FORGOTTEN, START, advanced, digest, lines_of

Kind = Literal["missing", "altered", "moved", "unlisted"]


@dataclass(frozen=True)
class Fault:
    """A line of a journal that is not as it was written.

    Attributes:
        place: Of the line in the file, from 0.
        kind: ``missing``, ``altered``, ``moved`` or ``unlisted`` (there, but not written by the run).
        detail: Which line or entry.
    """

    place: int
    kind: Kind
    detail: str


@dataclass(frozen=True)
class Checked:
    """What came of following a chain.

    Attributes:
        chained: Whether the journal has a chain; those of earlier versions have none, and nothing is known of them.
        faults: Every fault, in the order of the lines.
        forgotten: Number of entries whose content was removed and that say so.
        lines: Number of lines.
    """

    chained: bool
    faults: tuple[Fault, ...]
    forgotten: int
    lines: int


@dataclass(frozen=True)
class _Line:
    place: int
    content: bytes
    digest: str
    # The digest of all before, as the line states it; None of a torn line, and of one that is no entry.
    chain: str | None
    seq: int | None
    time: int | None
    forgotten: bool

    @property
    def called(self) -> str:
        return f"line {self.place + 1}" + ("" if self.seq is None else f" (entry {self.seq})")


def check_journal(path: Path, recorded: Mapping[str, Any] | None = None) -> Checked:
    """Follow the chain of a journal.

    Args:
        path: ``journal.jsonl`` of a run.
        recorded: ``lines`` and ``chain`` of the journal's head as the run's record has it; it alone tells whether
            lines are missing at the end, or were added there.

    Raises:
        DataError: If the journal cannot be read.
    """
    lines = [_line(place, content) for place, content in enumerate(lines_of(path))]
    forgotten = sum(line.forgotten for line in lines)
    if recorded is None and all(line.chain is None for line in lines):
        return Checked(False, (), forgotten, len(lines))
    walk = _Walk(lines, "" if recorded is None else str(recorded["chain"]))
    walk.follow()
    if recorded is not None:
        walk.compare_end(int(recorded["lines"]))
    return Checked(True, tuple(sorted(walk.faults, key=lambda fault: fault.place)), forgotten, len(lines))


def _line(place: int, content: bytes) -> _Line:
    entry: Any = None
    with suppress(ValueError, RecursionError):
        entry = json.loads(content)
    known = entry if isinstance(entry, dict) else {}
    chain, seq, time = known.get("chain"), known.get("seq"), known.get("time")
    return _Line(
        place,
        content,
        digest(content),
        chain if isinstance(chain, str) else None,
        seq if isinstance(seq, int) else None,
        time if isinstance(time, int) else None,
        known.get("kind") == FORGOTTEN,
    )


class _Walk:
    """The way along the chain, which is the order of the file only where nobody has moved a line.

    Each line states the head before it. Where no line states the head that has been reached, the last line was changed
    or the next was taken out, which the numbers of the entries tell; the walk goes on with the next line in the file.
    """

    def __init__(self, lines: list[_Line], end: str) -> None:
        self.faults: list[Fault] = []
        self._end = end
        self._head = START
        self._left = {line.place: line for line in lines}
        self._stating: dict[str, list[_Line]] = {}
        for line in lines:
            if line.chain is not None:
                self._stating.setdefault(line.chain, []).append(line)
        self._count = len(lines)
        self._missing = self._added = 0
        # The furthest line so far, the last one, and the number that its entry should have.
        self._furthest = -1
        self._last: _Line | None = None
        self._seq = -1
        self._clock = 0

    def follow(self) -> None:
        while self._left:
            if (following := self._following()) is not None:
                self._take(following, self._seq + 1)
                continue
            ahead = [place for place in sorted(self._left) if place > self._furthest]
            # Lines that the walk has passed by belong to nothing.
            line = self._left[ahead[0] if ahead else min(self._left)]
            if not ahead or line.chain is None or line.chain in self._past(line):
                self._report(line.place, "unlisted", f"{line.called} is not the run's")
                self._added += 1
                del self._left[line.place]
            else:
                self._break(line)

    def compare_end(self, lines: int) -> None:
        """Compare the end with the head that the run's record has."""
        if self._head == self._end:
            return
        end = self._count + self._missing - self._added
        if end < lines:
            which = "the last entry" if lines - end == 1 else f"the last {lines - end} entries"
            self._report(self._count, "missing", f"{which}: the run ended with {lines} lines")
        elif end > lines:
            self._report(lines, "unlisted", f"line {lines + 1} and what follows came after the end of the run")
        elif self._last is not None:
            self._report(self._last.place, "altered", f"{self._last.called} is not as it was written")

    def _following(self) -> _Line | None:
        """The line that states the present head; of several, the one to which another leads in its turn."""
        found = [line for line in self._stating.get(self._head, ()) if line.place in self._left]
        if len(found) > 1:
            found = [own for own in found if self._leads(own.digest)] or found
        if found:
            return found[0]
        # A line that a power cut has torn states nothing, and the next one counts it.
        torn = next((line for place, line in sorted(self._left.items()) if place > self._furthest), None)
        return torn if torn is not None and torn.chain is None and self._leads(torn.digest) else None

    def _leads(self, line: str) -> bool:
        """Whether a line with a digest, put here, leads to another or to the end."""
        head = advanced(self._head, line)
        return head == self._end or head in self._stating

    def _past(self, line: _Line) -> set[str]:
        """Heads that a line states though another line of the run has followed them already."""
        return {
            own.chain for own in self._stating.get(str(line.chain), ()) if own.place not in self._left and own.chain
        }

    def _take(self, line: _Line, seq: int, counting: str = "", linked: bool = True) -> None:
        del self._left[line.place]
        if line.place < self._furthest:
            self._report(line.place, "moved", f"{line.called} is in another place than it was written")
        if linked and line.time is not None and line.time < self._clock:
            self._report(line.place, "altered", f"{line.called} has a time before that of the line before it")
        self._clock = self._clock if line.time is None else line.time
        self._furthest = max(self._furthest, line.place)
        self._head = advanced(self._head, counting or line.digest)
        self._last, self._seq = line, seq if line.chain is not None else self._seq

    def _break(self, line: _Line) -> None:
        mended = digest(line.content.replace(str(line.chain).encode(), self._head.encode()))
        if self._leads(mended):
            # Nothing but what it states of the lines before it was changed.
            self._report(line.place, "altered", f"{line.called} is not as it was written")
            self._take(line, self._seq + 1, mended)
            return
        first, seq = self._seq + 1, self._seq + 1 if line.seq is None else line.seq
        if (gap := seq - first) > 0:
            which = f"entry {first}" if gap == 1 else f"entries {first} to {seq - 1}"
            self._report(line.place, "missing", f"{which}, before line {line.place + 1}")
            self._missing += gap
        else:
            changed = line if self._last is None else self._last
            self._report(changed.place, "altered", f"{changed.called} is not as it was written")
        self._head = str(line.chain)
        self._take(line, seq, linked=False)

    def _report(self, place: int, kind: Kind, detail: str) -> None:
        self.faults.append(Fault(place, kind, detail))
