"""Array axes are assigned to directions all at once: each direction once, never mirrored, never axis by axis."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.spatial.transform import Rotation

from medgen.axes import assigned, margin
from medgen.report.figures.planes import canonical
from medgen.volume import Grid

STEPS = np.array([1.5, 1.5, 10.0])


def turned(rng):
    """Any rotation, axis order and handedness."""
    return Rotation.random(random_state=rng).as_matrix()[:, rng.permutation(3)] * rng.choice([-1.0, 1.0], 3)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_every_direction_gets_one_axis_as_the_best_assignment_has_it(seed):
    directions = turned(np.random.default_rng(seed))
    order = assigned(directions)
    targets = [target for target, _ in order]
    assert sorted(targets) == [0, 1, 2]
    total = sum(abs(directions[target, axis]) for axis, target in enumerate(targets))
    rows, columns = linear_sum_assignment(np.abs(directions), maximize=True)
    assert total == pytest.approx(np.abs(directions)[rows, columns].sum())
    new = np.zeros((3, 3))
    for axis, (target, flip) in enumerate(order):
        new[:, target] = directions[:, axis] * flip
    assert np.linalg.det(new) == pytest.approx(1)
    assert (np.diag(new) > -1e-12).all()


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_grids_of_thick_slices_keep_all_voxel_sizes_at_any_rotation(seed):
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = turned(rng) * STEPS
    affine[:3, 3] = rng.normal(0, 50, 3)
    grid = Grid((20, 18, 7), affine)
    new = canonical(grid)
    sides = sorted((round(step, 9), count) for step, count in zip(new.spacing, new.shape, strict=True))
    assert sides == [(1.5, 18), (1.5, 20), (10.0, 7)]
    assert np.linalg.det(new.affine) > 0
    np.testing.assert_allclose(new.center, grid.center, atol=1e-9)
    # The same box of space: corners are corners.
    ends = grid.to_voxel(new.to_world([[0, 0, 0], np.array(new.shape) - 1]))
    assert np.abs(ends - ends.round()).max() < 1e-9
    assert len(set(grid.axcodes.translate(str.maketrans("LPI", "RAS")))) == 3


def test_an_axis_at_45_degrees_and_more_is_not_given_twice():
    # The rotation of short-axis views: axis by axis, the second and the third are both nearest to S.
    turn = Rotation.from_euler("zx", [26, 43.5], degrees=True).as_matrix() * [-1, -1, 1]
    assert [target for target, _ in assigned(turn)] == [0, 1, 2]


def test_thick_slices_decide_between_directions_that_are_as_near():
    frame = np.eye(3)
    swapped = Rotation.from_euler("x", 46, degrees=True).as_matrix()
    assert [target for target, _ in assigned(swapped, frame)] == [0, 2, 1]
    assert [target for target, _ in assigned(swapped, frame, spacing=STEPS, wanted=STEPS)] == [0, 1, 2]
    # But a sagittal stack does not become an axial one.
    sagittal = np.eye(3)[:, [1, 2, 0]]
    assert [target for target, _ in assigned(sagittal, frame, spacing=STEPS, wanted=STEPS)] == [1, 2, 0]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_nothing_is_mirrored_for_the_sake_of_thick_slices(seed):
    rng = np.random.default_rng(seed)
    directions, frame = turned(rng), Rotation.random(random_state=rng).as_matrix()
    order = assigned(directions, frame, spacing=STEPS, wanted=STEPS[rng.permutation(3)])
    new = np.zeros((3, 3))
    for axis, (target, flip) in enumerate(order):
        new[:, target] = directions[:, axis] * flip
    assert np.linalg.det(new) == pytest.approx(1)


def test_the_margin_is_that_to_the_second_best_order():
    assert margin(np.eye(3)) == pytest.approx(2)
    assert margin(Rotation.from_euler("x", 45, degrees=True).as_matrix()) == pytest.approx(0, abs=1e-12)
