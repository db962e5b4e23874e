"""Whether healthy people of every age, sex and scanner are flagged equally often: cohorts with known effects.

A conformal p-value holds for a new healthy person drawn like the others, on average over all kinds of people. If scores
rise with age, old people are flagged more often and young people less, and the average says nothing of it. Adjusted
scores are exchangeable given the covariates only as far as the regression is right, so the rates by group are counted
here: cohorts whose scores depend on one covariate by a known amount, a second covariate without any effect, and the
same maps, tails, heat and p-values as a real run, with and without the adjustment. Copies of the new people with a hot
spot tell what the adjustment costs or brings where something is to be found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly import calibration
from medgen.anomaly.evaluation.simulated_rates import SHAPE, fields, scan_scores
from medgen.anomaly.fusion import Tail, heat
from medgen.anomaly.normative.config import AUTO, NormativeConfig
from medgen.anomaly.normative.covariates import Covariates, choose_covariates
from medgen.anomaly.normative.maps import Normative, normative_of, with_spread
from medgen.anomaly.normative.moments import Moments
from medgen.metrics.bootstrap import binomial_interval
from medgen.metrics.interval import Interval
from medgen.progress import Progress
from medgen.seeds import numpy_rng

# Mean and half the width of the ages.
_AGES = (60.0, 30.0)
_VALUES = {"sex": ("female", "male"), "scanner": ("Avanto", "Trio")}
# Healthy standard deviations that the hot spot is hotter, and its side in voxels.
_SPOT, _SIDE = 3.0, 2
_REGION = np.ones(SHAPE, dtype=bool)


@dataclass(frozen=True)
class Effect:
    """What a covariate does to the scores.

    Attributes:
        covariate: ``age``, ``sex`` or ``scanner``.
        mean: Standard deviations by which scores rise, at half of the places, per standard deviation of the age or from
            the cohort's middle to the second sex or scanner.
        spread: The same for the logarithm of the standard deviation, at every place.
    """

    covariate: str
    mean: float = 0.0
    spread: float = 0.0


EFFECTS = (
    Effect("age"),
    *(Effect(name, mean) for name in _VALUES | {"age": ()} for mean in (0.5, 1.0)),
    *(Effect(name, 0.0, 0.3) for name in ("age", "scanner")),
)


@dataclass(frozen=True)
class GroupRates:
    """False-positive rates of two groups of new healthy people, by the hottest voxel.

    Attributes:
        effect: What the covariate does.
        subjects: Healthy subjects in the calibration.
        target: α.
        adjusted: Whether means and variances were adjusted.
        low, high: Share of people flagged: the youngest third or the first value, the oldest third or the second.
        found: Share flagged of all these people with a hot spot.
    """

    effect: Effect
    subjects: int
    target: float
    adjusted: bool
    low: Interval
    high: Interval
    found: Interval

    @property
    def attainable(self) -> float:
        """Largest multiple of 1 / (n + 1) that is at most the target."""
        return float(np.floor(self.target * (self.subjects + 1) + 1e-9) / (self.subjects + 1))


def simulated_groups(
    effect: Effect,
    subjects: int,
    target: float,
    cohorts: int,
    seed: int = 0,
    folds: int = 5,
    progress: Progress | None = None,
) -> tuple[GroupRates, GroupRates]:
    """Rates without and with the adjustment, on the same cohorts and people.

    Args:
        effect: What the covariate does.
        subjects: Healthy subjects of every cohort.
        target: Rate to aim at; at least 1 / (subjects + 1).
        cohorts: Simulated cohorts, each with one new person of either group.
        seed: Seed of the simulation.
        folds: Parts that are left out in turn.
        progress: Called with (cohorts done, cohorts in all).
    """
    flagged = np.zeros((2, 2), dtype=int)
    found = np.zeros(2, dtype=int)
    for cohort in range(cohorts):
        rng = numpy_rng(seed, "groups", str(effect), subjects, cohort)
        for adjusted, p_values in enumerate(_one_cohort(rng, effect, subjects, folds)):
            hit = np.vectorize(calibration.significant)(p_values, target)
            flagged[adjusted] += hit[:, 0]
            found[adjusted] += hit[:, 1].sum()
        if progress is not None:
            progress(cohort + 1, cohorts)

    def rates(adjusted: int) -> GroupRates:
        low, high = (binomial_interval(int(k), cohorts) for k in flagged[adjusted])
        share = binomial_interval(int(found[adjusted]), 2 * cohorts)
        return GroupRates(effect, subjects, target, bool(adjusted), low, high, share)

    return rates(0), rates(1)


def _one_cohort(
    rng: np.random.Generator, effect: Effect, n: int, folds: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """P of the two new people, without and with the hot spot (2, 2); not adjusted, then adjusted."""
    away, cells = _people(rng, effect.covariate, n)
    where = fields(rng, (1,))[0] > 0
    spread = 0.5 + rng.gamma(2.0, 0.5, size=SHAPE)
    own = fields(rng, (n + 2,)) * np.exp(effect.spread * away)[:, None, None, None]
    maps = (own + effect.mean * away[:, None, None, None] * where) * spread
    spot = np.zeros(SHAPE)
    corner = rng.integers(0, SHAPE[0] - _SIDE + 1, size=3)
    spot[tuple(slice(at, at + _SIDE) for at in corner)] = _SPOT
    fold_of = rng.permutation(np.arange(n) % folds)
    chosen = choose_covariates(AUTO, cells[:n], [str(row) for row in range(n)]).covariates
    results = []
    for covariates in (None, chosen):
        rows = np.zeros((n + 2, 0)) if covariates is None else np.stack([covariates.nearest(cell) for cell in cells])
        norms = _norms(maps[:n], rows[:n], fold_of, folds, covariates)
        zs = [norms[fold_of[row]].at(rows[row]).z(maps[row]) for row in range(n)]
        tails = [Tail.of(np.stack([zs[row] for row in np.flatnonzero(fold_of != fold)])) for fold in range(folds)]
        healthy = [scan_scores(heat(tails[fold_of[row]](zs[row])))["max"] for row in range(n)]
        p_values = np.empty((2, 2))
        for new in range(2):
            for hot in range(2):
                values = maps[n + new] + hot * spot * spread
                each = [heat(tails[k](norms[k].at(rows[n + new]).z(values))) for k in range(folds)]
                p_values[new, hot] = calibration.p_value(healthy, scan_scores(np.mean(each, axis=0))["max"])
        results.append(p_values)
    return results[0], results[1]


def _norms(
    maps: NDArray[np.float64],
    rows: NDArray[np.float64],
    fold_of: NDArray[np.int64],
    folds: int,
    covariates: Covariates | None,
) -> list[Normative]:
    """The normative map of every fold, from the scans of the others."""
    config = NormativeConfig()
    found = []
    for fold in range(folds):
        others = np.flatnonzero(fold_of != fold)
        flat, masks = [maps[row][_REGION] for row in others], [_REGION] * len(others)
        if covariates is None:
            found.append(normative_of(Moments.of(flat, masks, SHAPE), _REGION, config))
        else:
            moments = Moments.of(flat, masks, SHAPE, rows[others])
            own = normative_of(moments, _REGION, config, covariates.covariance)
            found.append(with_spread(own, flat, masks, rows[others], _REGION, config))
    return found


def _people(rng: np.random.Generator, covariate: str, n: int) -> tuple[NDArray[np.float64], list[dict[str, str]]]:
    """How far each of n + 2 people is from the middle of the covariate, and their cells in the manifest.

    The last two are new: one of the youngest third or with the first value, one of the oldest third or with the second.
    """
    other = "sex" if covariate != "sex" else "age"
    drawn = {name: _drawn(rng, name, n + 2) for name in (covariate, other)}
    own = drawn[covariate]
    if covariate == "age":
        own[n:] = rng.uniform(1 / 3, 1, size=2) * (-1, 1)
    else:
        own[n:] = (-1, 1)
    cells = [{name: _cell(name, float(values[row])) for name, values in drawn.items()} for row in range(n + 2)]
    # The standard deviation of what is even over (-1, 1) is 1/√3.
    return own * (np.sqrt(3) if covariate == "age" else 1.0), cells


def _drawn(rng: np.random.Generator, name: str, count: int) -> NDArray[np.float64]:
    """Ages evenly over (-1, 1); of two values each half of the time, as exactly as the number allows."""
    if name == "age":
        return rng.uniform(-1, 1, size=count)
    return rng.permutation(np.arange(count) % 2) * 2.0 - 1.0


def _cell(name: str, value: float) -> str:
    return f"{_AGES[0] + _AGES[1] * value:.1f}" if name == "age" else _VALUES[name][int(value > 0)]


def table(rates: Sequence[GroupRates]) -> list[str]:
    """The rates as lines of a table in Markdown."""
    head = "| covariate | mean | spread | subjects | attainable | adjusted | young or first | old or second | found |"
    lines = [head, "|---|---|---|---|---|---|---|---|---|"]
    for item in rates:
        own = item.effect
        three = " | ".join(f"{v.estimate:.3f} [{v.low:.3f}, {v.high:.3f}]" for v in (item.low, item.high, item.found))
        lines.append(
            f"| {own.covariate} | {own.mean:g} | {own.spread:g} | {item.subjects} | {item.attainable:.3f} | "
            f"{'yes' if item.adjusted else 'no'} | {three} |"
        )
    return lines
