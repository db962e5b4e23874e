"""Pages to look through scored scans with a browser, one file for each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medgen.anomaly.detector import AnomalyDetector
from medgen.report.anomaly.pictures import Scored
from medgen.report.anomaly.scored.viewer import scored_viewer
from medgen.report.viewer.library import missing
from medgen.report.viewer.page import Place
from medgen.runs.context import Output

FOLDER = "viewers/"
VIEWERS = Output(FOLDER, "a page to look through a scan with its heat and findings: open it in a browser, no network")

# A page has a scan three times and NiiVue: 3 to 40 MB.
_FEW = 20


@dataclass(frozen=True)
class Viewers:
    """Writes the viewers of a scoring.

    Attributes:
        out: Folder of the run.
        which: ``all``, ``findings`` (scans with findings or a doubt) or ``none``.
        why: Why none can be written, in a sentence; empty if some can, or none is wanted.
    """

    out: Path
    which: str
    why: str = ""

    @classmethod
    def of(cls, out: Path, which: str, scans: int) -> Viewers:
        """For so many scans; ``auto`` is all of a few, else those with findings."""
        if which == "auto":
            which = "all" if scans <= _FEW else "findings"
        why = missing() if which != "none" else ""
        return cls(out, "none" if why else which, why)

    def write(self, entry: Scored, detector: AnomalyDetector, report: str) -> str:
        """Write the viewer of a scan if it gets one.

        Args:
            entry: The scan.
            detector: What scored it.
            report: Path of the page that leads to it, relative to the run's folder.

        Returns:
            Its path, relative to the run's folder; empty if there is none.
        """
        result = entry.result
        some = result.findings or result.unlisted or result.doubts
        if self.which == "none" or (self.which == "findings" and not some):
            return ""
        return self._write(entry, detector, report)

    def write_known(self, entry: Scored, detector: AnomalyDetector, place: Place | None) -> str:
        """Write the viewer of a test scan, in which an unusual place may be known; returns its path or nothing."""
        return "" if self.which == "none" else self._write(entry, detector, "report.html", place)

    def _write(self, entry: Scored, detector: AnomalyDetector, report: str, known: Place | None = None) -> str:
        path = f"{FOLDER}{entry.name}.html"
        scored_viewer(entry, detector, back=f"../{report}", known=known).write(self.out / path)
        return path
