"""What is wrong with a file, in four parts, and the error that carries one or several such faults."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

from medgen.errors import DataError


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with one file.

    Attributes:
        file: The file or folder, as the user knows it.
        found: What it holds.
        expected: What it should hold.
        action: What to do about it.
    """

    file: str
    found: str
    expected: str
    action: str

    def __str__(self) -> str:
        return printable(f"{self.file}: {self.found}; expected {self.expected}; {self.action}")

    def at(self, file: str) -> Fault:
        """The same fault under another file name."""
        return replace(self, file=file)


def printable(text: str) -> str:
    r"""Text on one line and without control characters, which a file name or a cell may hold to steer a terminal.

    >>> printable("a\x1b[31m b\n c")
    'a\\x1b[31m b c'
    """
    text = " ".join(text.split())
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class FaultyDataError(DataError):
    """Data that cannot be used, with every reason that was found.

    Attributes:
        faults: At least one fault, in the order they were found.
    """

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        first = self.faults[0].file
        parts = [
            str(fault).removeprefix(f"{first}: ") if number and fault.file == first else str(fault)
            for number, fault in enumerate(self.faults[:10])
        ]
        more = len(self.faults) - len(parts)
        super().__init__(" | ".join(parts) + (f" | and {more} more" if more else ""))


def visible(text: str) -> str:
    r"""Text for a terminal: control characters, which a file name may hold, are shown instead of obeyed.

    >>> visible("a\x1b[31mb\nc")
    'a\\x1b[31mb\\x0ac'
    """
    return "".join(
        f"\\x{ord(letter):02x}" if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") else letter
        for letter in text
    )


def fail(file: object, found: str, expected: str, action: str) -> FaultyDataError:
    """The error for a single fault, to be raised by the caller."""
    return FaultyDataError([Fault(str(file), found, expected, action)])
