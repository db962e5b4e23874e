"""Is a set of synthetic scans like the real ones, and as varied? Every number stands beside what real scans reach.

How the real scans are compared among themselves, and what a floor is, is said in :mod:`medgen.metrics.halves`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medgen.errors import DataError
from medgen.metrics.halves import Measure, Rows, subject_splits
from medgen.metrics.interval import percentile_interval
from medgen.metrics.label_statistics import kolmogorov_smirnov, standardised_difference
from medgen.metrics.mmd import (
    Kernel,
    different,
    gaussian_kernel,
    median_distance,
    mmd2,
    mmd2_of_subsets,
    polynomial_kernel,
    squared_distances,
)
from medgen.metrics.msssim import likeness_draws
from medgen.metrics.neighbours import density_coverage, fitting_k

Array = NDArray[np.float64]
Table = Mapping[str, Array]


@dataclass(frozen=True)
class StatisticRow:
    """One statistic of one label, real and synthetic.

    Attributes:
        label: Label number.
        statistic: Name, see :mod:`medgen.metrics.label_statistics`.
        real: (mean, standard deviation) of the real scans.
        synthetic: (mean, standard deviation) of the synthetic scans.
        difference: Standardised difference of means, synthetic minus real.
        ks: Kolmogorov-Smirnov distance, mean over the splits.
        ks_real: 95th percentile of the same distance between real halves; NaN with fewer than four subjects.
    """

    label: int
    statistic: str
    real: tuple[float, float]
    synthetic: tuple[float, float]
    difference: float
    ks: float
    ks_real: float

    @property
    def unlike(self) -> bool:
        """Whether the distributions differ more than those of two groups of real people nearly always do."""
        return self.ks > self.ks_real


def compare_features(
    real: Array, groups: Sequence[str], synthetic: Array, *, splits: int = 200, k: int = 5, seed: int = 0
) -> tuple[Measure, ...]:
    """``kid``, ``mmd``, ``density`` and ``coverage`` of synthetic against real features.

    Features are brought to mean 0 and standard deviation 1 of the real scans first. Goals: KID and MMD at most three
    times their floor, coverage at least 0.7. Density and coverage are means over the splits, with equal numbers of real
    and synthetic scans: both depend on how many there are.

    Args:
        real: (n, d).
        groups: Subject of each real scan.
        synthetic: (m, d); each scan counts as an independent draw.
        splits: How many.
        k: Neighbours of density and coverage; fewer if a half has fewer than 4 k scans (:func:`fitting_k`).
        seed: Seed of the random splits into halves.

    Raises:
        DataError: If a feature is not finite, or the numbers of features differ.
    """
    real, synthetic = standardised(real, synthetic)
    made = [f"synthetic {row}" for row in range(len(synthetic))]
    own = [f"real {group}" for group in groups]
    drawn = subject_splits(groups, len(synthetic), splits, seed)
    size = len(set(groups))
    measures = []
    kernels: dict[str, Kernel] = {"kid": polynomial_kernel, "mmd": gaussian_kernel(median_distance(real, groups))}
    everything = np.concatenate([real, synthetic])
    first = _indicators([split.first for split in drawn], len(everything))
    second = _indicators([split.second for split in drawn], len(everything))
    third = _indicators([split.synthetic + len(real) for split in drawn], len(everything))
    for name, kernel in kernels.items():
        matrix = kernel(everything, everything)
        measures.append(
            _distance(
                name,
                mmd2(real, synthetic, kernel, own, made),
                mmd2_of_subsets(matrix, [*own, *made], first, third),
                mmd2_of_subsets(matrix, [*own, *made], first, second),
                size,
                goal=(-math.inf, 3.0),
            )
        )
    distances = np.sqrt(squared_distances(real, everything))
    within = [_neighbours(distances, groups, split.first, split.second, k) for split in drawn]
    against = [_neighbours(distances, groups, split.first, split.synthetic + len(real), k) for split in drawn]
    for column, (name, goal) in enumerate((("density", None), ("coverage", (0.7, math.inf)))):
        draws, floor = (np.array([pair[column] for pair in pairs]) for pairs in (against, within))
        mean, reference = _mean(draws), percentile_interval(_mean(floor), floor, size)
        measures.append(
            Measure(
                name=name,
                synthetic=percentile_interval(mean, draws, size),
                real=reference,
                floor=reference.estimate,
                ratio=percentile_interval(
                    _over(mean, reference.estimate), draws / (reference.estimate or np.nan), size
                ),
                goal=goal,
                judged="synthetic",
            )
        )
    return tuple(measures)


def compare_diversity(
    real: Array, groups: Sequence[str], synthetic: Array, *, draws: int = 2000, seed: int = 0
) -> Measure:
    """``ms_ssim``: mean similarity of synthetic scans among themselves beside that of real scans of different subjects.

    Goal: within 10 % of real. More says that a generator repeats itself, less that it adds what people do not have.

    Args:
        real: Similarities of real scans, (n, n), see :func:`medgen.metrics.msssim.pairwise_ms_ssim`.
        groups: Subject of each real scan.
        synthetic: Similarities of synthetic scans, (m, m).
        draws: Resamples of each interval, of subjects and of synthetic scans.
        seed: Seed of the random resampling; equal seeds give equal results.
    """
    made = [str(row) for row in range(len(synthetic))]
    own, own_draws = likeness_draws(synthetic, made, draws, seed, "synthetic")
    other, other_draws = likeness_draws(real, groups, draws, seed, "real")
    size = len(set(groups))
    return Measure(
        name="ms_ssim",
        synthetic=percentile_interval(own, own_draws, len(synthetic)),
        real=percentile_interval(other, other_draws, size),
        floor=other,
        ratio=percentile_interval(_over(own, other), own_draws / np.where(other_draws > 0, other_draws, np.nan), size),
        goal=(0.9, 1.1),
    )


def compare_volumes(
    real: Array, groups: Sequence[str], synthetic: Array, name: str, *, splits: int = 200, seed: int = 0
) -> Measure:
    """Wasserstein distance of two samples of a label's volume: how much volume has to be moved per scan, on average.

    The distance of two finite samples is above 0 by chance, so it is measured at the size of the splits throughout.

    Args:
        real: Volume of each real scan, (n,).
        groups: Subject of each real scan.
        synthetic: Volume of each synthetic scan, (m,).
        name: Name that the measure gets in tables.
        splits: How many.
        seed: Seed of the random splits into halves.
    """
    from scipy.stats import wasserstein_distance

    drawn = subject_splits(groups, len(synthetic), splits, seed)
    floor = np.array([wasserstein_distance(real[s.first], real[s.second]) for s in drawn])
    values = np.array([wasserstein_distance(real[s.first], synthetic[s.synthetic]) for s in drawn])
    estimate = _mean(values) if drawn else float(wasserstein_distance(real, synthetic))
    return _distance(name, estimate, values, floor, len(set(groups)), goal=None)


def compare_statistics(
    real: Table, groups: Sequence[str], synthetic: Table, label: int, *, splits: int = 100, seed: int = 0
) -> tuple[StatisticRow, ...]:
    """Every statistic of one label, real against synthetic.

    Args:
        real: Statistic → one value per real scan (NaN where it has none), in the order of ``groups``.
        groups: Subject of each real scan.
        synthetic: The same statistics of the synthetic scans.
        label: Label number, for the rows.
        splits: How many.
        seed: Seed of the random splits into halves.
    """
    count = len(next(iter(synthetic.values())))
    drawn = subject_splits(groups, count, splits, seed)
    rows = []
    for name, values in real.items():
        made = synthetic[name]
        ks = np.array([kolmogorov_smirnov(values[s.first], made[s.synthetic]) for s in drawn])
        floor = np.array([kolmogorov_smirnov(values[s.first], values[s.second]) for s in drawn])
        finite = floor[np.isfinite(floor)]
        rows.append(
            StatisticRow(
                label=label,
                statistic=name,
                real=_mean_sd(values),
                synthetic=_mean_sd(made),
                difference=standardised_difference(made, values),
                ks=_mean(ks) if drawn else kolmogorov_smirnov(values, made),
                ks_real=float(np.quantile(finite, 0.95)) if finite.size else math.nan,
            )
        )
    return tuple(rows)


def standardised(real: Array, synthetic: Array) -> tuple[Array, Array]:
    """Both sets with the real set's mean taken off and divided by its standard deviation, feature by feature.

    A feature that is constant in the real set is only centred.

    Raises:
        DataError: If a value is not finite, or the sets have different numbers of features.
    """
    if real.ndim != 2 or synthetic.ndim != 2 or real.shape[1:] != synthetic.shape[1:]:
        raise DataError(
            f"expected real and synthetic features of one length, found shapes {real.shape} and {synthetic.shape}"
        )
    for name, values in (("real", real), ("synthetic", synthetic)):
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if bad.size:
            raise DataError(f"features of {name} scan number {int(bad[0]) + 1} are not finite numbers")
    real, synthetic = real.astype(np.float64), synthetic.astype(np.float64)
    mean, spread = real.mean(axis=0), real.std(axis=0)
    spread = np.where(spread > 1e-6 * np.maximum(np.abs(mean), 1e-6), spread, 1.0)
    return (real - mean) / spread, (synthetic - mean) / spread


def _distance(
    name: str, estimate: float, draws: Array, floor: Array, size: int, goal: tuple[float, float] | None
) -> Measure:
    unit = float(np.sqrt(np.mean(floor**2))) if floor.size else math.nan
    return Measure(
        name=name,
        synthetic=percentile_interval(estimate, draws, size),
        real=percentile_interval(_mean(floor), floor, size),
        floor=unit,
        ratio=percentile_interval(_over(estimate, unit), draws / (unit or np.nan), size),
        goal=goal,
    )


def _neighbours(distances: Array, groups: Sequence[str], first: Rows, others: Rows, k: int) -> tuple[float, float]:
    # As many real as other scans, as in the paper: coverage grows with the number of others.
    first = first[: len(others)]
    own = [groups[row] for row in first]
    fewest = int(different(own).sum(axis=1).min())
    if fewest < 1:
        return math.nan, math.nan
    within, across = distances[np.ix_(first, first)], distances[np.ix_(first, others)]
    return density_coverage(within, across, own, min(fitting_k(k, len(first)), fewest))


def _indicators(rows: Sequence[Rows], columns: int) -> NDArray[np.bool_]:
    table = np.zeros((len(rows), columns), dtype=bool)
    for index, chosen in enumerate(rows):
        table[index, chosen] = True
    return table


def _mean(values: Array) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else math.nan


def _mean_sd(values: Array) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    return _mean(values), float(finite.std(ddof=1)) if finite.size > 1 else math.nan


def _over(value: float, unit: float) -> float:
    return value / unit if unit and math.isfinite(unit) else math.nan
