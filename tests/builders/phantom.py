"""An asymmetric head-like phantom defined in world coordinates, so that it can be drawn exactly on any grid."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from medgen.volume import Grid, Volume

# Centre, half-axes (mm), value; later ones overwrite earlier ones. Nothing is mirror symmetric.
_PARTS = (
    ((0, 0, 0), (62, 78, 58), 0.55),
    ((0, 4, 4), (50, 64, 44), 0.9),
    ((10, 10, 8), (8, 26, 12), 0.15),
    ((-14, 2, 10), (9, 20, 10), 0.2),
    ((24, -34, -6), (14, 12, 16), 0.4),
    ((-26, 30, -10), (16, 10, 12), 0.65),
    ((4, -52, -34), (26, 16, 14), 0.75),
    ((-34, -20, 22), (8, 14, 8), 0.3),
)


def draw(grid: Grid, world: NDArray[np.float64] | None = None, *, noise: float = 0.0, seed: int = 0) -> Volume:
    """The phantom after ``world`` (4 x 4, phantom world -> grid world); background 0, edges feathered."""
    points = grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))
    if world is not None:
        inverse = np.linalg.inv(world)
        points = points @ inverse[:3, :3].T + inverse[:3, 3]
    image = np.zeros(grid.shape)
    for centre, axes, value in _PARTS:
        radius = np.sqrt((((points - centre) / axes) ** 2).sum(axis=-1))
        image += np.clip((1 - radius) * min(axes) / 3 + 0.5, 0, 1) * (value - image)
    if noise:
        texture = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=grid.shape), 0.7)
        image = np.where(image > 0.05, np.maximum(image + noise * texture, 0.01), 0)
    return Volume(image[None].astype(np.float32), grid)


def turn(degrees: tuple[float, float, float]) -> NDArray[np.float64]:
    """4 x 4 rotation about the origin, by x, y, z angles."""
    from scipy.spatial.transform import Rotation

    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    return matrix


def grid_of(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    *,
    degrees: tuple[float, float, float] = (0, 0, 0),
    axes: str = "RAS",
    centre: tuple[float, float, float] = (0, 0, 0),
) -> Grid:
    """A grid around ``centre`` with axes near the given anatomical directions, turned by ``degrees``."""
    affine = np.zeros((4, 4))
    for column, code in enumerate(axes):
        row, sign = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}[code]
        affine[row, column] = sign * spacing[column]
    affine[3, 3] = 1
    affine = turn(degrees) @ affine
    affine[:3, 3] = np.array(centre) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


@pytest.fixture(scope="session")
def phantom() -> SimpleNamespace:
    return SimpleNamespace(draw=draw, turn=turn, grid_of=grid_of)
