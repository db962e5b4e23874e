"""What is said to show a face is as large as a head, as narrow as one, and ends where it ends."""

import numpy as np
import pytest

from medgen.data.faces import may_show_face
from medgen.volume import Grid, Volume


def scan(radii, field, step, *, noise=True, turn=None):
    """An ellipsoid of these radii in a field of view, mm; noisy air around it, or none (skull-stripped)."""
    rng = np.random.default_rng(0)
    shape = tuple(int(side / size) for side, size in zip(field, step, strict=True))
    points = np.stack(
        np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * size for n, size in zip(shape, step, strict=True)], indexing="ij")
    )
    inside = sum((p / radius) ** 2 for p, radius in zip(points, radii, strict=True)) < 1
    image = np.where(inside, rng.normal(100, 10, shape), np.abs(rng.normal(0, 2, shape)) if noise else 0)
    affine = np.diag([*step, 1.0])
    if turn is not None:
        affine[:3, :3] = np.eye(3)[:, turn] * step
    return Volume(image.astype(np.float32)[None], Grid(shape, affine))


@pytest.mark.parametrize("step", [(1.5, 1.5, 1.5), (3, 3, 3), (5, 5, 5), (1.5, 1.5, 6)])
def test_whole_heads_do(step):
    assert may_show_face(scan((75, 95, 120), (240, 256, 280), step))


@pytest.mark.parametrize("step", [(1.5, 1.5, 1.5), (3, 3, 3), (5, 5, 5)])
def test_brains_do_not_however_coarse(step):
    # 1.5 litres.
    assert not may_show_face(scan((68, 85, 62), (200, 220, 180), step, noise=False))


def test_slabs_through_a_trunk_do_not():
    # A short-axis stack: 140 mm of a body, on any axes.
    for turn in (None, [0, 2, 1], [1, 2, 0]):
        assert not may_show_face(scan((95, 80, 4000), (240, 240, 140), (3, 3, 10), turn=turn))


def test_what_is_wider_than_a_head_does_not():
    assert not may_show_face(scan((115, 85, 100), (260, 220, 240), (3, 3, 3)))


def test_a_crop_inside_a_head_does_not():
    assert not may_show_face(scan((400, 400, 400), (100, 100, 100), (2, 2, 2)))
