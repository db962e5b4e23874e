"""Development scans that may not be healthy after all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from medgen.anomaly.evaluation.contamination import COLUMNS, Suspect, suspects
from medgen.report.anomaly.gate import contamination_section
from medgen.report.anomaly.pictures import suspect_picture
from medgen.report.html import Report
from medgen.runs.context import Output, Results, RunContext
from medgen.system.files import write_csv

from ...stages import Stage
from ..config import AnomalyRunConfig
from .calibrate import Calibrated


class Suspects(tuple[Suspect, ...]):
    """The development scans that stand out from the others."""

    __slots__ = ()


class Contamination(Stage[AnomalyRunConfig]):
    """Lists development scans to look at before the detector is trusted."""

    name = "contamination"
    needs = (Calibrated,)
    makes = (Suspects,)

    def run(self, config: AnomalyRunConfig, results: Results, run: RunContext) -> Iterable[Any]:
        """See the class."""
        detector, healthy = results[Calibrated].detector, results[Calibrated].healthy
        with run.bars() as tick:
            found = suspects(detector, healthy, suspect_picture, partial(tick, "looking at outliers"))
        write_csv(run.folder.out / "contamination.csv", [item.row() for item in found], COLUMNS)
        return [Suspects(found)]

    def outputs(self) -> tuple[Output, ...]:
        """The list."""
        return (Output("contamination.csv", "development scans that stand out from the others"),)

    def metrics(self, results: Results) -> Mapping[str, Any]:
        """The list."""
        return {"suspects": [item.row() for item in results[Suspects]]}

    def report(self, report: Report, results: Results, run: RunContext) -> None:
        """The list."""
        contamination_section(report, results[Suspects])

    def lines(self, results: Results, run: RunContext) -> list[str]:
        """How many there are."""
        found, where = results[Suspects], run.folder.out / "contamination.csv"
        if not found:
            return []
        return [f"{len(found)} training scan(s) stand out, look at them before trusting: {where}"]
