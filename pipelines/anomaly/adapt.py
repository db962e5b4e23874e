"""Move a detector to another site by healthy scans from there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from medgen.anomaly.adaptation import Adapted, adapt
from medgen.anomaly.artifact import from_artifact, to_artifact
from medgen.anomaly.detector import AnomalyDetector
from medgen.anomaly.findings.false_findings import count_interval
from medgen.config import Config, parse_config
from medgen.data.cases import Manifest
from medgen.data.integrity import check_scans
from medgen.data.layouts.cohort_config import CohortConfig
from medgen.data.layouts.detect import load_cohort
from medgen.errors import ArtifactError, DataError
from medgen.models.artifact import TrainedModel
from medgen.preprocessing.dataset import Dataset, Failure, prepare_dataset
from medgen.progress import bars
from medgen.report.anomaly.adaptation import adaptation_section, adapted_words
from medgen.report.anomaly.words import LIMITS
from medgen.report.html import Report
from medgen.runs import tracking
from medgen.runs.context import Output, Results, RunContext
from medgen.runs.folder import RunSummary, open_run
from medgen.training.trainer import device_of
from medgen.training.transfer.source import LINEAGE, Lineage, recorded

from .. import patient_names
from ..preflight import ADAPTATION, check_data, check_model, check_new
from ..stages import FAILED, MANIFEST, Pipeline, Stage
from .known_scans import check_strangers, inputs_of
from .outputs import CALIBRATION, write_calibration


class AdaptConfig(Config):
    """One adaptation, as it is kept in ``config.yaml``.

    Attributes:
        model: Artifact folder of the detector.
        adapted_from: Its digest.
        healthy: Healthy scans of the other site.
        cohort: How they are laid out.
        out: Folder of the results.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        workers: Threads that read and prepare scans.
    """

    model: Path
    adapted_from: str
    healthy: Path
    cohort: CohortConfig = CohortConfig()
    out: Path
    device: str = "auto"
    workers: int = Field(default=2, ge=0, le=256)


def run(
    model: Path,
    *,
    healthy: Path,
    out: Path,
    cohort: CohortConfig | None = None,
    device: str = "auto",
    workers: int = 2,
    overwrite: bool = False,
    progress: bool = False,
) -> RunSummary:
    """Write ``model/``, a detector for the site of some healthy scans, and a report; the old one stays as it is.

    Args:
        model: Artifact folder of an anomaly run.
        healthy: Healthy scans of at least ten other subjects.
        out: New folder.
        cohort: How they are laid out.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        workers: Threads.
        overwrite: Replace the results of an earlier adaptation.
        progress: Show progress bars.

    Raises:
        ArtifactError: If the artifact is damaged or of another kind.
        AuditError: If the model has learnt from one of the scans.
        CalibrationError: If there are too few subjects.
        DataError: If the scans cannot be used.
    """
    check_model(model)
    check_data(healthy)
    check_new(out, (model, healthy), overwrite=overwrite, mark=ADAPTATION)
    artifact = TrainedModel.load(model, device_of(device))
    given = {"model": model, "adapted_from": artifact.sha256, "healthy": healthy, "out": out, "device": device}
    config = parse_config(
        AdaptConfig, {**given, "cohort": cohort or CohortConfig(), "workers": workers}, source="command line"
    )
    try:
        detector = from_artifact(artifact)
    except ArtifactError as error:
        raise ArtifactError(f"{model}: {error}") from error
    manifest = load_cohort(healthy, config.cohort)
    patient_names.warn(manifest.named_by_folders)
    with bars(progress) as tick:
        manifest = check_scans(manifest, workers, partial(tick, "checking scans"), masks=False)
    check_strangers(artifact, manifest)
    patient_names.announce(manifest)
    seed = int(artifact.meta.get("seed") or 0)
    with (
        open_run(out, config, overwrite=overwrite, mark=ADAPTATION) as folder,
        tracking.start("anomaly-adapt", folder.out, config=config.model_dump(mode="json"), seed=seed) as track,
    ):
        context = RunContext(folder, track, track, seed, progress=progress)
        results = Results([artifact, detector, manifest])
        PIPELINE.run(config, results, context)
        report = Report("A detector for another site", f"{manifest.name}: {len(manifest)} scans", track.id)
        lines = PIPELINE.finish(config, report, LIMITS, results, context, manifest.named_by_folders)
    failed = bool(results[Usable].failures)
    return RunSummary(folder.out, int(failed), (*lines, f"model:  {folder.model}", f"report: {folder.report}"))


class Usable:
    """The scans of the other site that could be used.

    Attributes:
        data: Prepared by the recipe of the detector.
        failures: The others, with reasons.
    """

    def __init__(self, data: Dataset, failures: Iterable[Failure]) -> None:
        self.data = data
        self.failures = tuple(failures)


class PrepareSite(Stage[AdaptConfig]):
    """Brings the scans to the grid of the detector; whom it does not know by its covariates is left out."""

    name = "prepare"
    needs = (AnomalyDetector, Manifest)
    makes = (Usable,)

    def run(self, config: AdaptConfig, results: Results, run: RunContext) -> Iterable[Any]:
        """See the class.

        Raises:
            DataError: If no scan can be used.
        """
        detector, manifest = results[AnomalyDetector], results[Manifest]
        patient_names.write_manifest(manifest, run.folder.out / "manifest.csv")
        with run.bars() as tick:
            data, failures = prepare_dataset(
                manifest, detector.preprocess, detector.template, config.workers, partial(tick, "preparing")
            )
        if (known := detector.covariates) is not None:
            for case, own in zip(data.ids, data.prepared, strict=True):
                absent = known.missing(own.attributes)
                reason = known.problem(own.attributes) or (
                    f"no {' and no '.join(absent)} in the manifest; expected it, since the model is adjusted for "
                    f"{known.words}; add the column"
                    if absent
                    else ""
                )
                if reason:
                    failures.append(Failure(case, reason))
            refused = {failure.case for failure in failures}
            kept = [case for case in data.ids if case not in refused]
            if not kept:
                raise DataError(f"{config.healthy}: no scan can be used; {failures[0].case}: {failures[0].message}")
            data = data.subset(kept)
        run.folder.write_failures((failure.case, "prepare", failure.message) for failure in failures)
        return [Usable(data, failures)]

    def outputs(self) -> tuple[Output, ...]:
        """The scans, and those that could not be used."""
        return (*MANIFEST, FAILED)

    def lines(self, results: Results, run: RunContext) -> list[str]:
        """How many scans are missing."""
        failures = results[Usable].failures
        return [f"{len(failures)} scan(s) could not be used, see {run.folder.out / FAILED.name}"] if failures else []


class Adapt(Stage[AdaptConfig]):
    """Moves means and scales to the new site, calibrates there, and saves the new detector."""

    name = "adapt"
    needs = (TrainedModel, AnomalyDetector, Manifest, Usable)
    makes = (Adapted,)

    def run(self, config: AdaptConfig, results: Results, run: RunContext) -> Iterable[Any]:
        """See the class."""
        source, manifest, data = results[TrainedModel], results[Manifest], results[Usable].data
        with run.bars() as tick:
            adapted = adapt(results[AnomalyDetector], data, tick)
        write_calibration(run.folder.out, adapted.detector.calibration, list(dict.fromkeys(data.subjects)))
        artifact = to_artifact(adapted.detector, _provenance(source, manifest, data))
        artifact.save(run.folder.model)
        run.track.set_tags({"medgen.model.sha256": artifact.sha256, "medgen.adapted_from.sha256": source.sha256})
        return [adapted]

    def outputs(self) -> tuple[Output, ...]:
        """The new detector and the scores that it was calibrated by."""
        return (Output("model/", "the detector for the new site", tracked=True), *CALIBRATION)

    def metrics(self, results: Results) -> Mapping[str, Any]:
        """Before and after."""
        adapted, level = results[Adapted], results[AnomalyDetector].config.findings.false_findings
        healthy = adapted.detector.calibration.healthy
        return {
            "subjects": healthy.n,
            "target_fpr": adapted.target,
            "threshold": adapted.detector.calibration.threshold,
            "findings_threshold": adapted.detector.findings_threshold,
            "false_findings_before": count_interval(adapted.false_findings),
            "false_findings_after": healthy.rate(level),
            "passing_before": adapted.passing,
            "refused_before": list(adapted.refused),
        }

    def report(self, report: Report, results: Results, run: RunContext) -> None:
        """Before and after."""
        adaptation_section(report, results[AnomalyDetector], results[Adapted], results[TrainedModel].sha256)

    def lines(self, results: Results, run: RunContext) -> list[str]:
        """Before and after, in a sentence."""
        return [adapted_words(results[AnomalyDetector], results[Adapted])]


PIPELINE = Pipeline[AdaptConfig]([PrepareSite(), Adapt()], given=(TrainedModel, AnomalyDetector, Manifest))


def _provenance(source: TrainedModel, manifest: Manifest, data: Dataset) -> dict[str, Any]:
    """What the new detector is made from: the old one, and every scan of the new site."""
    meta = {key: value for key, value in source.meta.items() if key != "training_sha256"}
    lineage = Lineage.of(meta.get(LINEAGE))
    used = Lineage.of_cases(manifest, data.ids)
    scans = {"cases": list(data.ids), "inputs": inputs_of(manifest, data.ids)}
    adapted = {"from_sha256": source.sha256, "manifest_sha256": manifest.digest(), **scans}
    earlier = meta.get("adapted")
    chain = [*(earlier if isinstance(earlier, list) else []), adapted]
    return {**meta, "adapted": chain, **recorded(None if lineage is None else lineage + used)}
