"""Why nothing may be claimed of a scan that was scored, and what can be said of it all the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from medgen.anomaly.artefacts.signs import Sign


@dataclass(frozen=True, eq=False)
class Doubts:
    """What makes a scan another kind of scan than those that a calibration is about; true if there is anything.

    >>> bool(Doubts()), Doubts(refused=("extent along foot-head: found 90 mm",)).why
    (False, 'outside the cohort')

    Attributes:
        refused: What the gate found, a sentence each, in a scan that was scored on request all the same.
        signs: The artefacts that it looks like, the strongest first.
    """

    refused: tuple[str, ...] = ()
    signs: tuple[Sign, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.refused or self.signs)

    @property
    def why(self) -> str:
        """In two or three words, for tables; empty if there is none."""
        # Another kind of scan looks like all sorts of artefacts, too.
        if self.refused:
            return "outside the cohort"
        return f"likely artefact: {self.signs[0].looks}" if self.signs else ""


@dataclass(frozen=True)
class Rank:
    """Where a scan stands among the healthy scans of a calibration; it is no p-value, and holds for any scan.

    Attributes:
        below: Healthy subjects with a lower score.
        n: All of them.
    """

    below: int
    n: int

    @classmethod
    def of(cls, healthy: ArrayLike, value: float) -> Rank:
        """Of a score among those of n healthy subjects, (n,).

        >>> Rank.of([1.0, 2.0, 3.0], 2.5).words("max")
        'more unusual than 2 of 3 healthy scans (max)'
        """
        scores = np.asarray(healthy, dtype=np.float64)
        return cls(int((scores < value).sum()), scores.size)

    def words(self, score: str) -> str:
        """As a sentence's end, with the name of the score."""
        return f"more unusual than {self.below} of {self.n} healthy scans ({score})"


def rank_words(ranks: Mapping[str, Rank], scan_score: str) -> str:
    """The rank by the hottest voxel, and by the score that decides about the whole scan if that is another one."""
    names = [name for name in dict.fromkeys(("max", scan_score)) if name in ranks]
    return ", ".join(ranks[name].words(name) for name in names)
