"""How often healthy subjects are called anomalous: the calibration played through on simulated cohorts.

The guarantee of a conformal p-value, and of a number of false findings, needs a new scan's score to be exchangeable
with the calibration's. Here it nearly is: calibration scans pass through one member, new scans through the mean of all.
What that does to the realised rate is not to be argued but counted, with the same normative maps, tails, heat, p-values
and candidates as a real run, on subjects that are hard on it: maps with spatial correlation, places and subjects that
vary more than others, a few outliers among the subjects, and models that err in their own way on every scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medgen.anomaly import calibration
from medgen.anomaly.findings.candidates import Candidates, candidates_of
from medgen.anomaly.findings.false_findings import HealthyCandidates, count_interval
from medgen.anomaly.fusion import Tail, heat
from medgen.anomaly.normative.config import NormativeConfig
from medgen.anomaly.normative.maps import normative_of
from medgen.anomaly.normative.moments import Moments
from medgen.metrics.bootstrap import binomial_interval
from medgen.metrics.interval import Interval
from medgen.progress import Progress
from medgen.seeds import numpy_rng
from medgen.volume import Grid, Volume

SHAPE = (6, 6, 6)
_GRID = Grid(SHAPE, np.eye(4))
# In voxels of these small maps, which hold about two candidates each.
_SEPARATION = 2.0
TOP_FRACTION = 0.02


@dataclass(frozen=True)
class Rate:
    """The realised rate of one score at one number of subjects and one target.

    Attributes:
        subjects: Healthy subjects in the calibration.
        score: ``max`` (whether a voxel passes the family-wise level), ``top`` (the scan score) or ``findings``.
        target: α, or the expected false findings per healthy scan.
        realised: Share of simulated cohorts whose new healthy subject has p ≤ α, with its exact interval; of findings
            their mean number in new healthy subjects, see
            :func:`medgen.anomaly.findings.false_findings.count_interval`.
        attainable: Largest multiple of 1 / (n + 1) that is at most the target: no exact conformal p has a higher rate.
    """

    subjects: int
    score: str
    target: float
    realised: Interval
    attainable: float


def simulated_rates(
    subjects: int,
    targets: Sequence[float],
    cohorts: int,
    seed: int = 0,
    folds: int = 5,
    model_noise: float = 0.5,
    progress: Progress | None = None,
    levels: Sequence[float] = (),
) -> list[Rate]:
    """Realised false-positive rates of findings and of scan scores.

    Args:
        subjects: Healthy subjects of every cohort.
        targets: Rates to aim at; those that so few subjects cannot certify are left out.
        cohorts: Simulated cohorts, one new healthy subject each.
        seed: Seed of the simulation.
        folds: Members of the ensemble.
        model_noise: Standard deviation of what a model adds to a map of its own, where subjects vary by 1.
        progress: Called with (cohorts done, cohorts in all).
        levels: Expected false findings per healthy scan to aim at, at least 1 / (subjects + 1).
    """
    reachable = [target for target in targets if calibration.scans_needed(target) <= subjects]
    counts = {(score, target): 0 for score in ("max", "top") for target in reachable}
    listed: dict[float, list[int]] = {level: [] for level in levels}
    for cohort in range(cohorts):
        rng = numpy_rng(seed, "rates", subjects, cohort)
        p_values, found = _one_cohort(rng, subjects, folds, model_noise, tuple(levels))
        for score, target in counts:
            counts[score, target] += calibration.significant(p_values[score], target)
        for level, number in found.items():
            listed[level].append(number)
        if progress is not None:
            progress(cohort + 1, cohorts)
    realised = {key: binomial_interval(count, cohorts) for key, count in counts.items()}
    realised |= {("findings", level): count_interval(numbers) for level, numbers in listed.items()}
    return [
        Rate(subjects, score, target, value, float(np.floor(target * (subjects + 1) + 1e-9) / (subjects + 1)))
        for (score, target), value in realised.items()
    ]


def _one_cohort(
    rng: np.random.Generator, n: int, folds: int, model_noise: float, levels: tuple[float, ...]
) -> tuple[dict[str, float], dict[float, int]]:
    """p-values of one new healthy subject, and its findings at each level."""
    region = np.ones(SHAPE, dtype=bool)
    spread = 0.5 + rng.gamma(2.0, 0.5, size=SHAPE)
    restless = np.where(rng.random(n + 1) < 0.05, 2.5, 1.0) * rng.gamma(20.0, 1 / 20, size=n + 1)
    people = fields(rng, (n + 1,)) * spread * restless[:, None, None, None]
    fold_of = rng.permutation(np.arange(n) % folds)
    # Every model errs in one way everywhere, and in another on every scan.
    habit = fields(rng, (folds,)) * model_noise
    own_error = fields(rng, (n,)) * model_noise
    maps = [people[row] + habit[fold_of[row]] + own_error[row] for row in range(n)]
    parts = [
        Moments.of([maps[row][region] for row in rows], [region] * len(rows), SHAPE)
        for rows in (np.flatnonzero(fold_of == fold) for fold in range(folds))
    ]
    whole = parts[0]
    for part in parts[1:]:
        whole = whole + part
    norms = [normative_of(whole - part, region, NormativeConfig()) for part in parts]
    zs = [norms[fold_of[row]].z(maps[row]) for row in range(n)]
    tails = [Tail.of(np.stack([zs[row] for row in np.flatnonzero(fold_of != fold)])) for fold in range(folds)]
    hot = [heat(tails[fold_of[row]](zs[row])) for row in range(n)]
    healthy = [scan_scores(values) for values in hot]
    new = people[n] + habit + fields(rng, (folds,)) * model_noise
    averaged = np.mean([heat(tails[fold](norms[fold].z(new[fold]))) for fold in range(folds)], axis=0)
    p_values = {
        name: calibration.p_value([scores[name] for scores in healthy], value)
        for name, value in scan_scores(averaged).items()
    }
    if not levels:
        return p_values, {}
    candidates = HealthyCandidates.of([_candidates(values).heat for values in hot], [str(row) for row in range(n)])
    own = _candidates(averaged)
    return p_values, {level: candidates.listed(own, level) for level in levels}


def _candidates(hot: NDArray[np.floating]) -> Candidates:
    return candidates_of(Volume(hot[None].astype(np.float32), _GRID), _SEPARATION)


def fields(rng: np.random.Generator, count: tuple[int, ...]) -> NDArray[np.float64]:
    """Independent smooth random maps of unit variance, (count, i, j, k)."""
    noise = ndimage.gaussian_filter(rng.normal(size=(*count, *SHAPE)), sigma=(0, 1, 1, 1), mode="wrap")
    return np.asarray(noise / noise.std(axis=(1, 2, 3), keepdims=True))


def scan_scores(hot: NDArray[np.floating]) -> dict[str, float]:
    """``max`` and ``top`` of a heatmap."""
    values = np.sort(hot.ravel())
    return {"max": float(values[-1]), "top": float(values[-max(1, round(TOP_FRACTION * values.size)) :].mean())}
