"""How often healthy subjects are called anomalous: the calibration played through on simulated cohorts.

The guarantee of a conformal p-value needs a new scan's score to be exchangeable with the calibration's. Here it nearly
is: calibration scans pass through one member, new scans through the mean of all. What that does to the realised rate is
not to be argued but counted, with the same normative maps, tails, heat and p-values as a real run, on subjects that are
hard on it: maps with spatial correlation, places and subjects that vary more than others, a few outliers among the
subjects, and models that err in their own way on every scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medgen.anomaly import calibration
from medgen.anomaly.fusion import Tail, heat
from medgen.anomaly.normative import Moments, NormativeConfig, normative_of
from medgen.metrics.bootstrap import binomial_interval
from medgen.metrics.interval import Interval
from medgen.progress import Progress
from medgen.seeds import numpy_rng

SHAPE = (6, 6, 6)
TOP_FRACTION = 0.02


@dataclass(frozen=True)
class Rate:
    """The realised rate of one score at one number of subjects and one target.

    Attributes:
        subjects: Healthy subjects in the calibration.
        score: ``max`` (whether there is a finding) or ``top`` (the scan score).
        target: α.
        realised: Share of simulated cohorts whose new healthy subject has p ≤ α, with its exact interval.
        attainable: Largest multiple of 1 / (n + 1) that is at most α: no exact conformal p has a higher rate.
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
    """
    reachable = [target for target in targets if calibration.scans_needed(target) <= subjects]
    counts = {(score, target): 0 for score in ("max", "top") for target in reachable}
    for cohort in range(cohorts):
        p_values = _one_cohort(numpy_rng(seed, "rates", subjects, cohort), subjects, folds, model_noise)
        for score, target in counts:
            counts[score, target] += calibration.significant(p_values[score], target)
        if progress is not None:
            progress(cohort + 1, cohorts)
    return [
        Rate(
            subjects,
            score,
            target,
            binomial_interval(count, cohorts),
            float(np.floor(target * (subjects + 1) + 1e-9) / (subjects + 1)),
        )
        for (score, target), count in counts.items()
    ]


def _one_cohort(rng: np.random.Generator, n: int, folds: int, model_noise: float) -> dict[str, float]:
    """p-values of one new healthy subject."""
    region = np.ones(SHAPE, dtype=bool)
    spread = 0.5 + rng.gamma(2.0, 0.5, size=SHAPE)
    restless = np.where(rng.random(n + 1) < 0.05, 2.5, 1.0) * rng.gamma(20.0, 1 / 20, size=n + 1)
    people = _fields(rng, (n + 1,)) * spread * restless[:, None, None, None]
    fold_of = rng.permutation(np.arange(n) % folds)
    # Every model errs in one way everywhere, and in another on every scan.
    habit = _fields(rng, (folds,)) * model_noise
    own_error = _fields(rng, (n,)) * model_noise
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
    healthy = [_scores(heat(tails[fold_of[row]](zs[row]))) for row in range(n)]
    new = people[n] + habit + _fields(rng, (folds,)) * model_noise
    averaged = np.mean([heat(tails[fold](norms[fold].z(new[fold]))) for fold in range(folds)], axis=0)
    return {
        name: calibration.p_value([scores[name] for scores in healthy], value)
        for name, value in _scores(averaged).items()
    }


def _fields(rng: np.random.Generator, count: tuple[int, ...]) -> NDArray[np.float64]:
    """Independent smooth random maps of unit variance, (count, i, j, k)."""
    noise = ndimage.gaussian_filter(rng.normal(size=(*count, *SHAPE)), sigma=(0, 1, 1, 1), mode="wrap")
    return np.asarray(noise / noise.std(axis=(1, 2, 3), keepdims=True))


def _scores(hot: NDArray[np.floating]) -> dict[str, float]:
    values = np.sort(hot.ravel())
    return {"max": float(values[-1]), "top": float(values[-max(1, round(TOP_FRACTION * values.size)) :].mean())}
