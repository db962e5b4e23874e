"""Every scan is brought to the model grid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from medgen.anomaly.normative.covariates import check_columns
from medgen.data.cases import Manifest, write_splits
from medgen.preprocessing.parts import PreparedParts, prepare_parts
from medgen.report.anomaly.cohort import cohort_section
from medgen.report.html import Report
from medgen.report.methods.anomaly import subjects
from medgen.report.methods.preparation import preparation
from medgen.report.methods.text import MethodsText
from medgen.runs.context import Output, Results, RunContext
from medgen.runs.keys import Key
from medgen.training.cost import Estimate

from ... import patient_names
from ...stages import FAILED, MANIFEST, Stage
from ..cohort import AnomalyCohort, check_room
from ..config import AnomalyRunConfig
from ..trial import Trial
from .calibrate import Calibrated


class Prepare(Stage[AnomalyRunConfig]):
    """Writes who is in which part, builds the template from development scans, and prepares all scans."""

    name = "prepare"
    needs = (Manifest, AnomalyCohort)
    makes = (PreparedParts,)
    own_keys = (
        Key("development", "scans that train and calibrate"),
        Key("test", "held-out scans"),
        Key("failures", "scans that could not be prepared"),
    )

    def estimate(
        self, config: AnomalyRunConfig, known: Results, before: Mapping[str, Estimate]
    ) -> Mapping[str, Estimate]:
        """Time of the template and of all scans."""
        trial, parts = known[Trial], known[AnomalyCohort].parts
        scans = sum(map(len, parts.values()))
        seconds = scans * trial.prepare + len(parts["development"]) * trial.template
        return {self.name: Estimate(seconds, 0.0, (trial.line(f"prepare: {scans} scans", seconds),))}

    def run(self, config: AnomalyRunConfig, results: Results, run: RunContext) -> Iterable[Any]:
        """See the class.

        Raises:
            ConfigError: If no development scan that could be prepared has a covariate that is asked for.
            CalibrationError: If too few development scans could be prepared for the false-positive rate.
            DataError: If no scan of a part could be prepared, or one shows too little of a patient for an implant.
        """
        cohort, folder = results[AnomalyCohort], run.folder
        patient_names.write_manifest(results[Manifest], folder.out / "manifest.csv")
        named = {f"fold-{number}": fold for number, fold in enumerate(cohort.folds, start=1)}
        write_splits(folder.out / "splits.csv", {**named, "test": cohort.parts["test"]})
        with run.bars() as tick:
            prepared = prepare_parts(
                cohort.parts,
                cohort.parts["development"],
                cohort.recipe,
                workers=config.workers,
                register=folder.registrations,
                tick=tick,
            )
        counts = {name: len(data) for name, data in prepared.data.items()}
        run.stage.log_metrics({**counts, "failures": len(prepared.failures)})
        folder.write_failures((failure.case, "preprocess", failure.message) for failure in prepared.failures)
        check_room(config, prepared, cohort.recipe)
        development = prepared.data["development"]
        config.anomaly.check_subjects(len(set(development.subjects)))
        known = zip(development.ids, development.prepared, strict=True)
        used = [own.attributes for case, own in known if case not in {*config.exclude}]
        check_columns(config.anomaly.normative.covariates, used, config.data)
        return [prepared]

    def datasets(self, config: AnomalyRunConfig, results: Results) -> Mapping[str, Manifest]:
        """Development scans train models of the other folds, and calibrate unless excluded; test scans do neither."""
        manifest, data = results[Manifest], results[PreparedParts].data
        development = data["development"].ids
        return {
            "training": manifest.subset(development),
            "calibration": manifest.subset([case for case in development if case not in {*config.exclude}]),
            "test": manifest.subset(data["test"].ids),
        }

    def outputs(self) -> tuple[Output, ...]:
        """Who is in which part, and what could not be prepared."""
        return (
            *MANIFEST,
            Output("splits.csv", "the fold of every development scan, and the test scans", tracked=True),
            FAILED,
        )

    def metrics(self, results: Results) -> Mapping[str, Any]:
        """The recipe."""
        return {"preprocess": results[AnomalyCohort].recipe.model_dump(mode="json")}

    def report(self, report: Report, results: Results, run: RunContext) -> None:
        """The cohort."""
        calibrated = results[Calibrated]
        cohort_section(
            report,
            results[Manifest],
            results[AnomalyCohort].parts,
            calibrated.detector,
            seed=run.seed,
            failures=results[PreparedParts].failures,
            excluded=calibrated.excluded,
        )

    def methods(self, text: MethodsText, config: AnomalyRunConfig, results: Results) -> None:
        """Who took part, and the recipe."""
        cohort, failures = results[AnomalyCohort], results[PreparedParts].failures
        subjects(text, cohort.parts, len(cohort.folds), config.exclude, len(failures))
        preparation(text, cohort.recipe)

    def lines(self, results: Results, run: RunContext) -> list[str]:
        """How many scans are missing."""
        failures = results[PreparedParts].failures
        where = run.folder.out / FAILED.name
        return [f"{len(failures)} scan(s) could not be prepared, see {where}"] if failures else []
