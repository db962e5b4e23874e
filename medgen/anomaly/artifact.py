"""A detector as an artifact: weights and arrays in safetensors, settings and calibration in JSON, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.artefacts.signs import ArtefactLimits
from medgen.anomaly.config import HEAT_SCORES, AnomalyConfig
from medgen.anomaly.detector import AnomalyDetector
from medgen.anomaly.ensemble import Calibration, FoldMember
from medgen.anomaly.findings.appearance import HealthyAppearance
from medgen.anomaly.findings.false_findings import HealthyCandidates
from medgen.anomaly.fusion import Tail
from medgen.anomaly.gate import Gate
from medgen.anomaly.normative.covariates import ChosenCovariates, Covariates
from medgen.anomaly.normative.maps import Adjustment, Normative
from medgen.anomaly.scores.base import State
from medgen.anomaly.scores.catalogue import get, registered
from medgen.config import parse_config
from medgen.errors import ArtifactError, MedgenError
from medgen.models.artifact import TrainedModel
from medgen.system.precision import calibrated_precision

KIND = "anomaly"
_SEPARATOR = "/"
# Calibrations before this entry held the scores of single folds on the model grid; no p-value can be read off them.
_OWN_GRID = "the scan's own grid"
# Of a detector that was moved to another site, where healthy z depend on the person.
_MOVED = ("shift", "scale")
_CANDIDATES = ("heat", "scan", "subject")


def to_artifact(detector: AnomalyDetector, meta: Mapping[str, Any] | None = None) -> TrainedModel:
    """Everything that scoring a new scan needs; scores that are neither fused nor scan-level stay behind.

    Args:
        detector: A fitted detector.
        meta: Further plain data, such as provenance; keys of the detector's own win.
    """
    fused = detector.config.fusion.channels
    arrays: dict[str, NDArray[Any]] = {
        "support": detector.support.astype(np.uint8),
        "calibration/folds": detector.calibration.folds.astype(np.int64),
    }
    healthy = detector.calibration.healthy
    arrays |= {f"calibration/candidates/{name}": getattr(healthy, name) for name in _CANDIDATES}
    arrays |= {f"appearance/{key}": value for key, value in detector.appearance.to_arrays(detector.support).items()}
    for name, values in detector.calibration.scores.items():
        arrays[f"calibration/scores/{name}"] = np.asarray(values, dtype=np.float64)
    if detector.gate is not None:
        arrays |= {f"gate/{key}": value for key, value in detector.gate.to_arrays().items()}
    if detector.artefacts is not None:
        arrays |= {f"artefacts/{key}": value for key, value in detector.artefacts.to_arrays().items()}
    used = [name for name in detector.members[0].states if name in fused or get(name).level == "scan"]
    shared = {get(name).shares for name in used}
    kept = [name for name in detector.members[0].states if name in used or name in shared]
    for number, member in enumerate(detector.members):
        own: dict[str, NDArray[Any]] = {"fused_tail": member.fused_tail.to_array()}
        for name in kept:
            for key, value in member.states[name].items():
                own[f"state/{name}/{key}"] = value.astype(np.uint8) if value.dtype == np.bool_ else value
        for name in fused:
            # Inside the support only: the rest is never used.
            own[f"normative/{name}/mean"] = member.normatives[name].mean[detector.support]
            own[f"normative/{name}/sd"] = member.normatives[name].sd[detector.support]
            if (adjustment := member.normatives[name].adjustment) is not None:
                own[f"normative/{name}/slopes"] = adjustment.slopes[:, detector.support]
                own[f"normative/{name}/log_spread"] = adjustment.log_spread[:, detector.support]
                own[f"normative/{name}/uncertainty"] = adjustment.uncertainty
            for part in _MOVED:
                if (moved := getattr(member.normatives[name], part)) is not None:
                    own[f"normative/{name}/{part}"] = moved[detector.support]
            own[f"tail/{name}"] = member.tails[name].to_array()
        arrays |= {f"fold{number}/{key}": value for key, value in own.items()}
    # A detector from an artifact has no table of the choice; what was said of it is kept.
    earlier = (meta or {}).get("choice") or {}
    words = earlier.get("words", "") if detector.choice is None else detector.choice.words
    facts = {
        "kind": KIND,
        "channels": list(detector.contrasts),
        "anomaly": detector.config.model_dump(mode="json"),
        "scores": kept,
        "gate": detector.gate is not None,
        "adjusted": detector.adjusted.to_plain(),
        "precision": "bf16" if detector.bf16 else "32",
        "models_per_fold": len(detector.members[0].models),
        "choice": {"chosen": detector.chosen, "words": words} if detector.chosen else None,
        "calibration": {
            "subjects": len(detector.calibration.maxima),
            "target_fpr": detector.config.calibration.target_fpr,
            "threshold": detector.calibration.threshold,
            "false_findings": detector.config.findings.false_findings,
            "findings_threshold": detector.findings_threshold,
            "measured_on": _OWN_GRID,
        },
    }
    models = [model for member in detector.members for model in member.models]
    return TrainedModel(models, detector.preprocess, detector.template, arrays, {**(meta or {}), **facts})


def from_artifact(artifact: TrainedModel, source: object = "") -> AnomalyDetector:
    """The detector of :func:`to_artifact`, on the device of the models and in the precision it was calibrated in.

    Where that is bfloat16 and the device gets it wrong, it is float32, with a warning.

    Args:
        artifact: As it was read.
        source: Where it was read from, for messages.

    Raises:
        ArtifactError: If the artifact is of another kind, names scores that this version does not have, lacks an
            array, or was made before there was a gate: scoring without one must be a choice.
    """
    try:
        return _detector(artifact)
    except ArtifactError as error:
        raise ArtifactError(f"{source}: {error}" if source else str(error)) from error


def _detector(artifact: TrainedModel) -> AnomalyDetector:
    if artifact.meta.get("kind") != KIND:
        raise ArtifactError(
            f"expected the model/ folder of an anomaly run, found an artifact of kind {artifact.meta.get('kind')!r}"
        )
    try:
        if artifact.meta["calibration"].get("measured_on") != _OWN_GRID:
            raise ValueError("its calibration is of an earlier version; run `medgen anomaly run` again")
        candidates = _below(artifact.arrays, "calibration/candidates")
        if not candidates:
            raise ValueError(
                "it has no candidates of healthy scans, which findings are compared with; repeat `medgen anomaly run` "
                "with --resume (models are kept)"
            )
        config = parse_config(AnomalyConfig, artifact.meta["anomaly"], source="artifact")
        if not config.fusion.channels:
            raise ValueError("it names no channels")
        kept = [get(str(name)).name for name in artifact.meta["scores"]]
        support = artifact.arrays["support"].astype(bool)
        scores = _below(artifact.arrays, "calibration/scores")
        # safetensors gives arrays in no order; tables have the columns of the run.
        order = [name for name in (*HEAT_SCORES, *registered("scan")) if name in scores]
        scores = {name: scores[name] for name in (*order, *sorted({*scores} - {*order}))}
        calibration = Calibration(
            folds=artifact.arrays["calibration/folds"],
            scores=scores,
            threshold=float(artifact.meta["calibration"]["threshold"]),
            healthy=HealthyCandidates(*(candidates[name] for name in _CANDIDATES)),
        )
        appearance = HealthyAppearance.from_arrays(_below(artifact.arrays, "appearance"), support)
        # Detectors before this entry were calibrated in float32.
        precision = artifact.meta.get("precision", "32")
        if precision not in ("32", "bf16"):
            raise ValueError(f"its precision is {precision!r}, expected 32 or bf16")
        gate = Gate.from_arrays(_below(artifact.arrays, "gate")) if artifact.meta["gate"] else None
        # Detectors before this entry were adjusted for nothing.
        adjusted = ChosenCovariates.from_plain(artifact.meta.get("adjusted", {"covariates": None, "dropped": []}))
        # Detectors before these limits name no artefacts; all else is as it was.
        own = _below(artifact.arrays, "artefacts")
        artefacts = ArtefactLimits.from_arrays(own, gate.reference) if own and gate is not None else None
        # Of detectors before there were names, numbers.
        count = len(next(iter(appearance.aspects.values())))
        contrasts = tuple(artifact.meta.get("channels") or (str(number + 1) for number in range(count)))
        members = []
        each = int(artifact.meta["models_per_fold"])
        if each < 1 or len(artifact.models) % each:
            raise ValueError(f"{len(artifact.models)} models are not {each} for each fold")
        for number in range(len(artifact.models) // each):
            own = _below(artifact.arrays, f"fold{number}")
            members.append(
                FoldMember(
                    models=tuple(artifact.models[number * each : (number + 1) * each]),
                    states={name: _state(own, name) for name in kept},
                    normatives={
                        name: _normative(own, name, support, adjusted.covariates) for name in config.fusion.channels
                    },
                    tails={name: Tail.from_array(own[f"tail/{name}"]) for name in config.fusion.channels},
                    fused_tail=Tail.from_array(own["fused_tail"]),
                )
            )
    except (MedgenError, KeyError, TypeError, ValueError, IndexError) as error:
        reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise ArtifactError(f"the artifact does not hold a detector that this version can use: {reason}") from None
    bf16 = calibrated_precision(precision, next(artifact.models[0].parameters()).device).bf16
    parts = (artifact.preprocess, artifact.template, tuple(members), calibration, support, appearance)
    return AnomalyDetector(
        config,
        *parts,
        gate=gate,
        artefacts=artefacts,
        bf16=bf16,
        adjusted=adjusted,
        contrasts=contrasts,
        chosen=str((artifact.meta.get("choice") or {}).get("chosen", "")),
    )


def _below(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    start = prefix + _SEPARATOR
    return {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}


def _state(own: Mapping[str, NDArray[Any]], name: str) -> State:
    # Masks are kept as bytes; the only 8-bit arrays that scores learn are masks.
    state = _below(own, f"state/{name}")
    return {key: value.astype(bool) if value.dtype == np.uint8 else value for key, value in state.items()}


def _normative(
    own: Mapping[str, NDArray[Any]], name: str, support: NDArray[np.bool_], covariates: Covariates | None
) -> Normative:
    mean, sd = np.zeros(support.shape, dtype=np.float32), np.ones(support.shape, dtype=np.float32)
    mean[support] = own[f"normative/{name}/mean"]
    sd[support] = own[f"normative/{name}/sd"]
    if covariates is None:
        return Normative(mean, sd)
    maps = []
    for part in ("slopes", "log_spread"):
        inside = own[f"normative/{name}/{part}"]
        if len(inside) != len(covariates.covariance):
            raise ValueError(f"{len(inside)} {part} are not {len(covariates.covariance)}, one for each column")
        maps.append(np.zeros((len(inside), *support.shape), dtype=np.float32))
        maps[-1][:, support] = inside
    slopes, log_spread = maps
    moved: dict[str, NDArray[np.float32]] = {}
    for part, outside in zip(_MOVED, (0, 1), strict=True):
        if f"normative/{name}/{part}" in own:
            moved[part] = np.full(support.shape, outside, dtype=np.float32)
            moved[part][support] = own[f"normative/{name}/{part}"]
    adjustment = Adjustment(slopes, log_spread, own[f"normative/{name}/uncertainty"], covariates.covariance)
    return Normative(mean, sd, adjustment, **moved)
