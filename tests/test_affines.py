"""Affine maps stay affine maps to the bit, whatever is done with them."""

import numpy as np
import pytest
from scipy import linalg
from scipy.spatial.transform import Rotation

from medgen import affines
from medgen.volume import Grid

LAST = [0.0, 0.0, 0.0, 1.0]


def some(seed):
    """A map as registration finds them: turned, stretched unevenly (1.5 to 10 mm voxels), far from the origin."""
    rng = np.random.default_rng(seed)
    turn = Rotation.from_rotvec(rng.normal(0, 0.4, 3)).as_matrix()
    return affines.affine(turn @ np.diag(rng.uniform(0.7, 1.4, 3)), rng.normal(0, 90, 3))


@pytest.mark.parametrize("seed", range(60))
def test_the_last_row_is_exact_and_the_rest_is_that_of_the_matrix_functions(seed):
    first, second = some(seed), some(seed + 1000)
    generator = np.real(linalg.logm(first))
    generator[3] = 0
    for result, expected in (
        (affines.product(first, second), first @ second),
        (affines.inverse(first), np.linalg.inv(first)),
        (affines.exponential(generator), first),
        (affines.log_mean([first, first]), first),
    ):
        assert result[3].tolist() == LAST
        np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-9)
        Grid((4, 4, 4), result)


def test_the_mean_of_a_map_and_its_inverse_is_the_identity():
    world = some(3)
    np.testing.assert_allclose(affines.log_mean([world, affines.inverse(world)]), np.eye(4), atol=1e-9)


def test_matrix_functions_alone_would_leave_rounding_in_the_last_row():
    """Why this module exists: if this ever fails, its reason is gone."""
    results = [linalg.expm(np.real(linalg.logm(some(seed)))) for seed in range(200)]
    assert any(result[3].tolist() != LAST for result in results)
