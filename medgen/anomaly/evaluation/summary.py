"""The numbers of an evaluation: every score side by side, with subject-bootstrap intervals, and the controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.calibration import significant
from medgen.anomaly.evaluation.measure import FUSED, HEALTHY, Measurement
from medgen.anomaly.evaluation.sensitivity import Sensitivity, sensitivity_of
from medgen.anomaly.scores.catalogue import get
from medgen.metrics.bootstrap import binomial_interval
from medgen.metrics.interval import Interval
from medgen.metrics.ranking import Ranked, Resampler


@dataclass(frozen=True)
class VoxelRow:
    """One score at voxel level over all implanted test scans.

    Attributes:
        name, score, form: Row name, score name, and ``"raw"``, ``"z"`` or ``"heat"``.
        baseline: Whether the score is a simple baseline.
        ap, auroc, dice: Pooled average precision, AUROC and best Dice (threshold chosen with the truth at hand).
        ap_per_scan: Average precision of each scan, averaged.
        by_kind: Pooled average precision per kind of implant.
    """

    name: str
    score: str
    form: str
    baseline: bool
    ap: Interval
    auroc: Interval
    dice: Interval
    ap_per_scan: Interval
    by_kind: Mapping[str, Interval]


@dataclass(frozen=True)
class ScanRow:
    """One scan score: healthy test scans against their implanted copies.

    Attributes:
        name: The scan score.
        auroc, ap, fpr_at_95: Ranking of implanted above healthy scans.
        chance: Chance level of ``ap``: the share of implanted scans.
        fpr: Realised share of healthy test subjects with p at or below the target, exact binomial interval.
        detected: Share of implanted scans with p at or below the target.
    """

    name: str
    auroc: Interval
    ap: Interval
    chance: float
    fpr_at_95: Interval
    fpr: Interval
    detected: Interval


@dataclass(frozen=True)
class Summary:
    """All results of an evaluation.

    Attributes:
        subjects, healthy, implanted: Numbers of test subjects and scans.
        prevalence: Share of implant voxels among scored voxels of implanted scans: chance level of AP.
        kinds: Implanted scans per kind.
        prevalence_by_kind: Chance level of a kind's AP.
        target_fpr: What the calibration aimed at.
        voxel: Rows, the fused map first, then by falling AP.
        scan: Rows of scan scores.
        best_raw, best_z: Names of the best baseline row as it is and with the same normative z as the channels.
        gain_raw, gain_z: Fused AP minus theirs, paired over subjects.
        ratio_raw, ratio_z: Fused AP over theirs.
        dice_at_threshold: Pooled Dice of the heatmap above the family-wise threshold, on the scans' own grids.
        findings: What findings find, at several numbers of false findings.
        any_hot: Share of healthy test subjects with a voxel above the family-wise threshold, exact interval.
        found_family_wise: Implanted scans with a voxel of the implant above the family-wise threshold.
        controls: What must be at chance, see :func:`controls`.
    """

    subjects: int
    healthy: int
    implanted: int
    prevalence: float
    kinds: Mapping[str, int]
    prevalence_by_kind: Mapping[str, float]
    target_fpr: float
    voxel: Sequence[VoxelRow]
    scan: Sequence[ScanRow]
    best_raw: str
    best_z: str
    gain_raw: Interval
    gain_z: Interval
    ratio_raw: Interval
    ratio_z: Interval
    dice_at_threshold: Interval
    findings: Sensitivity
    any_hot: Interval
    found_family_wise: int
    controls: Mapping[str, Interval] = field(default_factory=dict)

    @property
    def healthy_family_wise(self) -> int:
        """Healthy test subjects with a voxel above the family-wise threshold."""
        return round(self.any_hot.estimate * self.any_hot.n)

    @property
    def fused(self) -> VoxelRow:
        """The row of the fused map."""
        return self.row(FUSED)

    def row(self, name: str) -> VoxelRow:
        """The voxel row of that name."""
        return next(row for row in self.voxel if row.name == name)


def summarise(
    measurements: Sequence[Measurement], target_fpr: float, false_findings: float, bootstrap: int, seed: int
) -> Summary:
    """All tables of an evaluation.

    Args:
        measurements: Scored healthy and implanted test scans.
        target_fpr: The calibrated false-positive rate.
        false_findings: Expected false findings per healthy scan.
        bootstrap: Resamples of the test subjects.
        seed: Seed of the resampling.
    """
    healthy = [item for item in measurements if item.kind == HEALTHY]
    implanted = [item for item in measurements if item.kind != HEALTHY]
    resampler = Resampler([item.subject for item in measurements], bootstrap, seed)
    subjects = [item.subject for item in implanted]
    truth = [item.truth for item in implanted]
    rows, draws = [], {}
    for name in implanted[0].rows:
        ranked = Ranked.of([item.rows[name] for item in implanted], truth)
        draws[name] = resampler.draws(ranked, subjects, Ranked.average_precision)
        rows.append(_voxel_row(name, ranked, draws[name], implanted, resampler))
    rows.sort(key=lambda row: (row.name != FUSED, -row.ap.estimate))
    best_raw = next(row.name for row in rows if row.baseline and row.form == "raw")
    best_z = next(row.name for row in rows if row.baseline and row.form == "z")
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = {name: resampler.interval(draws[FUSED] / draws[name]) for name in (best_raw, best_z)}
    return Summary(
        subjects=len(resampler.names),
        healthy=len(healthy),
        implanted=len(implanted),
        prevalence=float(np.concatenate(truth).mean()),
        kinds={kind: sum(item.kind == kind for item in implanted) for kind in _kinds(implanted)},
        prevalence_by_kind={
            kind: float(np.concatenate([item.truth for item in implanted if item.kind == kind]).mean())
            for kind in _kinds(implanted)
        },
        target_fpr=target_fpr,
        voxel=rows,
        scan=[_scan_row(name, healthy, implanted, target_fpr, resampler) for name in healthy[0].scores],
        best_raw=best_raw,
        best_z=best_z,
        gain_raw=resampler.interval(draws[FUSED] - draws[best_raw]),
        gain_z=resampler.interval(draws[FUSED] - draws[best_z]),
        ratio_raw=ratios[best_raw],
        ratio_z=ratios[best_z],
        dice_at_threshold=_dice_at_threshold(implanted, resampler),
        findings=sensitivity_of(measurements, false_findings, bootstrap, seed),
        any_hot=_share_of_subjects(healthy, [item.passes_family_wise for item in healthy]),
        found_family_wise=sum(item.is_found_family_wise for item in implanted),
        controls=controls(healthy, implanted, resampler),
    )


def controls(
    healthy: Sequence[Measurement], implanted: Sequence[Measurement], resampler: Resampler
) -> dict[str, Interval]:
    """What must be at chance if nothing leaks; values are AP divided by prevalence, so chance is 1.

    ``zero amplitude``: the untouched scan's heatmap against the place where its copy has the implant. ``permuted
    masks``: an implanted scan's heatmap against another subject's implant, where both are scored.
    """
    untouched = {item.case: item for item in healthy}
    zero = Ranked.of([untouched[item.case].rows[FUSED] for item in implanted], [item.truth for item in implanted])
    subjects = [item.subject for item in implanted]

    def lift(ranked: Ranked) -> NDArray[np.float64]:
        return np.asarray(ranked.average_precision() / ranked.prevalence())

    result = {"zero amplitude": resampler.ranked(zero, subjects, lift)}
    pairs = [(item, _other(item, implanted, number)) for number, item in enumerate(implanted)]
    matched = [(item, other) for item, other in pairs if other is not None]
    if matched:
        permuted = Ranked.of(
            [_on_grid(item.rows[FUSED], item)[item.region & other.region] for item, other in matched],
            [_on_grid(other.truth, other)[item.region & other.region] for item, other in matched],
        )
        result["permuted masks"] = resampler.ranked(permuted, [item.subject for item, _ in matched], lift)
    return result


def _voxel_row(
    name: str, ranked: Ranked, draws: NDArray[np.float64], implanted: Sequence[Measurement], resampler: Resampler
) -> VoxelRow:
    subjects = [item.subject for item in implanted]
    score, _, form = name.partition(" (")
    by_kind = {}
    for kind in _kinds(implanted):
        rows = [index for index, item in enumerate(implanted) if item.kind == kind]
        by_kind[kind] = resampler.ranked(ranked.select(rows), [subjects[row] for row in rows], Ranked.average_precision)
    return VoxelRow(
        name=name,
        score=score,
        form=form.rstrip(")") or "heat",
        baseline=score != FUSED and get(score).baseline,
        ap=resampler.interval(draws),
        auroc=resampler.ranked(ranked, subjects, Ranked.auroc),
        dice=resampler.ranked(ranked, subjects, Ranked.best_dice),
        ap_per_scan=resampler.mean(ranked.average_precision(), subjects),
        by_kind=by_kind,
    )


def _scan_row(
    name: str,
    healthy: Sequence[Measurement],
    implanted: Sequence[Measurement],
    target: float,
    resampler: Resampler,
) -> ScanRow:
    everything = [*healthy, *implanted]
    subjects = [item.subject for item in everything]
    ranked = Ranked.of(
        [np.array([item.scores[name]]) for item in everything],
        [np.array([item.kind != HEALTHY]) for item in everything],
    )
    flagged = [significant(item.p_values[name], target) for item in implanted]
    return ScanRow(
        name=name,
        auroc=resampler.ranked(ranked, subjects, Ranked.auroc),
        ap=resampler.ranked(ranked, subjects, Ranked.average_precision),
        chance=len(implanted) / len(everything),
        fpr_at_95=resampler.ranked(ranked, subjects, Ranked.fpr_at_tpr),
        fpr=_share_of_subjects(healthy, [significant(item.p_values[name], target) for item in healthy]),
        detected=resampler.mean(np.array(flagged, dtype=np.float64), [item.subject for item in implanted]),
    )


def _share_of_subjects(items: Sequence[Measurement], flags: Sequence[bool]) -> Interval:
    """Share of subjects with any flagged scan: subjects are what the calibration counts."""
    flagged = {item.subject for item, flag in zip(items, flags, strict=True) if flag}
    return binomial_interval(len(flagged), len({item.subject for item in items}))


def _dice_at_threshold(implanted: Sequence[Measurement], resampler: Resampler) -> Interval:
    matrix = resampler.indicator([item.subject for item in implanted])
    called, truth, both = (matrix @ np.array([float(item.own_grid[k]) for item in implanted]) for k in range(3))
    sizes = called + truth
    weights = np.vstack([np.ones(len(resampler.names)), resampler.weights])
    return resampler.interval(2 * (weights @ both) / np.maximum(weights @ sizes, 1))


def _kinds(items: Sequence[Measurement]) -> list[str]:
    return sorted({item.kind for item in items})


def _other(item: Measurement, implanted: Sequence[Measurement], number: int) -> Measurement | None:
    """The next implanted scan, in order, of another subject."""
    for step in range(1, len(implanted)):
        candidate = implanted[(number + step) % len(implanted)]
        if candidate.subject != item.subject:
            return candidate
    return None


def _on_grid(values: NDArray[Any], item: Measurement) -> NDArray[Any]:
    result = np.zeros(item.region.shape, dtype=values.dtype)
    result[item.region] = values
    return result
