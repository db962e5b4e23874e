"""The stages of moving a detector to another site: prepare its scans, move the detector, and those beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from medgen.anomaly.adaptation import Adapted, adapt
from medgen.anomaly.artifact import from_artifact, to_artifact
from medgen.anomaly.detector import AnomalyDetector
from medgen.anomaly.findings.false_findings import count_interval
from medgen.config import Config
from medgen.data.cases import Case, Manifest
from medgen.data.content import label_map_words
from medgen.data.layouts.cohort_config import CohortConfig
from medgen.errors import ArtifactError, DataError
from medgen.models.artifact import TrainedModel
from medgen.preprocessing.dataset import Dataset, Failure, prepare_dataset
from medgen.preprocessing.prepared import PreparedScan
from medgen.report.anomaly.adaptation import adaptation_section, adapted_words, refused_words
from medgen.report.html import Report
from medgen.report.methods.anomaly import calibration, heatmap, moved
from medgen.report.methods.text import MethodsText
from medgen.runs.context import Output, Results, RunContext
from medgen.runs.keys import Key
from medgen.training.trainer import device_of
from medgen.training.transfer.source import LINEAGE, Lineage, recorded

from ... import patient_names
from ...stages import FAILED, MANIFEST, Pipeline, Registered, Stage
from ..known_scans import inputs_of
from ..outputs import CALIBRATION, write_calibration
from .calibrate import detector_of
from .without import FOLDER, TrainWithout, folder_of


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
    """Brings the scans to the grid of the detector; label maps, and whom it does not know, are left out."""

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
        cases = {case.id: case for case in manifest}
        for case, own in zip(data.ids, data.prepared, strict=True):
            if reason := _unusable(detector, cases[case], own):
                failures.append(Failure(case, reason))
        refused = {failure.case for failure in failures}
        kept = [case for case in data.ids if case not in refused]
        if not kept:
            raise DataError(f"{config.healthy}: no scan can be used; {failures[0].case}: {failures[0].message}")
        data = data.subset(kept)
        run.folder.write_failures((failure.case, "prepare", failure.message) for failure in failures)
        return [Usable(data, failures)]

    def datasets(self, config: AdaptConfig, results: Results) -> Mapping[str, Manifest]:
        """The scans that the detector is calibrated on anew."""
        return {"calibration": results[Manifest].subset(results[Usable].data.ids)}

    def outputs(self) -> tuple[Output, ...]:
        """The scans, and those that could not be used."""
        return (*MANIFEST, FAILED)

    def lines(self, results: Results, run: RunContext) -> list[str]:
        """How many scans are missing."""
        failures = results[Usable].failures
        return [f"{len(failures)} scan(s) could not be used, see {run.folder.out / FAILED.name}"] if failures else []


@dataclass(frozen=True)
class NewDetector:
    """The saved detector of the new site.

    Attributes:
        sha256: Its digest.
    """

    sha256: str


class Adapt(Stage[AdaptConfig]):
    """Moves means and scales to the new site, calibrates there, and saves the new detector."""

    name = "adapt"
    needs = (TrainedModel, AnomalyDetector, Manifest, Usable)
    makes = (Adapted, NewDetector)
    keys = (
        Key("calibration.subjects", "healthy subjects that p-values and findings rest on"),
        Key("calibration.threshold", "family-wise threshold of the heat, in standard deviations"),
    )

    def run(self, config: AdaptConfig, results: Results, run: RunContext) -> Iterable[Any]:
        """See the class."""
        source, manifest, data = results[TrainedModel], results[Manifest], results[Usable].data
        with run.bars() as tick:
            adapted = adapt(results[AnomalyDetector], data, tick)
        write_calibration(run.folder.out, adapted.detector.calibration, list(dict.fromkeys(data.subjects)))
        artifact = to_artifact(adapted.detector, provenance(source, manifest, data))
        artifact.save(run.folder.model)
        run.track.set_tags({"medgen.model.sha256": artifact.sha256, "medgen.adapted_from.sha256": source.sha256})
        return [adapted, NewDetector(artifact.sha256)]

    def outputs(self) -> tuple[Output, ...]:
        """The new detector and the scores that it was calibrated by."""
        return (Output("model/", "the detector for the new site", tracked=True), *CALIBRATION)

    def summary(self, results: Results) -> Mapping[str, Any]:
        """What the new calibration rests on, and its threshold."""
        calibration = results[Adapted].detector.calibration
        return {"calibration.subjects": len(calibration.maxima), "calibration.threshold": calibration.threshold}

    def models(self, config: AdaptConfig, results: Results) -> Iterable[Registered]:
        """The new detector."""
        return [detector_of(results[Manifest].name, results[NewDetector].sha256)]

    def metrics(self, results: Results) -> Mapping[str, Any]:
        """Before and after."""
        return facts(results[AnomalyDetector], results[Adapted])

    def report(self, report: Report, results: Results, run: RunContext) -> None:
        """Before and after."""
        adaptation_section(report, results[AnomalyDetector], results[Adapted], results[TrainedModel].sha256)

    def methods(self, text: MethodsText, config: AdaptConfig, results: Results) -> None:
        """From which scans the new calibration is."""
        adapted, data = results[Adapted], results[Usable].data
        moved(text, config.adapted_from, len(data.ids), len(set(data.subjects)))
        heatmap(text, adapted.detector)
        calibration(text, adapted.detector)

    def lines(self, results: Results, run: RunContext) -> list[str]:
        """Before and after, in a sentence."""
        adapted = results[Adapted]
        return [line for line in (adapted_words(results[AnomalyDetector], adapted), refused_words(adapted)) if line]


@dataclass(frozen=True, eq=False)
class AdaptedWithout:
    """Detectors for scans that lack channels, moved to the new site.

    Attributes:
        moved: By the missing channels, joined by commas: the digest of the old model, the old detector, what it became.
    """

    moved: Mapping[str, tuple[str, AnomalyDetector, Adapted]]


class AdaptWithout(Stage[AdaptConfig]):
    """Moves the detectors beside the model that score scans without some channels, by the same scans without them."""

    name = "without"
    needs = (TrainedModel, Manifest, Usable)
    makes = (AdaptedWithout,)

    def wanted(self, config: AdaptConfig) -> bool:
        """Where the model's run has made such detectors."""
        return bool(_beside(config))

    def run(self, config: AdaptConfig, results: Results, run: RunContext) -> Iterable[Any]:
        """See the class.

        Raises:
            ArtifactError: If such a detector is of another model, or damaged.
        """
        manifest, data, names = (
            results[Manifest],
            results[Usable].data,
            results[TrainedModel].meta.get("channels") or [],
        )
        moved = {}
        for folder in _beside(config):
            source = TrainedModel.load(folder, device_of(config.device))
            missing, left = (source.meta.get(key) or [] for key in ("missing", "channels"))
            if not missing or sorted([*missing, *left]) != sorted(names):
                raise ArtifactError(
                    f"{folder}: a detector without {', '.join(missing) or 'nothing'} and with {', '.join(left)}; "
                    f"expected one of the model with {', '.join(names)}; remove it"
                )
            old = from_artifact(source, folder)
            own, words = data.of_channels([names.index(name) for name in left]), ", ".join(missing)
            with run.bars() as tick:
                adapted = adapt(old, own, tick)
            to_artifact(adapted.detector, provenance(source, manifest, own)).save(folder_of(run.folder.out, missing))
            moved[words] = source.sha256, old, adapted
        return [AdaptedWithout(moved)]

    def outputs(self) -> tuple[Output, ...]:
        """The new detectors."""
        return TrainWithout().outputs()

    def metrics(self, results: Results) -> Mapping[str, Any]:
        """Before and after, of each."""
        found = results.get(AdaptedWithout)
        if found is None:
            return {}
        return {"without": {name: facts(old, adapted) for name, (_, old, adapted) in found.moved.items()}}

    def report(self, report: Report, results: Results, run: RunContext) -> None:
        """Before and after, of each."""
        for name, (sha256, old, adapted) in results[AdaptedWithout].moved.items():
            adaptation_section(report, old, adapted, sha256, name)

    def lines(self, results: Results, run: RunContext) -> list[str]:
        """Before and after, a sentence for each."""
        moved = results[AdaptedWithout].moved.items()
        return [f"without {name}: {adapted_words(old, adapted)}" for name, (_, old, adapted) in moved]


