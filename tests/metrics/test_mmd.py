from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from sklearn.metrics.pairwise import polynomial_kernel as sklearn_polynomial
from sklearn.metrics.pairwise import rbf_kernel

from medgen.errors import DataError
from medgen.metrics.mmd import gaussian_kernel, median_distance, mmd2, mmd2_of_subsets, polynomial_kernel


def alone(n: int, prefix: str) -> list[str]:
    return [f"{prefix}{row}" for row in range(n)]


def test_kernels_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 4)), rng.normal(size=(5, 4))
    expected = sklearn_polynomial(x, y, degree=3, gamma=1 / 4, coef0=1)
    assert np.allclose(polynomial_kernel(x, y), expected)
    assert np.allclose(gaussian_kernel(1.7)(x, y), rbf_kernel(x, y, gamma=1 / (2 * 1.7**2)))
    with pytest.raises(DataError, match="above 0"):
        gaussian_kernel(0.0)


def test_estimate_is_the_double_loop_over_pairs_of_different_subjects() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(7, 3)), rng.normal(size=(6, 3)) + 0.3
    x_groups, y_groups = ["a", "a", "b", "b", "c", "d", "e"], ["s", "t", "t", "u", "v", "w"]

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return (float(a @ b) / 3 + 1) ** 3

    def within(z: np.ndarray, groups: list[str]) -> float:
        pairs = [(i, j) for i, j in itertools.permutations(range(len(z)), 2) if groups[i] != groups[j]]
        return sum(k(z[i], z[j]) for i, j in pairs) / len(pairs)

    across = sum(k(a, b) for a in x for b in y) / (len(x) * len(y))
    expected = within(x, x_groups) + within(y, y_groups) - 2 * across
    assert mmd2(x, y, polynomial_kernel, x_groups, y_groups) == pytest.approx(expected)


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_shifted_gaussians_have_their_closed_form(shift: float) -> None:
    rng = np.random.default_rng(2)
    n, d, sigma = 40, 3, 2.0
    groups = alone(n, "x"), alone(n, "y")
    found = []
    for _ in range(300):
        x, y = rng.normal(size=(n, d)), rng.normal(size=(n, d)) + shift
        gaussian = mmd2(x, y, gaussian_kernel(sigma), *groups)
        found.append((gaussian, mmd2(x[:, :1], y[:, :1], polynomial_kernel, *groups)))
    # The estimates are unbiased, so their mean is the truth, up to its own standard error.
    mean, error = np.mean(found, axis=0), np.std(found, axis=0) / math.sqrt(len(found))
    scale = (sigma**2 / (sigma**2 + 2)) ** (d / 2)
    mmd = 2 * scale * (1 - math.exp(-d * shift**2 / (2 * (sigma**2 + 2))))

    def expectation(a: float, b: float) -> float:
        """E (xy + 1)³ of x and y with means a and b and variance 1, from their first three moments."""
        return 1 + 3 * a * b + 3 * (1 + a**2) * (1 + b**2) + (a**3 + 3 * a) * (b**3 + 3 * b)

    kid = expectation(0, 0) + expectation(shift, shift) - 2 * expectation(0, shift)
    assert mean[1] == pytest.approx(kid, abs=3.5 * error[1])
    assert mean[0] == pytest.approx(mmd, abs=3.5 * error[0])
    assert error[0] < 0.005


def test_estimate_is_unbiased_over_all_splits_by_subject() -> None:
    x = np.random.default_rng(3).normal(size=(6, 2))
    halves = np.array([[row in chosen for row in range(6)] for chosen in itertools.combinations(range(6), 3)])
    values = mmd2_of_subsets(polynomial_kernel(x, x), alone(6, "s"), halves, ~halves)
    assert values.mean() == pytest.approx(0, abs=1e-12)
    assert values.std() > 0.01


def test_one_subject_gives_no_estimate() -> None:
    x = np.random.default_rng(4).normal(size=(3, 2))
    assert math.isnan(mmd2(x, x, polynomial_kernel, ["a"] * 3, ["b", "c", "d"]))
    with pytest.raises(DataError, match="two subjects"):
        median_distance(x, ["a"] * 3)


def test_bandwidth_is_the_median_between_subjects() -> None:
    x = np.array([[0.0], [0.1], [3.0], [7.0]])
    assert median_distance(x, ["a", "a", "b", "c"]) == pytest.approx(np.median([3, 7, 2.9, 6.9, 4]))
