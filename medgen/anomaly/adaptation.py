"""A detector for another site: its networks and scores as they are, its healthy statistics moved by a few scans there.

On scans of another scanner the normative z of every channel is off by an amount that differs between regions: noise,
contrast and sharpness are others. From healthy scans of the new site the location and the scale of each channel's z are
estimated at every place, from a wide neighbourhood; what a place has of its own is added as far as it rises above its
noise (empirical Bayes, as in ComBat, Johnson et al., Biostatistics 2007, with neighbourhoods in the place of features):

    z' = (z − m) / s,   m = m̄ + w (m_p − m̄),   w = τ² / (τ² + s² / n).

The calibration is made anew from these scans, each by means and scales of the others: no network has seen any of them,
so each is scored by all members, as a new scan is, and nothing but the one scan more makes the new scan's location and
scale better known. The gate and the words for looks are fitted to the new site. The healthy tails that turn a z into
heat stay: ten scans say less of them than the development scans did, and whatever heat comes out is calibrated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly import calibration
from medgen.anomaly.artefacts.signs import ArtefactLimits
from medgen.anomaly.detector import AnomalyDetector, Measured
from medgen.anomaly.ensemble import Calibration, fused_surprise, heat_of
from medgen.anomaly.findings.appearance import HealthyAppearance
from medgen.anomaly.findings.candidates import candidates_of
from medgen.anomaly.findings.false_findings import HealthyCandidates, check_false_findings
from medgen.anomaly.gate import Gate
from medgen.anomaly.heat_scores import heat_scores, to_own_grid
from medgen.anomaly.normative.config import NormativeConfig
from medgen.anomaly.normative.maps import Normative, normative_of
from medgen.anomaly.normative.moments import Moments
from medgen.errors import CalibrationError, DataError
from medgen.preprocessing.dataset import Dataset, prepared_record
from medgen.progress import Tick
from medgen.transforms.masked_smoothing import smooth

FEWEST_SUBJECTS = 10
# Standard deviation in model voxels of the neighbourhood that shares a location and a scale.
_WIDE = 4.0
_EVERYWHERE = NormativeConfig(blur=_WIDE)


@dataclass(frozen=True, eq=False)
class Adapted:
    """A detector for another site, and what its scans were to the old one.

    Attributes:
        detector: For the new site.
        target: Its family-wise false-positive rate: the old one, or what so few subjects can certify.
        refused: Cases of the new site that the old gate refuses.
        false_findings: Findings per healthy scan of each new subject under the old detector, the gate aside.
        passing: Subjects of the new site with a voxel above the old family-wise threshold.
    """

    detector: AnomalyDetector
    target: float
    refused: tuple[str, ...]
    false_findings: NDArray[np.float64]
    passing: int


def adapt(detector: AnomalyDetector, dataset: Dataset, progress: Tick | None = None) -> Adapted:
    """Move a detector to the site of healthy scans that none of its models has seen.

    Args:
        detector: Calibrated at its own site.
        dataset: Healthy scans of at least ten other subjects, prepared by the detector's recipe, with their records.
        progress: Called with (what, done, total).

    Raises:
        CalibrationError: If there are fewer than ten subjects, or too few for the level of findings.
        DataError: If the scans have other channels than the model, or one shows nothing of what can be scored.
        OutOfDistribution: If a person's covariates lie outside of what the detector knows.
    """
    tick = progress or (lambda what, done, total: None)
    subjects = list(dict.fromkeys(dataset.subjects))
    n = len(subjects)
    if n < FEWEST_SUBJECTS:
        raise CalibrationError(
            f"a detector is moved to another site by healthy scans of at least {FEWEST_SUBJECTS} subjects, found {n}; "
            "add scans"
        )
    check_false_findings(detector.config.findings.false_findings, n)
    expected = detector.members[0].models[0].settings.in_channels
    if dataset.channels != expected:
        raise DataError(
            f"{dataset.ids[0]}: {dataset.channels} contrast{'s' * (dataset.channels != 1)}; expected {expected}, as "
            "the model has; adapt a model of the same contrasts"
        )
    target = max(detector.config.calibration.target_fpr, calibration.reachable_target(n))
    channels = detector.config.fusion.channels
    # Channels alone are moved; scan scores of the models stay, and are calibrated anew like the others.
    members = [
        replace(member, normatives={name: member.normatives[name] for name in channels}) for member in detector.members
    ]
    lean = replace(detector, members=tuple(members))
    seen: list[_Seen] = []
    old: list[NDArray[np.float64]] = []
    for row in range(len(dataset)):
        record = prepared_record(dataset, row, detector.preprocess.spacing)
        each = [
            replace(lean, members=(member,)).measure(dataset.images[row], dataset.foregrounds[row], record.attributes)
            for member in lean.members
        ]
        seen.append(_Seen.of(each, channels))
        heat = np.mean([own.heat for own in each], axis=0)
        heatmap = to_own_grid(heat, seen[row].region, record, detector.preprocess)
        old.append(detector.candidates(heatmap).heat)
        tick("scoring with the old detector", row + 1, len(dataset))
    per_subject = [[row for row, subject in enumerate(dataset.subjects) if subject == name] for name in subjects]
    values: list[dict[str, float]] = [{} for _ in range(len(dataset))]
    candidates: list[NDArray[np.float64]] = [np.zeros(0)] * len(dataset)
    for number, rows in enumerate(per_subject):
        others = [row for row in range(len(dataset)) if row not in rows]
        shifts = _shifts([seen[row] for row in others], channels, detector.support)
        for row in rows:
            heat = _heat(lean, seen[row], shifts)
            record = prepared_record(dataset, row, detector.preprocess.spacing)
            heatmap = to_own_grid(heat, seen[row].region, record, detector.preprocess)
            candidates[row] = candidates_of(heatmap, detector.config.findings.separation_mm).heat
            values[row] = heat_scores(heatmap, detector.config.top_fraction) | seen[row].model_scores
        tick("calibrating", number + 1, n)
    names = [name for name in detector.calibration.scores if name in values[0]]
    scores = {name: np.array([max(values[row][name] for row in rows) for rows in per_subject]) for name in names}
    calibrated = Calibration(
        # No member left any of them out.
        folds=np.full(n, -1, dtype=np.int64),
        scores=scores,
        threshold=calibration.threshold(scores["max"], target),
        healthy=HealthyCandidates.of(candidates, dataset.subjects),
    )
    shifts = _shifts(seen, channels, detector.support)
    gate = None if detector.gate is None else Gate.fit(dataset, detector.config.gate)
    own_config = detector.config.calibration.model_copy(update={"target_fpr": target})
    new = replace(
        detector,
        config=detector.config.model_copy(update={"calibration": own_config}),
        members=tuple(
            replace(
                member,
                normatives={
                    name: member.normatives[name].moved(shifts[name].mean, shifts[name].sd) for name in channels
                },
            )
            for member in lean.members
        ),
        calibration=calibrated,
        appearance=HealthyAppearance.fit(dataset, detector.support),
        choice=None,
        gate=gate,
        # Limits of the old site would take every scan of this one for an artefact.
        artefacts=ArtefactLimits.of_cohort(dataset, gate, detector.config.gate, detector.preprocess.spacing),
    )
    refused = () if detector.gate is None else _refused(detector.gate, dataset)
    level, healthy = detector.config.findings.false_findings, detector.calibration.healthy
    counts = [float(np.sum(healthy.expected_false(np.sort(own)[::-1]) <= level + 1e-9)) for own in old]
    hot = [any(old[row].max(initial=-np.inf) > detector.calibration.threshold for row in rows) for rows in per_subject]
    return Adapted(
        detector=new,
        target=target,
        refused=refused,
        false_findings=np.array([np.mean([counts[row] for row in rows]) for rows in per_subject]),
        passing=sum(hot),
    )


@dataclass(frozen=True, eq=False)
class _Seen:
    """A scan of the new site under the old detector, inside its region of v voxels.

    Attributes:
        region: (i, j, k) boolean.
        z: Per member, the z of each channel, (v,) float32.
        model_scores: Scan scores that come from the models, averaged over members.
    """

    region: NDArray[np.bool_]
    z: Sequence[Mapping[str, NDArray[np.float32]]]
    model_scores: dict[str, float]

    @classmethod
    def of(cls, each: Sequence[Measured], channels: Sequence[str]) -> _Seen:
        region = each[0].region
        z = [{name: own.z[name][region] for name in channels} for own in each]
        values = {name: float(np.mean([own.model_scores[name] for own in each])) for name in each[0].model_scores}
        return cls(region, z, values)

    def average(self, name: str) -> NDArray[np.float32]:
        return np.asarray(np.mean([own[name] for own in self.z], axis=0), dtype=np.float32)


def _shifts(seen: Sequence[_Seen], channels: Sequence[str], support: NDArray[np.bool_]) -> dict[str, Normative]:
    """Location and scale of each channel's z, as the mean and standard deviation of a normative map."""
    found = {}
    for name in channels:
        moments = Moments.of((own.average(name) for own in seen), (own.region for own in seen), support.shape)
        wide = normative_of(moments, support, _EVERYWHERE)
        known = support & (moments.count > 1)
        count = np.maximum(moments.count, 1)
        away = np.where(known, moments.totals[0] / count - wide.mean, 0)
        noise = np.where(known, wide.sd.astype(np.float64) ** 2 / count, 0)
        own_part = np.maximum(smooth(away**2 - noise, known, _WIDE / 2), 0)
        share = own_part / np.maximum(own_part + noise, 1e-12)
        found[name] = replace(wide, mean=(wide.mean + share * away).astype(np.float32))
    return found


def _heat(detector: AnomalyDetector, scan: _Seen, shifts: Mapping[str, Normative]) -> NDArray[np.float32]:
    """The heat of a scan whose z are moved, as the detector would make it: by every member, averaged."""
    total = np.zeros(int(scan.region.sum()))
    for member, z in zip(detector.members, scan.z, strict=True):
        moved = {name: shifts[name].z_of(z[name], scan.region) for name in shifts}
        total += heat_of(member.fused_tail, fused_surprise(member.tails, moved)[0])
    heat = np.zeros(scan.region.shape, dtype=np.float32)
    heat[scan.region] = total / len(detector.members)
    return heat


def _refused(gate: Gate, dataset: Dataset) -> tuple[str, ...]:
    return tuple(case for case, own in zip(dataset.ids, dataset.prepared, strict=True) if gate.problems(own))
