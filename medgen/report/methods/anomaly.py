"""What an anomaly run, and a scoring with its model, did: sentences for the methods section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from medgen.anomaly.detector import AnomalyDetector
from medgen.anomaly.evaluation.artefacts import ArtefactsConfig
from medgen.anomaly.evaluation.summary import Summary
from medgen.anomaly.scores.catalogue import get
from medgen.data.cases import Manifest
from medgen.implants.implanted_scans import EvaluationConfig
from medgen.report.methods import references
from medgen.report.methods.text import MethodsText, count, listed, sources_in, summary

SCORES = "Anomaly scores"
CALIBRATION = "Calibration"
EVALUATION = "Evaluation"


def subjects(
    text: MethodsText, parts: Mapping[str, Manifest], folds: int, excluded: Sequence[str], unprepared: int
) -> None:
    """Who took part, and how people were divided.

    Args:
        text: Is added to.
        parts: ``development`` and ``test``.
        folds: Parts of the development subjects.
        excluded: Development cases that calibrate nothing.
        unprepared: How many scans could not be prepared.
    """
    told = [
        f"{name}: {count(len(part), 'scan')} of {count(len(part.subjects), 'subject')}" for name, part in parts.items()
    ]
    left_out = f" {count(len(excluded), 'development scan')} took no part in the calibration." if excluded else ""
    lost = f" {count(unprepared, 'scan')} could not be prepared." if unprepared else ""
    text.add(
        "Scans",
        f"Scans that were taken for healthy were divided at random by subject ({'; '.join(told)}).",
        f"The development subjects were divided into {folds} folds, and the models of a fold trained on the others."
        f"{left_out}{lost}",
    )


def heatmap(text: MethodsText, detector: AnomalyDetector) -> None:
    """The scores of the heatmap, how they are normalised and put together.

    Args:
        text: Is added to.
        detector: As calibrated.
    """
    config = detector.config
    for name in config.fusion.channels:
        own = get(name).function
        text.add(SCORES, f"Score `{name}`: {summary(own)}{text.cite(*sources_in(own))}.")
    smoothing = (
        f"Each was smoothed (standard deviation {config.smoothing:g} voxel) and compared"
        if config.smoothing
        else "Each was compared"
    )
    covariates = detector.adjusted.covariates
    adjusted = f", both adjusted for {covariates.words}" if covariates is not None else ""
    text.add(
        SCORES,
        f"{smoothing} with mean and standard deviation of healthy scans at the same place, from models that had not "
        f"seen them{adjusted} (blur of {config.normative.blur:g} voxels, variance shrunk as by "
        f"{config.normative.prior:g} scans), and turned into a healthy tail probability.",
        "The heatmap is the root mean square of the minus log₁₀ p of all scores, on the scale of a z and averaged over "
        "folds.",
        f"It was chosen on {count(config.validation.per_scan, 'implanted copy', 'implanted copies')} of each "
        "development scan."
        if detector.chosen
        else "",
        f"A place was scored where at least {100 * config.support:g} % of the healthy scans show the patient.",
    )


def calibration(text: MethodsText, detector: AnomalyDetector) -> None:
    """What p-values, thresholds and findings rest on.

    Args:
        text: Is added to.
        detector: As calibrated.
    """
    config, healthy = detector.config, detector.calibration.healthy
    target = 100 * config.calibration.target_fpr
    text.add(
        CALIBRATION,
        f"P-values are cross-conformal{text.cite(references.CROSS_CONFORMAL, references.JACKKNIFE_PLUS)}: the share of "
        f"{count(healthy.n, 'healthy subject')}, each scored by models that had not seen it, with a score at least as "
        "high, the new scan included.",
        f"Scans are judged by the score `{config.scan_score}` at {target:g} %; the family-wise threshold of the "
        f"heatmap (z {detector.calibration.threshold:.2f}) is exceeded anywhere in at most {target:g} % of "
        "healthy scans.",
        f"Findings are peaks at least {config.findings.separation_mm:g} mm apart with at most "
        f"{config.findings.false_findings:g} expected false findings per healthy scan.",
        f"Beyond the healthy scores a generalised Pareto tail was fitted{text.cite(references.PARETO_TAIL)}.",
    )
    text.add(CALIBRATION, _gate(detector))


def _gate(detector: AnomalyDetector) -> str:
    if detector.gate is None:
        return "No scan was refused as a whole."
    margin = detector.config.gate.margin
    return (
        "Scans that as a whole lie beyond all healthy ones (field of view, voxel size, intensity histogram, likeness, "
        f"registration) by more than {margin:g} standard deviations were refused and not scored."
    )


def evaluation(text: MethodsText, config: EvaluationConfig, results: Summary, refused: int) -> None:
    """How the detector was tested.

    Args:
        text: Is added to.
        config: The implanted test set.
        results: What came of it.
        refused: How many healthy test scans the gate refused.
    """
    low, high = config.radius_mm
    lost = f" The gate refused {count(refused, 'test scan')}." if refused else ""
    text.add(
        EVALUATION,
        f"{count(results.healthy, 'healthy test scan')} of {count(results.subjects, 'subject')} and "
        f"{results.implanted} implanted copies of them were scored.{lost}",
        f"A copy has one implant of {low:g} to {high:g} mm radius and a strength of "
        f"{listed([f'{strength:g}' for strength in config.contrasts])}, of the kinds {listed(list(config.kinds))}.",
        "The form of lesions was taken from real masks." if config.masks is not None else "",
        f"Intervals are at 95 %, from {config.bootstrap} resamples of the subjects{text.cite(references.BOOTSTRAP)}; "
        f"those of rates are exact{text.cite(references.EXACT_BINOMIAL)}.",
    )


def artefacts(text: MethodsText, config: ArtefactsConfig, kinds: Sequence[str]) -> None:
    """How artefacts were told from lesions.

    Args:
        text: Is added to.
        config: The faulty copies.
        kinds: Kinds of artefacts that were made.
    """
    text.add(
        EVALUATION,
        f"{count(config.per_scan, 'faulty copy', 'faulty copies')} of each test scan ({', '.join(kinds)}) showed how "
        "often artefacts are told from lesions.",
    )


def scored(text: MethodsText, scans: int, abstained: int, unusable: int, model: str, ungated: bool) -> None:
    """Which scans were scored by which model.

    Args:
        text: Is added to.
        scans: How many were scored.
        abstained: How many the gate refused.
        unusable: How many could not be read or prepared.
        model: SHA-256 of the model.
        ungated: Whether scans that the gate refuses were scored.
    """
    lost = [
        *([f"the gate refused {abstained}"] if abstained else []),
        *([f"{unusable} could not be read or prepared"] if unusable else []),
    ]
    text.add(
        "Scans",
        f"{count(scans, 'scan')} {'was' if scans == 1 else 'were'} scored by a model of healthy scans (SHA-256 "
        f"{model[:16]})" + (f"; {listed(lost)}." if lost else "."),
        "Scans that the gate refuses were scored without p-values and findings." if ungated else "",
    )


def moved(text: MethodsText, model: str, scans: int, people: int) -> None:
    """That a model was moved to another site.

    Args:
        text: Is added to.
        model: SHA-256 of the model that was moved.
        scans: Healthy scans of that site.
        people: Their subjects.
    """
    text.add(
        "Scans",
        f"A model of healthy scans (SHA-256 {model[:16]}) was moved to another site by {count(scans, 'healthy scan')} "
        f"of {count(people, 'subject')} there: means and scales of its scores, gate and calibration are theirs.",
    )
