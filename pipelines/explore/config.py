"""What an exploration is told."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from medgen.config import Config
from medgen.data.layouts.cohort_config import CohortConfig


class ExploreConfig(Config):
    """One exploration, as it is kept in ``config.yaml``.

    Attributes:
        model: Artifact folder.
        artifact_sha256: Its digest.
        data: The cohort that it was trained on.
        cohort: How that is laid out.
        out: Folder of the results.
        between: Cases to interpolate between; None takes the ends of the first principal direction.
        at: Case that traversals start at; None takes the training scan nearest to the middle of the codes.
        along: Columns of the cohort's table to follow.
        components: Number of principal directions to follow.
        reach: Standard deviations that are gone along them, either way.
        steps: Pictures in a film strip.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        workers: Threads that read and prepare scans.
    """

    model: Path
    artifact_sha256: str
    data: Path
    cohort: CohortConfig = CohortConfig()
    out: Path
    between: tuple[str, str] | None = None
    at: str | None = None
    along: tuple[str, ...] = ()
    components: int = Field(default=3, ge=0, le=20)
    reach: float = Field(default=2.5, gt=0, le=10)
    steps: int = Field(default=7, ge=3, le=15)
    device: str = "auto"
    workers: int = Field(default=2, ge=0, le=256)
