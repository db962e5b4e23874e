"""How like real scans the scans of every backend are: the results of the comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medgen.synthesis.fidelity.comparison import Described, Fidelity

if TYPE_CHECKING:
    pass


TRAINING, HELD_OUT, ALL = "training", "held-out", "all backends"


@dataclass(frozen=True, eq=False)
class FidelityResults:
    """What the stage has found.

    Attributes:
        comparisons: Each backend with enough accepted scans, and all of them together, against training and held-out
            scans.
        described: Set of scans → its numbers, for the figure.
        short: Backend → accepted scans, where these are too few.
        fewest: How many would be enough.
        source: What the features are, in words.
    """

    comparisons: tuple[Fidelity, ...]
    described: Mapping[str, Described]
    short: Mapping[str, int]
    fewest: int
    source: str

    def to_plain(self) -> dict[str, Any]:
        """For ``metrics.json``: synthetic set → real set → numbers."""
        table: dict[str, Any] = {}
        for item in self.comparisons:
            table.setdefault(item.synthetic, {})[item.real] = item.to_plain()
        return {"features": self.source, "too_few_scans": dict(self.short), "comparisons": table}
