"""Channels that lie beside each other are brought together; what is another patient's is refused."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation
from sklearn.metrics import mutual_info_score

from medgen.errors import DataError
from medgen.preprocessing.coregistration import coregister, mutual_information
from medgen.preprocessing.recipe import Preprocess
from medgen.volume import Grid, Volume

SHAPE = (44, 52, 40)


def tissue(seed: int) -> NDArray[np.float64]:
    """A map of what a patient is made of, 0 to 1, inside an ellipsoid."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.standard_normal(SHAPE), 2)
    noise = (noise - noise.min()) / np.ptp(noise)
    places = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij"))
    radius = np.linalg.norm(places / np.array([0.7, 0.75, 0.7])[:, None, None, None], axis=0)
    return np.where(radius < 1, 0.2 + 0.8 * noise, 0.0)


def contrast(map_: NDArray[np.float64]) -> NDArray[np.float64]:
    """Another weighting of the same tissue: dark where the first is bright, and not a line through it."""
    return np.where(map_ > 0, 1.2 - map_ + 0.3 * np.sin(6 * map_), 0.0)


def oblique() -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [12, -8, 20], degrees=True).as_matrix() @ np.diag([2.0, 2.0, 3.0])
    affine[:3, 3] = 30, -50, 12
    return Grid(SHAPE, affine)


def motion(grid: Grid, degrees: list[float], millimetres: list[float]) -> NDArray[np.float64]:
    """A rotation about the middle of the grid and a translation, 4 × 4 in the world."""
    world = np.eye(4)
    world[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    world[:3, 3] = grid.center - world[:3, :3] @ grid.center + millimetres
    return world


def test_a_patient_who_moved_is_brought_back() -> None:
    grid, first = oblique(), tissue(0)
    second = Volume(contrast(first)[None].astype(np.float32), grid)
    moved = second.resample(grid.moved(motion(grid, [4, -3, 5], [5, -4, 3])))
    scan = Volume(np.stack([first, moved.data[0]]).astype(np.float32), grid)
    aligned, (found,) = coregister(scan)
    body = ndimage.binary_erosion(first > 0, iterations=3)
    before, after = (np.corrcoef(item[1][body], second.data[0][body])[0, 1] for item in (scan.data, aligned.data))
    assert before < 0.8
    assert after > 0.95
    assert found.millimetres == pytest.approx(7.5, abs=2.5)
    assert found.degrees == pytest.approx(7.1, abs=1.0)
    np.testing.assert_array_equal(aligned.data[0], scan.data[0])
    assert found.corrected
    # As a step of a recipe; a second time gives the same.
    recipe = Preprocess(shape=(22, 26, 20), spacing=(4, 4, 6), coregister=True)
    prepared = recipe.apply(scan)
    assert prepared.cleaned is not None
    np.testing.assert_array_equal(prepared.cleaned.data, aligned.data)
    assert f"Channel 2 lay {found.millimetres:.1f} mm" in prepared.steps[0]
    assert "brought onto it" in prepared.steps[0]
    assert recipe.model_copy(update={"coregister": False}).apply(scan).steps == ()


def test_channels_that_lie_on_each_other_are_left_alone() -> None:
    first = tissue(0)
    scan = Volume(np.stack([first, contrast(first)]).astype(np.float32), oblique())
    aligned, (found,) = coregister(scan)
    np.testing.assert_array_equal(aligned.data, scan.data)
    assert found.millimetres < 1
    assert not found.corrected
    single = Volume(scan.data[:1], scan.grid)
    assert coregister(single) == (single, ())


def test_another_patient_is_refused() -> None:
    scan = Volume(np.stack([tissue(0), contrast(tissue(1))]).astype(np.float32), oblique())
    with pytest.raises(DataError, match=r"contrast 2 does not lie on the first: it .* same patient"):
        coregister(scan)


def test_mutual_information_is_that_of_the_ranks() -> None:
    rng = np.random.default_rng(0)
    first, mask = rng.standard_normal(SHAPE), rng.random(SHAPE) < 0.5
    second = first + rng.standard_normal(SHAPE)
    bins = [np.argsort(np.argsort(image[mask])) * 32 // mask.sum() for image in (first, second)]
    chance = 31**2 / (2 * mask.sum())
    assert mutual_information(first, second, mask) == pytest.approx(mutual_info_score(*bins) - chance, abs=0.003)
    # Of two normal variables with this correlation (Cover and Thomas, "Elements of information theory", 8.5).
    assert mutual_information(first, second, mask) == pytest.approx(-0.5 * np.log(1 - 0.5), abs=0.02)
