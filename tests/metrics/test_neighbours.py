from __future__ import annotations

import numpy as np
import pytest

from medgen.errors import DataError
from medgen.metrics.mmd import squared_distances
from medgen.metrics.neighbours import density_coverage


def measure(real: np.ndarray, fake: np.ndarray, groups: list[str], k: int) -> tuple[float, float]:
    distances = np.sqrt(squared_distances(real, np.concatenate([real, fake])))
    return density_coverage(distances[:, : len(real)], distances[:, len(real) :], groups, k)


@pytest.mark.parametrize("k", [1, 3])
def test_definition_of_the_paper_by_brute_force(k: int) -> None:
    rng = np.random.default_rng(k)
    real, fake = rng.normal(size=(12, 3)), rng.normal(size=(9, 3)) * 0.7 + 0.4
    groups = [f"s{row // 2}" for row in range(12)]
    radii = []
    for i in range(12):
        others = sorted(np.linalg.norm(real[i] - real[j]) for j in range(12) if groups[i] != groups[j])
        radii.append(others[k - 1])
    inside = [[np.linalg.norm(real[i] - fake[j]) <= radii[i] for j in range(9)] for i in range(12)]
    density = sum(map(sum, inside)) / (k * 9)
    coverage = sum(map(any, inside)) / 12
    assert measure(real, fake, groups, k) == pytest.approx((density, coverage))


def test_equal_distributions_have_the_expected_coverage_and_density_one() -> None:
    rng = np.random.default_rng(0)
    found = np.array(
        [
            measure(rng.normal(size=(20, 4)), rng.normal(size=(15, 4)), [str(row) for row in range(20)], 3)
            for _ in range(300)
        ]
    )
    density, coverage = found.mean(axis=0)
    assert density == pytest.approx(1, abs=0.06)
    # Naeem 2020, lemma 2: 1 − (N − 1)···(N − k) / ((M + N − 1)···(M + N − k)) for N real and M synthetic samples.
    steps = np.arange(1, 4)
    assert coverage == pytest.approx(1 - np.prod((20 - steps) / (35 - steps)), abs=0.01)


def test_two_scans_of_one_person_do_not_make_a_ball() -> None:
    real = np.array([[0.0], [0.001], [1.0], [1.001], [2.0], [2.001]])
    fake = np.array([[0.5], [1.5]])
    pairs = ["a", "a", "b", "b", "c", "c"]
    assert measure(real, fake, pairs, 1)[1] == 1
    assert measure(real, fake, list("abcdef"), 1)[1] == 0


def test_too_few_scans_are_refused() -> None:
    real = np.zeros((3, 2))
    with pytest.raises(DataError, match="need 3 real scans of other subjects"):
        measure(real, real, ["a", "b", "c"], 3)
    with pytest.raises(DataError, match="a synthetic scan, found 2 and 0"):
        measure(real, np.zeros((0, 2)), ["a", "b", "c"], 1)
