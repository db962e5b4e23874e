"""Whether healthy men, older subjects or one scanner are flagged more often."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from medgen.anomaly.evaluation.groups import CSV_COLUMNS, GroupRow, csv_rows, groups_of
from medgen.data.cases import Manifest
from medgen.report.anomaly.cohort import groups_section
from medgen.report.html import Report
from medgen.runs.context import Output, Results, RunContext
from medgen.system.files import write_csv

from ...stages import Stage
from ..config import AnomalyRunConfig
from .calibrate import Calibrated
from .evaluate import Evaluation


class GroupRows(tuple[GroupRow, ...]):
    """The rates of all groups; empty where the manifest has no column to group by."""

    __slots__ = ()


class Groups(Stage[AnomalyRunConfig]):
    """Compares the false-positive rates of groups of healthy subjects."""

    name = "groups"
    needs = (Manifest, Calibrated, Evaluation)
    makes = (GroupRows,)

    def run(self, config: AnomalyRunConfig, results: Results, run: RunContext) -> Iterable[Any]:
        """See the class."""
        calibrated, measurements = results[Calibrated], results[Evaluation].measurements
        rows = groups_of(results[Manifest], measurements, calibrated.detector, calibrated.healthy)
        if rows:
            write_csv(run.folder.out / "groups.csv", csv_rows(rows), CSV_COLUMNS)
        return [GroupRows(rows)]

    def outputs(self) -> tuple[Output, ...]:
        """The rates."""
        return (Output("groups.csv", "false-positive rates by age, sex, scanner and site, where the cohort has them"),)

    def metrics(self, results: Results) -> Mapping[str, Any]:
        """The rates."""
        return {"groups": results[GroupRows]}

    def report(self, report: Report, results: Results, run: RunContext) -> None:
        """The rates."""
        groups_section(report, results[GroupRows], results[Evaluation].summary.target_fpr)
