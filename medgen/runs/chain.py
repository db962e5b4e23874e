"""The hash chain of a journal: each entry states the digest of all lines before it.

The head after a line is SHA-256 of the head before it and the SHA-256 of the line, both as 64 hexadecimal digits. As a
line enters only by its digest, one whose content had to be removed can be replaced by a tombstone that keeps the digest
(:data:`FORGOTTEN`): the chain can still be followed, and the removal is seen. This is the hash chain of Haber and
Stornetta, How to time-stamp a digital document (Journal of Cryptology 3, 1991).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medgen.errors import DataError
from medgen.system import files

# The head before the first line.
START = "0" * 64
# Kind of an entry whose content was removed; it keeps ``seq``, ``run``, ``time`` and ``chain``.
FORGOTTEN = "forgotten"


@dataclass(frozen=True)
class Head:
    """How far a chain reaches.

    Attributes:
        lines: Number of lines, torn ones included.
        chain: The head behind the last of them.
    """

    lines: int = 0
    chain: str = START

    def after(self, line: bytes) -> Head:
        """The head behind one more line, which comes without its line break."""
        return Head(self.lines + 1, advanced(self.chain, digest(line)))


def advanced(chain: str, line: str) -> str:
    """The head behind a line that has a digest.

    >>> advanced(START, digest(b"{}"))[:12]
    '09ad20dc4e5d'
    """
    return hashlib.sha256(f"{chain}{line}".encode("ascii")).hexdigest()


def digest(line: bytes) -> str:
    """What a line counts by: its SHA-256, or of a tombstone the SHA-256 of the line that was there."""
    if f'"{FORGOTTEN}"'.encode() in line:
        with suppress(ValueError, RecursionError):
            entry = json.loads(line)
            if isinstance(entry, dict) and entry.get("kind") == FORGOTTEN:
                return str(entry.get("line_sha256"))
    return hashlib.sha256(line).hexdigest()


def tombstone(entry: dict[str, Any], line: bytes) -> bytes:
    """What is left of a line whose content is removed, without its line break."""
    kept = {key: entry[key] for key in ("seq", "run", "time")}
    return json.dumps(
        {**kept, "kind": FORGOTTEN, "line_sha256": digest(line), "chain": entry.get("chain", "")}
    ).encode()


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines of a journal as they are, without line breaks; none if there is no journal.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        with files.open_regular(path) as file:
            for line in file:
                yield line.removesuffix(b"\n")
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); expected the journal of a run") from None


def head_of(path: Path) -> Head:
    """The head of a journal as it is now.

    Raises:
        DataError: If it cannot be read.
    """
    head = Head()
    for line in lines_of(path):
        head = head.after(line)
    return head
