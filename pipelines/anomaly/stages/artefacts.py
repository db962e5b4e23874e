"""Whether faulty scans are told from unusual ones: artefacts in held-out healthy scans."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from medgen.anomaly.artefacts.signs import not_named
from medgen.anomaly.evaluation.artefacts import COLUMNS, ArtefactResults, measure_artefacts
from medgen.anomaly.evaluation.measure import scans_to_test
from medgen.anomaly.evaluation.screening import Screening
from medgen.report.anomaly.artefacts import artefacts_section, healthy_words
from medgen.report.html import Report
from medgen.report.methods.anomaly import artefacts
from medgen.report.methods.text import MethodsText
from medgen.runs.context import Output, Results, RunContext
from medgen.system.files import plain, write_csv
from medgen.training.cost import Estimate

from ...stages import Stage
from ..cohort import AnomalyCohort
from ..config import AnomalyRunConfig
from ..trial import Trial
from .calibrate import Calibrated


class MeasureArtefacts(Stage[AnomalyRunConfig]):
    """Spoils held-out healthy scans and counts what is named, what is not, and what would be listed as a finding."""

    name = "artefacts"
    needs = (Calibrated, Screening)
    makes = (ArtefactResults,)

    def wanted(self, config: AnomalyRunConfig) -> bool:
        """Unless it is switched off, or there is no gate to name anything."""
        return config.artefacts.enabled and config.anomaly.gate.enabled

    def estimate(
        self, config: AnomalyRunConfig, known: Results, before: Mapping[str, Estimate]
    ) -> Mapping[str, Estimate]:
        """How many scans are spoilt and scored, and for how long."""
        cohort, own = known[AnomalyCohort], config.artefacts
        if why := not_named(len(cohort.parts["development"].subjects), cohort.recipe.spacing):
            return {self.name: Estimate(0.0, 0.0, (why,))}
        scans = len(cohort.parts["test"])
        scored = scans * min(own.scored, own.per_scan)
        said, trial = f"artefacts: {scans * own.per_scan} faulty copies, {scored} of them scored", known[Trial]
        # Every test scan is looked at as well, and so are its implanted copies.
        looked = scans * (own.per_scan + 1 + config.evaluation.per_scan)
        seconds = looked * trial.spoil + scored * trial.score
        return {self.name: Estimate(seconds, 0.0, (trial.line(said, seconds),), scans=scored)}

    def run(self, config: AnomalyRunConfig, results: Results, run: RunContext) -> Iterable[Any]:
        """See the class."""
        calibrated, passed = results[Calibrated], results[Screening].passed
        detector = calibrated.detector
        implanted = scans_to_test(
            passed, calibrated.healthy, detector.preprocess.spacing, config.evaluation, config.seed
        )
        with run.bars() as tick:
            found = measure_artefacts(detector, passed, implanted, config.artefacts, config.seed, tick)
        if found is None:
            # The cohort is too small or too coarse to name any.
            return []
        write_csv(run.folder.out / "artefacts.csv", [row.row() for row in found.rows], COLUMNS)
        return [found]

    def outputs(self) -> tuple[Output, ...]:
        """What became of every kind and strength."""
        return (
            Output("artefacts.csv", "how many faulty scans are named, refused, and listed, by artefact and strength"),
        )

    def metrics(self, results: Results) -> Mapping[str, Any]:
        """The same, how many scans that are not faulty look like an artefact, and the limits."""
        found, limits = results.get(ArtefactResults), results[Calibrated].detector.artefacts
        if found is None or limits is None:
            return {"artefacts": None}
        return {"artefacts": {**plain(found), "limits": limits.to_plain()}}

    def report(self, report: Report, results: Results, run: RunContext) -> None:
        """Tables of both."""
        limits = results[Calibrated].detector.artefacts
        if limits is not None:
            artefacts_section(report, results[ArtefactResults], limits)
        else:
            report.section("Artefacts", f"{_why(results)[:1].upper()}{_why(results)[1:]}.", layer="appendix")

    def methods(self, text: MethodsText, config: AnomalyRunConfig, results: Results) -> None:
        """The faulty copies, where there are any."""
        found = results.get(ArtefactResults)
        if found is not None:
            artefacts(text, config.artefacts, list(dict.fromkeys(row.artefact for row in found.rows)))

    def lines(self, results: Results, run: RunContext) -> list[str]:
        """How many are named, and how many scans look faulty and are not."""
        found = results.get(ArtefactResults)
        if found is None:
            return [_why(results)]
        named, scans = sum(row.named for row in found.rows), sum(row.scans for row in found.rows)
        listed, hot = sum(row.listed for row in found.rows), sum(row.hot for row in found.rows)
        return [
            f"artefacts: {named} of {scans} faulty copies named, findings listed on {listed} of {hot} with hot places; "
            f"{healthy_words(found)}"
        ]


def _why(results: Results) -> str:
    """Why no artefacts are named."""
    calibrated = results[Calibrated]
    return not_named(len(set(calibrated.healthy.subjects)), calibrated.detector.preprocess.spacing)