PIPELINE = Pipeline[AdaptConfig](
    [PrepareSite(), Adapt(), AdaptWithout()], given=(TrainedModel, AnomalyDetector, Manifest)
)


def _beside(config: AdaptConfig) -> list[Path]:
    return sorted(path for path in (config.model.resolve().parent / FOLDER).glob("*/") if path.is_dir())


def facts(old: AnomalyDetector, adapted: Adapted) -> dict[str, Any]:
    """The numbers of an adaptation."""
    level, healthy = old.config.findings.false_findings, adapted.detector.calibration.healthy
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


def _unusable(detector: AnomalyDetector, case: Case, prepared: PreparedScan) -> str:
    """Why a scan cannot be used though it could be prepared; empty if it can."""
    # A model may have learnt from label maps: what its gate lets through is like its own scans.
    if (detector.gate is None or detector.gate.problems(prepared)) and (words := label_map_words(case.read_image())):
        return f"{case.images[0]}: {words}"
    if (known := detector.covariates) is None:
        return ""
    if problem := known.problem(prepared.attributes):
        return problem
    absent = known.missing(prepared.attributes)
    lacks = f"no {' and no '.join(absent)} in the manifest; expected it, since the model is adjusted for {known.words}"
    return f"{lacks}; add the column" if absent else ""


def provenance(source: TrainedModel, manifest: Manifest, data: Dataset) -> dict[str, Any]:
    """What the new detector is made from: the old one, and every scan of the new site."""
    meta = {key: value for key, value in source.meta.items() if key != "training_sha256"}
    lineage = Lineage.of(meta.get(LINEAGE))
    used = Lineage.of_cases(manifest, data.ids)
    scans = {"cases": list(data.ids), "inputs": inputs_of(manifest, data.ids)}
    adapted = {"from_sha256": source.sha256, "manifest_sha256": manifest.digest(), **scans}
    earlier = meta.get("adapted")
    chain = [*(earlier if isinstance(earlier, list) else []), adapted]
    return {**meta, "cohort": manifest.name, "adapted": chain, **recorded(None if lineage is None else lineage + used)}
