import numpy as np
import pytest

from medgen.errors import DataError
from medgen.transforms.affine_registration import AffineResult, register_affine
from medgen.volume import Grid, Volume

SCANS = [
    # degrees of the movement, scale, shear, shift; axes, degrees and spacing of the scan's grid
    ((5, -8, 4), (1.08, 0.94, 1.05), 0.05, (20, -30, 45), "LAS", (0, 0, 0), (2, 2, 2)),
    ((-12, 3, 15), (0.9, 0.95, 0.92), -0.04, (-200, 60, 10), "PIR", (14, -6, 9), (1.5, 2.5, 3.0)),
    ((18, -5, -10), (1.15, 1.1, 1.12), 0.03, (5, 300, -90), "SRP", (-20, 11, 5), (3.5, 1.6, 2.2)),
]


def _movement(phantom, degrees, scale, shear, shift):
    world = phantom.turn(degrees) @ np.diag([*scale, 1.0])
    world[:3, :3] = world[:3, :3] @ np.array([[1, shear, 0], [0, 1, shear], [0, 0, 1]])
    world[:3, 3] = shift
    return world


@pytest.mark.parametrize("scan", SCANS)
def test_known_affine_is_recovered_on_oblique_grids(phantom, scan) -> None:
    degrees, scale, shear, shift, axes, tilt, spacing = scan
    world = _movement(phantom, degrees, scale, shear, shift)
    fixed = phantom.draw(phantom.grid_of((56, 64, 52), (3, 3, 3)))
    shape = tuple(int(190 / step) for step in spacing)
    grid = phantom.grid_of(shape, spacing, degrees=tilt, axes=axes, centre=shift)
    moving = phantom.draw(grid, world, noise=0.05)
    # Another scanner: other units, and a curved response.
    moving = moving.with_data(300 * moving.data**0.8)
    result = register_affine(moving, fixed)
    points = np.moveaxis(np.indices((5, 5, 5)), 0, -1).reshape(-1, 3) * (30, 38, 28) - (60, 76, 56)
    error = (result.world[:3, :3] - world[:3, :3]) @ points.T + (result.world[:3, 3] - world[:3, 3])[:, None]
    assert np.linalg.norm(error, axis=0).mean() < 1
    u, _, vt = np.linalg.svd(result.world[:3, :3] @ np.linalg.inv(world[:3, :3]))
    assert np.rad2deg(np.arccos(np.clip((np.trace(u @ vt) - 1) / 2, -1, 1))) < 1
    assert result.determinant == pytest.approx(np.linalg.det(world), rel=0.05)
    assert result.problem() is None
    assert result.similarity > 0.8


def test_the_same_inputs_give_the_same_transform(phantom) -> None:
    fixed = phantom.draw(phantom.grid_of((40, 46, 38), (4, 4, 4)))
    moving = phantom.draw(phantom.grid_of((44, 48, 40), (4, 4, 4), axes="LPS"), phantom.turn((4, 2, -6)), noise=0.1)
    first, second = register_affine(moving, fixed), register_affine(moving, fixed)
    assert np.array_equal(first.world, second.world)


def test_a_mouse_is_registered_as_a_man(phantom) -> None:
    """A tenth of all lengths: the same transform, with a tenth of the shift."""
    fixed = phantom.draw(phantom.grid_of((40, 46, 38), (4, 4, 4)))
    moving = phantom.draw(phantom.grid_of((44, 48, 40), (4, 4, 4), axes="LPS"), phantom.turn((4, 2, -6)), noise=0.1)

    def tenth(volume: Volume) -> Volume:
        affine = volume.grid.affine.copy()
        affine[:3] *= 0.1
        return Volume(volume.data, Grid(volume.grid.shape, affine))

    large, small = register_affine(moving, fixed), register_affine(tenth(moving), tenth(fixed))
    assert small.problem() is None
    np.testing.assert_allclose(small.world[:3, :3], large.world[:3, :3], atol=0.01)
    np.testing.assert_allclose(small.world[:3, 3], 0.1 * large.world[:3, 3], atol=0.1)


def test_no_reflection_and_other_anatomy_is_implausible(phantom) -> None:
    grid = phantom.grid_of((40, 46, 38), (4, 4, 4))
    fixed = phantom.draw(grid)
    mirrored = register_affine(Volume(fixed.data[:, ::-1], grid), fixed)
    assert mirrored.determinant > 0
    noise = np.random.default_rng(0).normal(size=grid.shape).astype(np.float32)
    result = register_affine(Volume(noise[None], grid), fixed)
    assert not result.plausible()
    assert "correlation" in str(result.problem())


def test_part_of_the_organ_is_implausible(phantom) -> None:
    fixed = phantom.draw(phantom.grid_of((40, 46, 38), (4, 4, 4)))
    piece = phantom.draw(phantom.grid_of((40, 46, 12), (4, 4, 4), centre=(0, 0, 30)))
    assert "field of view" in str(register_affine(piece, fixed).problem())


@pytest.mark.parametrize(
    ("diagonal", "similarity", "overlap", "reason"),
    [
        ((1, 1, 1), 0.9, 1.0, None),
        ((1.4, 1.4, 1.4), 0.9, 1.0, "volume"),
        ((0.7, 0.8, 0.8), 0.9, 1.0, "volume"),
        ((1.7, 0.9, 0.8), 0.9, 1.0, "stretched"),
        ((1, 1, 1), 0.9, 0.3, "field of view"),
        ((1, 1, 1), 0.1, 1.0, "correlation"),
    ],
)
def test_plausibility_limits(diagonal, similarity, overlap, reason) -> None:
    problem = AffineResult(np.diag([*diagonal, 1.0]), similarity, 1.1, overlap).problem()
    assert (problem is None) if reason is None else (reason in str(problem))


def test_unusable_images_are_refused(phantom) -> None:
    fixed = phantom.draw(phantom.grid_of((40, 46, 38), (4, 4, 4)))
    with pytest.raises(DataError, match="constant"):
        register_affine(fixed.with_data(np.ones(fixed.grid.shape)), fixed)
    with pytest.raises(DataError, match="too thin"):
        register_affine(phantom.draw(phantom.grid_of((80, 80, 3), (2, 2, 2))), fixed)
    with pytest.raises(DataError, match="mask is empty"):
        register_affine(fixed, fixed, fixed.with_data(np.zeros(fixed.grid.shape)))
