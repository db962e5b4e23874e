import numpy as np
import pytest

from medgen.preprocessing import percentiles as module
from medgen.preprocessing.percentiles import percentiles

RNG = np.random.default_rng(0)
RANKS = (0.0, 0.5, 1.0, 33.3, 50.0, 99.0, 99.9, 100.0)
KINDS = {
    "smooth": lambda n: RNG.normal(size=n),
    "half background": lambda n: np.maximum(RNG.normal(size=n), 0.1),
    "few levels": lambda n: RNG.integers(0, 7, n),
    "constant": lambda n: np.full(n, 3.25),
    "long tail": lambda n: np.exp(4 * RNG.normal(size=n)),
    "sorted": lambda n: np.sort(RNG.random(n)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bit_for_bit_as_numpy(kind, dtype):
    for n in (100_000, 123_457, 400_001):
        values = KINDS[kind](n).astype(dtype)
        ranks = (*RANKS, float(RNG.uniform(0, 100)))
        assert percentiles(values, ranks) == tuple(float(value) for value in np.percentile(values, ranks))


@pytest.mark.parametrize("n", [1, 2, 50])
def test_few_and_whole_numbers(n):
    values = RNG.integers(0, 100, (n, 3))
    assert percentiles(values, RANKS) == tuple(float(value) for value in np.percentile(values, RANKS))


def test_a_sample_that_misleads_is_noticed(monkeypatch):
    values = RNG.permutation(200_000).astype(np.float32)
    # Every sampled voxel is the highest there is.
    values[:: module._STRIDE] = 1e6
    calls = []
    real = np.percentile
    monkeypatch.setattr(module.np, "percentile", lambda *given: calls.append(1) or real(*given))
    assert percentiles(values, (50.0,)) == tuple(real(values, (50.0,)).tolist())
    assert calls
