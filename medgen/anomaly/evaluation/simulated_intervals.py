"""Whether the stated number of false findings holds, and its interval: many calibrations on simulated counts.

A list at a level has at most that many false findings per healthy scan *in expectation over calibrations*; a single
calibration has a rate of its own, which its stated interval should hold
(:meth:`medgen.anomaly.findings.false_findings.HealthyCandidates.rate`). Here that rate is known: every calibration is
followed by new healthy scans. Counts are as even as they can be (Poisson), or as uneven as healthy scans are: subjects
that differ by a gamma factor, a few of them with four times as many and hotter candidates; one scan each or two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.findings.false_findings import HealthyCandidates, at_level
from medgen.metrics.bootstrap import binomial_interval
from medgen.metrics.interval import Interval, percentile_interval
from medgen.progress import Progress
from medgen.seeds import numpy_rng

POPULATIONS = ("even", "uneven", "outliers", "outliers, two scans")
# Candidates of an ordinary scan, and how fast their heat falls off above the lowest.
_CANDIDATES, _FALL = 30.0, 0.45


@dataclass(frozen=True)
class Coverage:
    """Calibrations of one population, number of subjects and level.

    Attributes:
        population: One of :data:`POPULATIONS`.
        subjects: Healthy subjects of every calibration.
        level: Expected false findings per healthy scan that is aimed at.
        mean: False findings per new healthy scan, averaged over the calibrations, with its 95 % interval.
        spread: Middle 90 % of the calibrations' rates.
        covered: Share of calibrations whose interval holds their rate, with its exact interval.
        width: Mean width of these intervals.
    """

    population: str
    subjects: int
    level: float
    mean: Interval
    spread: tuple[float, float]
    covered: Interval
    width: float


def simulated_intervals(
    population: str,
    subjects: int,
    levels: Sequence[float],
    cohorts: int,
    seed: int = 0,
    progress: Progress | None = None,
    new_scans: int = 1000,
) -> list[Coverage]:
    """Calibrate on simulated healthy scans again and again, and compare stated with realised false findings.

    Args:
        population: One of :data:`POPULATIONS`.
        subjects: Healthy subjects of every calibration.
        levels: Expected false findings per healthy scan.
        cohorts: Calibrations.
        seed: Seed of the simulation.
        progress: Called with (calibrations done, calibrations in all).
        new_scans: New healthy scans after each calibration: their mean count is taken for its rate.
    """
    rates = {level: np.zeros(cohorts) for level in levels}
    stated: dict[float, list[Interval]] = {level: [] for level in levels}
    each = 2 if population.endswith("two scans") else 1
    for cohort in range(cohorts):
        rng = numpy_rng(seed, "intervals", population, subjects, cohort)
        scans = [scan for own in _people(rng, population, subjects) for scan in own[:each]]
        healthy = HealthyCandidates.of(scans, [str(number // each) for number in range(len(scans))])
        new = [own[0] for own in _people(rng, population, new_scans)]
        lengths = [scan.size for scan in new]
        heat = np.concatenate(new)
        ranks = np.concatenate([np.arange(1, size + 1) for size in lengths])
        expected = (healthy.sum_of_means(heat) + ranks) / (healthy.n + 1)
        for level in levels:
            rates[level][cohort] = at_level(expected, level).sum() / new_scans
            stated[level].append(healthy.rate(level))
        if progress is not None:
            progress(cohort + 1, cohorts)
    return [_coverage(population, subjects, level, rates[level], stated[level]) for level in levels]


def _people(rng: np.random.Generator, population: str, n: int) -> list[list[NDArray[np.float64]]]:
    """Heat of the candidates of two scans of each of n subjects, falling."""
    factor = np.ones(n)
    if population == "uneven":
        factor = rng.gamma(2.0, 0.5, n)
    if population.startswith("outliers"):
        factor = rng.gamma(4.0, 0.25, n) * np.where(rng.random(n) < 0.07, 4.0, 1.0)
    fall = np.where(factor > 3, 1.3 * _FALL, _FALL)
    return [
        [-np.sort(-(2 + rng.exponential(own, rng.poisson(_CANDIDATES * many)))) for _ in range(2)]
        for many, own in zip(factor.tolist(), fall.tolist(), strict=True)
    ]


def _coverage(
    population: str, subjects: int, level: float, rates: NDArray[np.float64], stated: Sequence[Interval]
) -> Coverage:
    inside = sum(interval.low <= rate <= interval.high for interval, rate in zip(stated, rates, strict=True))
    error = 1.96 * float(rates.std(ddof=1)) / np.sqrt(rates.size)
    mean = float(rates.mean())
    middle = percentile_interval(mean, rates, rates.size, level=0.9)
    return Coverage(
        population=population,
        subjects=subjects,
        level=level,
        mean=Interval(mean, mean - error, mean + error, rates.size),
        spread=(middle.low, middle.high),
        covered=binomial_interval(inside, rates.size),
        width=float(np.mean([interval.high - interval.low for interval in stated])),
    )
