"""Take a case out of a run's journal: lines that name it become tombstones, along which the chain is still followed."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from medgen.audit.forgetting.names import Names
from medgen.errors import DataError
from medgen.runs.chain import FORGOTTEN, digest, lines_of, tombstone
from medgen.runs.journal import CURSOR, NAME
from medgen.system import files


def forget_in_journal(out: Path, names: Names) -> int:
    """Replace the lines of ``out/journal.jsonl`` that name a case; the number of lines.

    What has been sent to the store is known by places in the journal, which are moved along.

    Raises:
        DataError: If the journal cannot be read or written.
    """
    path = out / NAME
    before, after = list(lines_of(path)), []
    for line in before:
        after.append(_left(line, names) if names.within_bytes(line) else line)
    count = sum(old != new for old, new in zip(before, after, strict=True))
    if count:
        starts = dict(zip(_starts(before), _starts(after), strict=True))
        cursor = None
        with suppress(DataError, KeyError, TypeError, ValueError):
            cursor = files.read_json(out / CURSOR)
            cursor["offset"] = starts[cursor["offset"]]
            cursor["late"] = [starts[place] for place in cursor.get("late", [])]
        # Without its cursor a journal is sent again as a whole, which adds nothing; with a wrong one something is lost.
        (out / CURSOR).unlink(missing_ok=True)
        ended = path.read_bytes().endswith(b"\n")
        files.write_bytes(path, b"\n".join(after) + (b"\n" if ended else b""))
        if cursor is not None:
            files.write_json(out / CURSOR, cursor)
    return count


def _left(line: bytes, names: Names) -> bytes:
    try:
        entry = json.loads(line)
        if entry.get("kind") == FORGOTTEN:
            return line
        left = tombstone(entry, line)
        if "chain" not in entry:
            # Of a journal from before there were chains.
            left = json.dumps({key: value for key, value in json.loads(left).items() if key != "chain"}).encode()
        return left
    except (ValueError, AttributeError, LookupError, RecursionError):
        # No entry: a torn line, which counts by its digest all the same.
        return json.dumps({"kind": FORGOTTEN, "line_sha256": digest(line)}).encode()


def _starts(lines: list[bytes]) -> list[int]:
    """Where each line begins, and where the last one ends."""
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    return starts
