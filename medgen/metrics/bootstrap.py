"""How sure one can be: intervals by resampling subjects (and seeds), exact binomial intervals, corrected p-values.

Voxels of one subject are not independent, so subjects are what is resampled, everywhere.
"""

from __future__ import annotations

import string
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from medgen.errors import DataError
from medgen.metrics.interval import Interval, percentile_interval, subject_weights
from medgen.seeds import numpy_rng


def hierarchical_bootstrap(values: ArrayLike, n: int = 2000, seed: int = 0, level: float = 0.95) -> Interval:
    """Interval of the mean over seeds and subjects, both resampled.

    Seeds and subjects are crossed (every seed is tested on the same subjects), so rows and columns are drawn
    independently (the pigeonhole bootstrap: Owen, Annals of Applied Statistics 2007). With a few seeds the interval
    is wide, as it should be. For a paired comparison give the differences. Further axes, such as repetitions of a
    generator, are crossed with these and drawn independently too.

    Args:
        values: (..., seeds, subjects), finite.
        n: Resamples.
        seed: Seed of the random resampling; equal seeds give equal results.
        level: Confidence level.

    Returns:
        Interval with ``n`` the number of subjects.

    Raises:
        DataError: If the table has fewer than two axes, is empty, or has values that are not finite.
    """
    table = np.asarray(values, dtype=np.float64)
    (draws,) = hierarchical_draws([table], n, seed)
    return percentile_interval(float(table.mean()), draws, table.shape[-1], level)


def hierarchical_draws(tables: Sequence[ArrayLike], n: int = 2000, seed: int = 0) -> NDArray[np.float64]:
    """Resampled means of several tables, every resample drawing the same seeds and subjects in all of them.

    Args:
        tables: (..., seeds, subjects) each, finite, all of one shape and with rows and columns that belong together.
        n: Resamples.
        seed: Seed of the random resampling; equal seeds give equal results.

    Returns:
        (tables, n) means, see :func:`hierarchical_bootstrap`.

    Raises:
        DataError: If a table has fewer than two axes, is empty, or has values that are not finite, or shapes differ.
    """
    arrays = [_finite(np.asarray(table, dtype=np.float64)) for table in tables]
    shape = arrays[0].shape if arrays else ()
    if len(shape) < 2 or any(array.shape != shape for array in arrays):
        raise DataError(f"expected tables of (seeds, subjects), found shapes {[array.shape for array in arrays]}")
    _require(arrays[0].size)
    streams = [*(f"axis {axis}" for axis in range(len(shape) - 2)), "seeds", "subjects"]
    weights = [subject_weights(size, n, seed, stream) / size for size, stream in zip(shape, streams, strict=True)]
    return np.stack([_weighted(array, weights) for array in arrays])


def _weighted(array: NDArray[np.float64], weights: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Means of an array under weights (n, size) of each axis, (n,)."""
    axes = string.ascii_lowercase[: array.ndim]
    drawn = ",".join(f"Z{axis}" for axis in axes)
    means: NDArray[np.float64] = np.einsum(f"{axes},{drawn}->Z", array, *weights, optimize=True)
    return means


def tail_p(draws: ArrayLike) -> float:
    """Two-sided p-value of "the mean is zero" from bootstrap draws of the mean: the percentile interval, inverted.

    Twice the smaller tail beyond zero, the observed data counted as one draw so that it is never zero (Davison and
    Hinkley 1997, section 4.2).

    >>> tail_p([0.2] * 99), tail_p([-0.1, 0.1, 0.2])
    (0.02, 1.0)
    """
    values = _finite(np.asarray(draws, dtype=np.float64).ravel())
    _require(values.size)
    below, above = int((values <= 0).sum()), int((values >= 0).sum())
    return min(1.0, 2 * (1 + min(below, above)) / (values.size + 1))


def sign_flip_p(differences: ArrayLike, n: int = 10_000, seed: int = 0) -> float:
    """Two-sided p-value of "the differences are symmetric about zero", by flipping subjects' signs.

    All 2ᵏ sign patterns are used for up to 12 subjects, else ``n`` random ones and the observed one (Phipson and
    Smyth 2010: never zero).

    Args:
        differences: One per subject, (k,), finite.
        n: Random patterns.
        seed: Seed of the random sign patterns.

    Raises:
        DataError: If there are none or one is not finite.
    """
    values = _finite(np.asarray(differences, dtype=np.float64).ravel())
    _require(values.size)
    observed = abs(values.mean()) * (1 - 1e-12)
    if values.size <= 12:
        bits = np.arange(2**values.size)[:, None] >> np.arange(values.size)
        means = (1.0 - 2.0 * (bits & 1)) @ values / values.size
        return float((np.abs(means) >= observed).mean())
    signs = numpy_rng(seed, "signs").integers(0, 2, size=(n, values.size)) * 2.0 - 1.0
    return float((1 + (np.abs(signs @ values / values.size) >= observed).sum()) / (n + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number, family-wise error kept (Holm, Scand. J. Statist. 1979), in input order.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)), 1)
    return [float(value) for value in adjusted]


def binomial_interval(k: float, n: int, level: float = 0.95) -> Interval:
    """Exact interval of a proportion of ``k`` in ``n`` (Clopper and Pearson, Biometrika 1934).

    ``k`` may be a sum of shares, where a subject was tested several times: then the limits lie between those of the
    whole numbers below and above, as if a subject's repetitions told nothing new.

    Raises:
        DataError: If not 0 ≤ k ≤ n with n ≥ 1.
    """
    if n < 1 or not 0 <= k <= n:
        raise DataError(f"expected 0 <= k <= n with n at least 1, found k = {k}, n = {n}")
    tail = (1 - level) / 2
    low = float(stats.beta.ppf(tail, k, n - k + 1)) if k > 0 else 0.0
    high = float(stats.beta.ppf(1 - tail, k + 1, n - k)) if k < n else 1.0
    return Interval(k / n, low, high, n, level)


def _require(units: int) -> None:
    if units < 1:
        raise DataError("an interval needs at least one subject, found none")


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    if not np.isfinite(values).all():
        raise DataError("a value per subject is not finite; leave the subject out on both sides, or give it a value")
    return values
