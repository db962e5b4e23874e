"""Heatmaps of any method against ground truth: each scan is reduced to counts, then methods are put side by side.

No more than one scan of each method is in memory; what is kept of a scan is its counts per score level (half a
megabyte), a few numbers and its lesion candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.errors import DataError
from medgen.metrics.bootstrap import holm, sign_flip_p
from medgen.metrics.detection import Candidates, find_candidates, froc, thirds
from medgen.metrics.interval import Interval
from medgen.metrics.ranking import Ranked, Resampler, Statistic, centred, level_counts

# Share of a scan's scored voxels whose clusters are lesion candidates, and whose mean is the scan score "top".
CANDIDATE_SHARE = 0.01
TOP_SHARE = 0.001
# False positives per scan at which lesion sensitivity is given.
RATES = (0.25, 0.5, 1.0, 2.0, 4.0)
SCAN_SCORES = ("max", "top")
# Twice the usual: groups of few scans keep three digits.
_BINS = 4096
# Up to so many different contrasts are groups of their own.
_FEW = 6

VOXEL_STATISTICS: Mapping[str, Statistic] = {
    "AP": Ranked.average_precision,
    "AUROC": Ranked.auroc,
    "best Dice": Ranked.best_dice,
}


@dataclass(frozen=True)
class ScanFacts:
    """What is known of a scan whatever the method.

    Attributes:
        name, subject: The scan, and whom it shows.
        truth_voxels: Anomalous voxels; 0 is a healthy scan.
        voxels: Voxels that count: scored by any of the methods, or anomalous.
        kind, radius_mm, contrast: What was implanted, its radius in mm and its strength, where known.
    """

    name: str
    subject: str
    truth_voxels: int
    voxels: int
    kind: str | None = None
    radius_mm: float | None = None
    contrast: float | None = None


@dataclass(frozen=True, eq=False)
class ScanScores:
    """One scan as one method scores it.

    Attributes:
        counts: See :func:`medgen.metrics.ranking.level_counts`, (2, 65536).
        scored_truth: Anomalous voxels that the method scores.
        values: The scan scores ``max`` (hottest voxel) and ``top`` (mean of the hottest 0.1 %).
        candidates: Clusters of the hottest 1 % of the scored voxels.
    """

    counts: NDArray[np.uint32]
    scored_truth: int
    values: Mapping[str, float]
    candidates: Candidates


@dataclass(frozen=True)
class MethodRow:
    """All numbers of one method.

    Attributes:
        name: Name of the method in tables.
        voxel: ``AP``, ``AUROC`` and ``best Dice`` pooled over the voxels of all scans with an anomaly; with healthy
            scans also ``AP with healthy scans``.
        ap_per_scan: AP of each scan with an anomaly, averaged.
        coverage: Share of the anomalous voxels that the method scores; the rest counts as missed.
        sensitivity: Share of lesions found, by false positives per scan (FROC).
        froc: Mean of ``sensitivity``.
        scan: ``AUROC`` and ``AP`` of each scan score; empty without healthy scans.
        groups: Pooled AP by ``kind``, ``contrast`` and ``radius``, where known.
    """

    name: str
    voxel: Mapping[str, Interval]
    ap_per_scan: Interval
    coverage: Interval
    sensitivity: Mapping[str, Interval]
    froc: Interval
    scan: Mapping[str, Mapping[str, Interval]]
    groups: Mapping[str, Mapping[str, Interval]]


@dataclass(frozen=True)
class Paired:
    """The first method against another one on the same scans; resamples draw the same subjects for both.

    Attributes:
        other: The other method.
        difference, ratio: First minus, and over, the other, by metric.
        p: Two-sided sign-flip test of the subjects' differences in AP per scan; ``p_holm``: adjusted for the number of
            other methods.
    """

    other: str
    difference: Mapping[str, Interval]
    ratio: Mapping[str, Interval]
    p: float
    p_holm: float


@dataclass(frozen=True)
class Comparison:
    """Numbers of all methods on the same scans, and the first method against each other one.

    Attributes:
        scans, healthy, subjects: Numbers of scans with an anomaly, without, and of subjects.
        prevalence: Share of anomalous voxels in the scans with an anomaly: chance level of AP.
        prevalence_all: The same in all scans: chance level of ``AP with healthy scans``.
        chance_scan: Share of scans with an anomaly: chance level of the scan APs.
        group_sizes: Scans per group, by ``kind``, ``contrast``, ``radius``.
        methods: One row each, in the order given.
        paired: The first against every other.
    """

    scans: int
    healthy: int
    subjects: int
    prevalence: float
    prevalence_all: float
    chance_scan: float
    group_sizes: Mapping[str, Mapping[str, int]]
    methods: Sequence[MethodRow]
    paired: Sequence[Paired]


def reduce_scan(
    heatmaps: Mapping[str, NDArray[Any]], truth: NDArray[np.bool_]
) -> tuple[int, int, dict[str, ScanScores]]:
    """Rank the voxels of one scan by every method.

    Every method is judged on the same voxels: those that any of them scores, and all anomalous ones. Where a method has
    no value there, the voxel ranks below all others, so that scoring less never helps.

    Args:
        heatmaps: Method → (i, j, k), higher is more anomalous, NaN where not scored.
        truth: (i, j, k) boolean.

    Returns:
        Anomalous voxels, voxels that count, and the scores by method.
    """
    known = {name: np.isfinite(values) for name, values in heatmaps.items()}
    domain = np.logical_or.reduce([truth, *known.values()])
    result = {}
    for name, values in heatmaps.items():
        own = np.where(known[name], values, -np.inf)
        scored = values[known[name]]
        result[name] = ScanScores(
            counts=level_counts(own[domain], truth[domain]),
            scored_truth=int((known[name] & truth).sum()),
            values={
                "max": float(scored.max()) if scored.size else -np.inf,
                "top": float(_hottest(scored, TOP_SHARE).mean(dtype=np.float64)) if scored.size else -np.inf,
            },
            candidates=_candidates(own, scored, truth),
        )
    return int(truth.sum()), int(domain.sum()), result


def compare(
    facts: Sequence[ScanFacts], methods: Mapping[str, Sequence[ScanScores]], bootstrap: int = 2000, seed: int = 0
) -> Comparison:
    """All numbers of all methods with 95 % intervals from resampling subjects, and the first against the others.

    Args:
        facts: The scans.
        methods: Method → its scores of the same scans in the same order; the first is compared with the rest.
        bootstrap: Resamples.
        seed: Seed of the random resampling; equal seeds give equal results.

    Raises:
        DataError: If no scan has an anomalous voxel.
    """
    rows = [index for index, item in enumerate(facts) if item.truth_voxels]
    if not rows:
        raise DataError(f"none of {len(facts)} scans has a truth voxel above 0; there is nothing to find")
    resampler = Resampler([item.subject for item in facts], bootstrap, seed)
    groups = _groups([facts[row] for row in rows])
    judged = {name: _Judged(name, facts, rows, scores, resampler, groups) for name, scores in methods.items()}
    first, *others = judged.values()
    paired = [first.against(other) for other in others]
    adjusted = holm([item.p for item in paired]) if paired else []
    return Comparison(
        scans=len(rows),
        healthy=len(facts) - len(rows),
        subjects=len(resampler.names),
        prevalence=sum(item.truth_voxels for item in facts) / sum(facts[row].voxels for row in rows),
        prevalence_all=sum(item.truth_voxels for item in facts) / sum(item.voxels for item in facts),
        chance_scan=len(rows) / len(facts),
        group_sizes={by: {name: len(own) for name, own in parts.items()} for by, parts in groups.items()},
        methods=[item.row() for item in judged.values()],
        paired=[replace(item, p_holm=p) for item, p in zip(paired, adjusted, strict=True)],
    )


class _Judged:
    """One method: its estimates followed by their resamples, (1 + n,), from which rows and differences are made."""

    def __init__(
        self,
        name: str,
        facts: Sequence[ScanFacts],
        rows: Sequence[int],
        scores: Sequence[ScanScores],
        resampler: Resampler,
        groups: Mapping[str, Mapping[str, Sequence[int]]],
    ) -> None:
        self._name, self._resampler = name, resampler
        everyone = [item.subject for item in facts]
        self._subjects = subjects = [everyone[row] for row in rows]
        everything = Ranked.counted([item.counts for item in scores], bins=_BINS)
        ranked = everything.select(rows)
        self.draws = {key: resampler.draws(ranked, subjects, value) for key, value in VOXEL_STATISTICS.items()}
        healthy = len(rows) < len(facts)
        if healthy:
            self.draws["AP with healthy scans"] = resampler.draws(everything, everyone, Ranked.average_precision)
        self._voxel = tuple(self.draws)
        self._per_scan = ranked.average_precision()
        self.draws["AP per scan"] = resampler.mean_draws(self._per_scan, subjects)
        rates = _froc_draws(everyone, [item.candidates for item in scores], resampler)
        self._rates = {f"{rate:g}": rates[:, column] for column, rate in enumerate(RATES)}
        self.draws["FROC"] = rates.mean(axis=1)
        self._coverage = _coverage([facts[row] for row in rows], [scores[row] for row in rows], resampler)
        anomalous = [np.array([item.truth_voxels > 0]) for item in facts]
        self._scan: dict[str, dict[str, Interval]] = {}
        for key in SCAN_SCORES if healthy else ():
            whole = Ranked.of([np.array([item.values[key]]) for item in scores], anomalous)
            own = {what: resampler.draws(whole, everyone, VOXEL_STATISTICS[what]) for what in ("AUROC", "AP")}
            self._scan[key] = {what: resampler.interval(draws) for what, draws in own.items()}
            self.draws |= {f"scan {what} ({key})": draws for what, draws in own.items()}
        self._groups = {
            by: {
                group: resampler.ranked(ranked.select(own), [subjects[row] for row in own], Ranked.average_precision)
                for group, own in parts.items()
            }
            for by, parts in groups.items()
        }

    def row(self) -> MethodRow:
        interval = self._resampler.interval
        return MethodRow(
            name=self._name,
            voxel={key: interval(self.draws[key]) for key in self._voxel},
            ap_per_scan=interval(self.draws["AP per scan"]),
            coverage=self._coverage,
            sensitivity={rate: interval(draws) for rate, draws in self._rates.items()},
            froc=interval(self.draws["FROC"]),
            scan=self._scan,
            groups=self._groups,
        )

    def against(self, other: _Judged) -> Paired:
        difference, ratio = {}, {}
        for key, own in self.draws.items():
            difference[key] = self._resampler.interval(own - other.draws[key])
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio[key] = self._resampler.interval(own / other.draws[key])
        gains = self._resampler.indicator(self._subjects) @ np.stack(
            [self._per_scan - other._per_scan, np.ones(len(self._per_scan))], axis=1
        )
        with_anomaly = gains[gains[:, 1] > 0]
        p = sign_flip_p(with_anomaly[:, 0] / with_anomaly[:, 1])
        return Paired(other._name, difference, ratio, p, p)


def _hottest(values: NDArray[Any], share: float) -> NDArray[Any]:
    count = max(1, round(share * values.size))
    return np.partition(values, -count)[-count:]


def _candidates(own: NDArray[Any], scored: NDArray[Any], truth: NDArray[np.bool_]) -> Candidates:
    threshold = np.inf
    if scored.size:
        lowest = _hottest(scored, CANDIDATE_SHARE).min()
        # A map with few values, such as one of zeros and ones, may have most of its voxels on that value.
        tied = np.count_nonzero(scored >= lowest) > 2 * CANDIDATE_SHARE * scored.size + 1
        higher = scored[scored > lowest]
        threshold = lowest if not tied else higher.min() if higher.size else np.inf
    return find_candidates(own, truth, threshold)


def _froc_draws(subjects: Sequence[str], scans: Sequence[Candidates], resampler: Resampler) -> NDArray[np.float64]:
    """Sensitivity at each of the rates for all scans, then for every resample, (1 + n, rates).

    Noisy maps have thousands of candidates in a scan: resamples add up counts, as everywhere here, instead of sorting
    them anew.
    """
    best = [_best(scan) for scan in scans]
    matrix = resampler.indicator(subjects)
    found = Ranked.counted([level_counts(scan.scores, scan.hits >= 0) for scan in best], bins=_BINS).pooled(matrix)
    lesions, count = matrix @ np.array([float(scan.lesions) for scan in scans]), matrix.sum(axis=1)
    result = [np.array(list(froc(best, RATES).at.values()))[None]]
    for weights in np.array_split(resampler.weights, max(1, len(resampler.weights) // 250)):
        own = found.pooled(weights)
        true = np.cumsum(np.pad(own.positive, ((0, 0), (1, 0))), axis=1)
        false = np.cumsum(own.negative, axis=1) / (weights @ count)[:, None]
        places = np.stack([(false <= rate + 1e-9).sum(axis=1) for rate in RATES], axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            result.append(np.take_along_axis(true, places, axis=1) / (weights @ lesions)[:, None])
    return np.apply_along_axis(centred, 0, np.concatenate(result))


def _best(scan: Candidates) -> Candidates:
    """The best candidate of each lesion and all false ones: what a FROC curve depends on."""
    order = np.argsort(-scan.scores, kind="stable")
    hits = scan.hits[order]
    first = np.zeros(len(hits), dtype=bool)
    first[np.unique(hits, return_index=True)[1]] = True
    keep = order[first | (hits < 0)]
    return Candidates(scan.scores[keep], scan.hits[keep], scan.lesions)


def _coverage(facts: Sequence[ScanFacts], scores: Sequence[ScanScores], resampler: Resampler) -> Interval:
    matrix = resampler.indicator([item.subject for item in facts])
    scored = matrix @ np.array([float(item.scored_truth) for item in scores])
    total = matrix @ np.array([float(item.truth_voxels) for item in facts])
    weights = np.vstack([np.ones(len(resampler.names)), resampler.weights])
    with np.errstate(invalid="ignore"):
        return resampler.interval((weights @ scored) / (weights @ total))


def _groups(facts: Sequence[ScanFacts]) -> dict[str, dict[str, list[int]]]:
    """Rows of the scans of each kind, contrast and third of the radii, where every scan's is known."""
    result: dict[str, dict[str, list[int]]] = {}
    kinds = [item.kind for item in facts]
    if None not in kinds:
        result["kind"] = _rows(kinds, str)
    contrasts = [item.contrast for item in facts if item.contrast is not None]
    if len(contrasts) == len(facts):
        result["contrast"] = (
            _rows(contrasts, lambda value: f"{value:g}") if len(set(contrasts)) <= _FEW else thirds(contrasts, "")
        )
    radii = [item.radius_mm for item in facts if item.radius_mm is not None]
    if len(radii) == len(facts):
        result["radius"] = thirds(radii, " mm")
    return result


def _rows(values: Sequence[Any], name: Callable[[Any], str]) -> dict[str, list[int]]:
    return {name(value): [row for row, own in enumerate(values) if own == value] for value in sorted(set(values))}
