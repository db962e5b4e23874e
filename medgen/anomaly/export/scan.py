"""What is exported of a scored scan, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medgen.anomaly.findings.listing import Finding
from medgen.volume import Volume

USE = "Research use only, not for clinical use"
NOT_SCORED = "NaN: not scored, which is not the same as healthy"
# Heat (z) at which colours end, unless a scan is hotter: as viewers of medgen show it.
_TOP = 8.0
# Vermilion to yellow, which colour-blind readers tell apart (Okabe and Ito, "Color universal design", 2008).
COOL, HOT = (213, 94, 0), (240, 228, 66)


@dataclass(frozen=True, eq=False)
class ExportedScan:
    """A scored scan; all volumes on its own grid.

    Attributes:
        name: Of the case, a safe file name.
        scan: As it was read, (c, i, j, k).
        contrasts: What its channels are called; "" for one without a name.
        window: Of each channel the values that are shown black and white.
        heatmap: Heat (z), (1, i, j, k); NaN is "not scored".
        regions: The outlined part of finding ``id``, 0 elsewhere, (1, i, j, k).
        findings: Findings, or hot places of a doubtful scan, hottest first.
        threshold: Heat (z) of findings.
        doubt: Why nothing is claimed of the scan; "" for most.
        pseudo: What a model of healthy anatomy makes of the scan, (c, i, j, k); None where none does.
        model: SHA-256 of the model.
    """

    name: str
    scan: Volume
    contrasts: Sequence[str]
    window: Sequence[tuple[float, float]]
    heatmap: Volume
    regions: Volume
    findings: Sequence[Finding]
    threshold: float
    doubt: str
    pseudo: Volume | None
    model: str

    @property
    def scored(self) -> Volume:
        """Where the heatmap has a value: 1, elsewhere 0."""
        return self.heatmap.with_data((~np.isnan(self.heatmap.data)).astype(np.uint8))

    @property
    def shown_heat(self) -> Volume:
        """The heat for programs that do not expect NaN: what was not scored is as cold as the coldest scored voxel."""
        heat = self.heatmap.data
        coldest = float(np.nanmin(heat)) if np.isfinite(heat).any() else 0.0
        return self.heatmap.with_data(np.where(np.isnan(heat), np.float32(coldest), heat).astype(np.float32))

    @property
    def top(self) -> float:
        """Heat (z) at which the colours end."""
        heat = self.heatmap.data
        hottest = float(np.nanmax(heat)) if np.isfinite(heat).any() else 0.0
        return max(_TOP, hottest, self.threshold + 1.0)

    def called(self, finding: Finding) -> str:
        """A finding in a list; a hot place of a doubtful scan is not called a finding."""
        return f"{'Hot place' if self.doubt else 'Finding'} {finding.id}"
