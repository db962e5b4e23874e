"""The list of the scans that were sampled and refused."""

from __future__ import annotations

from pathlib import Path

from medgen.runs.context import Output
from medgen.synthesis.filtering.pool import CandidatePool
from medgen.system.files import write_csv

REJECTIONS = Output("rejections.csv", "every sample that was refused, with the reasons and the numbers behind them")


def write_rejections(path: Path, pool: CandidatePool) -> None:
    """Write one line for every rejected scan, with the reasons in words and numbers."""
    rows = [
        {
            "id": candidate.id,
            "backend": candidate.backend,
            "seed": candidate.seed,
            "nearest": candidate.filtered.nearest,
            "reasons": "; ".join(candidate.filtered.reasons.values()),
        }
        for candidate in pool.rejected()
    ]
    write_csv(path, rows, ["id", "backend", "seed", "nearest", "reasons"])
