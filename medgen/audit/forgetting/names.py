"""What a case is called in the files of a run, and where in a text it is named."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from medgen.data.layouts.bids_files import participant
from medgen.errors import ConfigError

# Shorter ones are found in every text.
_SHORTEST = 3
_SAFE = re.compile(r"[^A-Za-z0-9]")


class Names:
    """The names of a case, also as a subject of BIDS, and what stands where they stood.

    >>> names = Names(["case-1"], "forgotten-ab")
    >>> names.about("heatmaps/case-1-implant2-blur.nii.gz"), names.about("case-10"), names.about("my-case-1.nii")
    (True, False, False)
    >>> names.replaced("case-1 and sub-case1_T1w, not case-10")
    'forgotten-ab and forgotten-ab_T1w, not case-10'

    Args:
        called: What the case is called.
        alias: What is written in its place where a place must be kept, as in the list of a model's training scans.

    Raises:
        ConfigError: If a name is too short to be told from other text.
    """

    def __init__(self, called: Iterable[str], alias: str) -> None:
        self.called = tuple(sorted(set(called)))
        self.alias = alias
        for name in self.called:
            if len(name) < _SHORTEST or not _SAFE.sub("", name):
                raise ConfigError(f"{name!r}: too short to be told from other text; expected a case's whole name")
        every = sorted({*self.called, *map(participant, self.called)}, key=len, reverse=True)
        either = "|".join(map(re.escape, every))
        # Neither a part of a longer name nor of a longer UID.
        self._anywhere = re.compile(rf"(?<![A-Za-z0-9.-])(?:{either})(?![A-Za-z0-9])(?!\.\d)")
        self._bytes = re.compile(self._anywhere.pattern.encode())

    def within(self, text: str) -> bool:
        """Whether a text names the case."""
        return self._anywhere.search(text) is not None

    def within_bytes(self, content: bytes) -> bool:
        """Whether a file names the case in plain letters."""
        return self._bytes.search(content) is not None

    def about(self, text: str) -> bool:
        """Whether a name, or a path by one of its parts, is that of the case or of something made from it."""
        return any(self._anywhere.match(part) for part in PurePosixPath(text).parts) if text else False

    def replaced(self, text: str) -> str:
        """A text with the alias where the case was named."""
        return self._anywhere.sub(self.alias, text)
