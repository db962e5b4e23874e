"""The detector is calibrated on development scans that its models have not seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medgen.anomaly.artifact import to_artifact
from medgen.anomaly.detector import AnomalyDetector
from medgen.anomaly.evaluation.prospects import Prospect, prospects
from medgen.anomaly.findings.false_findings import dispersion_of
from medgen.anomaly.scores.catalogue import get
from medgen.data.cases import Manifest
from medgen.preprocessing.dataset import Dataset
from medgen.preprocessing.parts import PreparedParts
from medgen.preprocessing.recipe import Preprocess, Template
from medgen.report.anomaly.cohort import more_scans_section
from medgen.report.anomaly.heat.choice import choice_section
from medgen.report.anomaly.heat.sources import heat_sources
from medgen.report.html import Report
from medgen.report.methods.anomaly import calibration, heatmap
from medgen.report.methods.text import MethodsText
from medgen.runs.context import Output, Results, RunContext
from medgen.runs.keys import Key
from medgen.training.cost import Estimate, minutes
from medgen.training.trainer import device_of
from medgen.training.transfer.source import recorded

from ...stages import Registered, Stage
from ..cohort import AnomalyCohort
from ..config import AnomalyRunConfig
from ..known_scans import inputs_of
from ..outputs import CALIBRATION, level_facts, write_calibration
from ..trial import Trial
from .train import FoldModels


@dataclass(frozen=True, eq=False)
class Calibrated:
    """The detector of a run.

    Attributes:
        detector: As it is saved.
        healthy: The development scans that it was calibrated on.
        excluded: Development cases that were left out of the calibration.
        tested: Kinds of implant that the run tests it on.
        sha256: Digest of the saved detector.
    """

    detector: AnomalyDetector
    healthy: Dataset
    excluded: tuple[str, ...]
    tested: tuple[str, ...]
    sha256: str


class Calibrate(Stage[AnomalyRunConfig]):
    """Fits scores, normative maps, fusion and threshold out of fold, and saves the detector."""

    name = "calibrate"
    needs = (Manifest, AnomalyCohort, PreparedParts, FoldModels)
    makes = (Calibrated,)
    keys = (
        Key("calibration.subjects", "healthy subjects that p-values and findings rest on"),
        Key("calibration.threshold", "family-wise threshold of the heat, in standard deviations"),
        Key("calibration.findings_threshold", "threshold of findings, in standard deviations"),
    )
    own_keys = (
        Key("threshold", "family-wise threshold of the heat, in standard deviations"),
        Key("findings_threshold", "threshold of findings, in standard deviations"),
    )

    def estimate(
        self, config: AnomalyRunConfig, known: Results, before: Mapping[str, Estimate]
    ) -> Mapping[str, Estimate]:
        """Time of the calibration, and of the scores that train something of their own, measured on a few steps."""
        channels, folds = len(next(iter(known[Manifest])).read_image().data), config.anomaly.folds
        trial, scans = known[Trial], len(known[AnomalyCohort].parts["development"])
        copies = config.anomaly.validation.per_scan * config.anomaly.validation.enabled
        said = f"{self.name}: {scans} development scans and {scans * copies} implanted copies"
        seconds = scans * trial.calibrate
        found = {self.name: Estimate(seconds, 0.0, (trial.line(said, seconds),), scans=scans)}
        for name in dict.fromkeys([*config.anomaly.fusion.channels, *config.anomaly.scores]):
            entry = get(name)
            if entry.fit_seconds is not None:
                settings = config.anomaly.of_scores()
                seconds = folds * entry.fit_seconds(channels, device_of(config.device), settings)
                line = f"{name}: {folds} trainings of its own, about {minutes(seconds)}"
                found[f"{self.name} {name}"] = Estimate(seconds, 0.0, (line,))
        return found

    def run(self, config: AnomalyRunConfig, results: Results, run: RunContext) -> Iterable[Any]:
        """See the class."""
        prepared, trained = results[PreparedParts], results[FoldModels]
        development, recipe = prepared.data["development"], results[AnomalyCohort].recipe
        detector, healthy = fit_detector(
            config, development, trained, recipe, prepared.template, run, results[Manifest].channel_names
        )
        run.stage.log_metrics(
            {"threshold": detector.calibration.threshold, "findings_threshold": detector.findings_threshold}
        )
        write_calibration(run.folder.out, detector.calibration, list(dict.fromkeys(healthy.subjects)))
        facts = provenance(config, results[Manifest], development, trained, run.track.id)
        artifact = to_artifact(detector, facts)
        artifact.save(run.folder.model)
        run.track.set_tags({"medgen.model.sha256": artifact.sha256, **_channels(detector)})
        return [Calibrated(detector, healthy, config.exclude, tuple(config.evaluation.kinds), artifact.sha256)]

    def outputs(self) -> tuple[Output, ...]:
        """The detector and the scores it was calibrated by."""
        return (
            Output("model/", "the detector, which `medgen anomaly score` takes", tracked=True),
            *CALIBRATION,
        )

    def summary(self, results: Results) -> Mapping[str, Any]:
        """What the calibration rests on, and its thresholds."""
        detector = results[Calibrated].detector
        return {
            "calibration.subjects": len(detector.calibration.maxima),
            "calibration.threshold": detector.calibration.threshold,
            "calibration.findings_threshold": detector.findings_threshold,
        }

    def models(self, config: AnomalyRunConfig, results: Results) -> Iterable[Registered]:
        """The detector."""
        return [detector_of(results[Manifest].name, results[Calibrated].sha256)]

    def metrics(self, results: Results) -> Mapping[str, Any]:
        """The threshold and what it rests on."""
        detector = results[Calibrated].detector
        return {
            "threshold": detector.calibration.threshold,
            "false_findings": level_facts(detector),
            "precision": "bf16" if detector.bf16 else "32",
            "calibration_subjects": len(detector.calibration.maxima),
            "channels": list(detector.config.fusion.channels),
            "scan_score": detector.config.scan_score,
            "excluded": list(results[Calibrated].excluded),
            "heat_sources": list(heat_sources(detector)),
            "choice": detector.choice,
            "more_subjects": _prospects(detector),
            "adjusted": {**detector.adjusted.to_plain(), "words": detector.adjusted.words},
        }

    def report(self, report: Report, results: Results, run: RunContext) -> None:
        """How the scores of the heatmap were chosen."""
        calibrated = results[Calibrated]
        detector = calibrated.detector
        choice_section(report, detector, calibrated.tested)
        more_scans_section(report, _prospects(detector))

    def methods(self, text: MethodsText, config: AnomalyRunConfig, results: Results) -> None:
        """The heatmap, and what p-values and findings rest on."""
        detector = results[Calibrated].detector
        heatmap(text, detector)
        calibration(text, detector)

    def lines(self, results: Results, run: RunContext) -> list[str]:
        """What is adjusted for, where the cohort has covariates."""
        adjusted = results[Calibrated].detector.adjusted
        return [f"normative maps: {adjusted.words}"] if adjusted.covariates or adjusted.dropped else []


def detector_of(cohort: str, sha256: str) -> Registered:
    """The detector of a run, or one that was moved to another cohort, as the registry lists it."""
    return Registered(
        f"medgen-anomaly-{cohort}", "model", sha256, "anomaly", f"Anomaly detector, calibrated on {cohort}"
    )


def _prospects(detector: AnomalyDetector) -> list[Prospect]:
    healthy, level = detector.calibration.healthy, detector.config.findings.false_findings
    return prospects(healthy.n, level, dispersion_of(healthy.counts(level)))


def _channels(detector: AnomalyDetector) -> dict[str, str]:
    tags = {"medgen.anomaly.channels": ", ".join(detector.config.fusion.channels)}
    return tags if detector.choice is None else {**tags, "medgen.anomaly.channel_choice": detector.choice.words}


def fit_detector(
    config: AnomalyRunConfig,
    development: Dataset,
    trained: FoldModels,
    recipe: Preprocess,
    template: Template | None,
    run: RunContext,
    contrasts: Sequence[str],
) -> tuple[AnomalyDetector, Dataset]:
    """A detector from the models of all folds, and the development scans it was fitted on: those not excluded."""
    excluded = {*config.exclude}
    healthy = development.subset([case for case in development.ids if case not in excluded])
    folds = [[case for case in fold if case not in excluded] for fold in trained.held_out]
    with run.bars() as tick:
        detector = AnomalyDetector.fit(
            healthy,
            folds,
            trained.models,
            config.anomaly,
            recipe,
            template,
            progress=tick,
            bf16=trained.bf16,
            contrasts=contrasts,
        )
    return detector, healthy


def provenance(
    config: AnomalyRunConfig, manifest: Manifest, development: Dataset, trained: FoldModels, run_id: str
) -> dict[str, Any]:
    """What the model is made from: the run, its configuration, and every development scan by id and hash."""
    return {
        "run_id": run_id,
        "cohort": manifest.name,
        "seed": config.seed,
        "config_sha256": config.digest(),
        "manifest_sha256": manifest.digest(),
        "cases": list(development.ids),
        "inputs": inputs_of(manifest, development.ids),
        "excluded": list(config.exclude),
        "training_sha256": trained.digest,
        "init": dict(trained.starts),
        **recorded(trained.lineage),
    }
