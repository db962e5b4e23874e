"""Further detectors for scans that lack contrasts, trained and calibrated on the same scans without them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medgen.anomaly.artifact import to_artifact
from medgen.anomaly.detector import AnomalyDetector
from medgen.data.cases import Manifest
from medgen.data.layouts.by_file_name import safe_id
from medgen.preprocessing.parts import PreparedParts
from medgen.report.html import Report
from medgen.runs.context import Output, Results, RunContext
from medgen.system.files import sha256_json
from medgen.training.cost import Estimate

from ...stages import Registered, Stage
from ..cohort import AnomalyCohort, left
from ..config import AnomalyRunConfig
from .calibrate import Calibrate, Calibrated, fit_detector, provenance
from .train import FoldModels, Train, kept_folds, train_folds

# Beside model/, a folder for each combination: scoring looks there.
FOLDER = "model-without"


def folder_of(out: Path, missing: Sequence[str]) -> Path:
    """Where a run keeps the detector for scans that lack these channels, named in the cohort's order."""
    return out / FOLDER / safe_id(", ".join(missing))


@dataclass(frozen=True, eq=False)
class DetectorsWithout:
    """Detectors for scans that lack contrasts.

    Attributes:
        detectors: By the missing contrasts, joined by commas.
        digests: Their digests, as they are saved, by the same names.
    """

    detectors: Mapping[str, AnomalyDetector]
    digests: Mapping[str, str]


class TrainWithout(Stage[AnomalyRunConfig]):
    """Trains and calibrates once more for every combination of channels in ``without``.

    A p-value compares a scan with healthy scans that were scored in the same way: for a scan without FLAIR these are
    the healthy scans of the cohort without their FLAIR, by models that never saw one.
    """

    name = "without"
    needs = (Manifest, AnomalyCohort, PreparedParts, FoldModels, Calibrated)
    makes = (DetectorsWithout,)

    def wanted(self, config: AnomalyRunConfig) -> bool:
        """Where a combination is named."""
        return bool(config.without)

    def estimate(
        self, config: AnomalyRunConfig, known: Results, before: Mapping[str, Estimate]
    ) -> Mapping[str, Estimate]:
        """The time of the trainings and of the calibration, once more for every combination."""
        found = {}
        for missing in map(", ".join, left(config.without, known[Manifest].channel_names)):
            for name, own in Train().estimate(config, known, before).items():
                lines = tuple(f"without {missing}: {line}" for line in own.lines)
                found[f"{name} without {missing}"] = replace(own, lines=lines)
            again = before[Calibrate.name]
            lines = tuple(f"without {missing}: {line}" for line in again.lines)
            found[f"{Calibrate.name} without {missing}"] = replace(again, lines=lines)
        return found

    def run(self, config: AnomalyRunConfig, results: Results, run: RunContext) -> Iterable[Any]:
        """See the class."""
        manifest, prepared, full = results[Manifest], results[PreparedParts], results[FoldModels]
        names = manifest.channel_names
        detectors, digests = {}, {}
        for without, rows in left(config.without, names).items():
            missing = ", ".join(without)
            development = prepared.data["development"].of_channels(rows)
            template = None if prepared.template is None else prepared.template.of_channels(rows)
            digest, model = sha256_json([full.digest, missing]), folder_of(run.folder.out, without)
            trained = kept_folds(config, digest, full.held_out, model, {}) if run.resume else None
            if trained is None:
                trained = train_folds(
                    config, manifest, development, full.held_out, digest, run, purpose=f"without {missing}"
                )
            recipe = results[AnomalyCohort].recipe
            contrasts = [names[row] for row in rows]
            detectors[missing], _ = fit_detector(config, development, trained, recipe, template, run, contrasts)
            facts = provenance(config, manifest, development, trained, run.track.id)
            artifact = to_artifact(detectors[missing], {**facts, "missing": list(without)})
            artifact.save(model)
            digests[missing] = artifact.sha256
        return [DetectorsWithout(detectors, digests)]

    def outputs(self) -> tuple[Output, ...]:
        """The detectors."""
        about = "detectors for scans that lack these contrasts, which `medgen anomaly score` takes by itself"
        return (Output(f"{FOLDER}/", about, tracked=True),)

    def models(self, config: AnomalyRunConfig, results: Results) -> Iterable[Registered]:
        """The detectors, each by the contrasts that its scans lack."""
        cohort = results[Manifest].name
        return [
            Registered(
                f"medgen-anomaly-{cohort}-without-{missing}",
                f"{FOLDER}/{safe_id(missing)}",
                sha256,
                "anomaly",
                f"Anomaly detector for scans without {missing}, calibrated on {cohort}",
            )
            for missing, sha256 in results[DetectorsWithout].digests.items()
        ]

    def metrics(self, results: Results) -> Mapping[str, Any]:
        """The contrasts and the threshold of each."""
        found = results.get(DetectorsWithout)
        return {} if found is None else {"without": {name: _facts(found, name) for name in found.detectors}}

    def report(self, report: Report, results: Results, run: RunContext) -> None:
        """What the detectors rest on."""
        found = results.get(DetectorsWithout)
        if found is None:
            return
        report.section(
            "Scans that lack contrasts",
            "Each row is a detector of its own, trained and calibrated on the same healthy scans without the missing "
            "contrasts. How well it finds implants was not measured: with less to see it finds less.",
            layer="appendix",
        )
        rows = []
        for name in found.detectors:
            facts = _facts(found, name)
            rows.append(
                (
                    name,
                    ", ".join(facts["channels"]),
                    facts["calibration_subjects"],
                    facts["threshold"],
                    facts["findings_threshold"],
                    ", ".join(facts["scores"]),
                )
            )
        head = ["missing", "left", "healthy subjects", "threshold (family-wise)", "threshold of findings", "heat from"]
        report.table(head, rows)


def _facts(found: DetectorsWithout, name: str) -> dict[str, Any]:
    detector = found.detectors[name]
    return {
        "channels": list(detector.contrasts),
        "calibration_subjects": len(detector.calibration.maxima),
        "threshold": detector.calibration.threshold,
        "findings_threshold": detector.findings_threshold,
        "scores": list(detector.config.fusion.channels),
    }
