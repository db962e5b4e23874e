"""The smallest lesion that is detected, by region and contrast."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from medgen.anomaly.evaluation.detectability import Detectability, detectability
from medgen.anomaly.evaluation.screening import Screening
from medgen.report.anomaly.detectability import detectability_section, write_detectability
from medgen.report.html import Report
from medgen.runs.context import Output, Results, RunContext
from medgen.training.cost import Estimate

from ...stages import Stage
from ..cohort import AnomalyCohort
from ..config import AnomalyRunConfig
from ..trial import Trial
from .calibrate import Calibrated


class MeasureDetectability(Stage[AnomalyRunConfig]):
    """Scores dark and bright implants of several sizes in held-out healthy scans."""

    name = "detectability"
    needs = (Calibrated, Screening)
    makes = (Detectability,)

    def wanted(self, config: AnomalyRunConfig) -> bool:
        """Unless it is switched off: it scores many scans."""
        return config.detectability.enabled

    def estimate(
        self, config: AnomalyRunConfig, known: Results, before: Mapping[str, Estimate]
    ) -> Mapping[str, Estimate]:
        """How many more scans are scored, and for how long."""
        scans = config.detectability.measurements(len(known[AnomalyCohort].parts["test"].subjects))
        said, seconds = f"minimum detectable lesion: at most {scans} more scans scored", scans * known[Trial].lean
        return {self.name: Estimate(seconds, 0.0, (known[Trial].line(said, seconds),), scans=scans)}

    def run(self, config: AnomalyRunConfig, results: Results, run: RunContext) -> Iterable[Any]:
        """See the class."""
        detector, healthy = results[Calibrated].detector, results[Screening].passed
        with run.bars() as tick:
            found = detectability(detector, healthy, config.detectability, config.seed, tick)
        write_detectability(run.folder.out / "detectability.csv", found)
        return [found]

    def outputs(self) -> tuple[Output, ...]:
        """Every cell of the grid."""
        return (Output("detectability.csv", "which implants are detected, by region, contrast and radius"),)

    def metrics(self, results: Results) -> Mapping[str, Any]:
        """Every cell of the grid."""
        return {"detectability": results.get(Detectability)}

    def report(self, report: Report, results: Results, run: RunContext) -> None:
        """The smallest radii and the grid."""
        detectability_section(report, results[Detectability])
