import warnings

import numpy as np
import pytest

from medgen.errors import DataError
from medgen.metrics.segmentation import dice, hd95, nsd

SPACING = (1.0, 0.7, 2.0)


def _ball(radius: float, shift: float = 0.0, side: int = 40) -> np.ndarray:
    """A ball of ``radius`` mm on cubic voxels of 0.5 mm, moved by ``shift`` mm along i."""
    grid = (np.indices((side,) * 3) - (side - 1) / 2) * 0.5
    grid[0] -= shift
    return np.sqrt((grid**2).sum(axis=0)) <= radius


def _blobs(seed: int) -> tuple[np.ndarray, np.ndarray]:
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=(2, 24, 30, 20)), (0, 2, 2, 2))
    field[1] += 1.5 * field[0]
    maps = np.zeros(field.shape, dtype=np.uint8)
    maps[:, 2:-2, 2:-2, 2:-2] = (field[:, 2:-2, 2:-2, 2:-2] > 0.05).astype(np.uint8)
    return maps[0], maps[1]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_agrees_with_monai(seed: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice

        pred, truth = _blobs(seed)
        p, t = (torch.from_numpy(mask)[None, None].float() for mask in (pred, truth))
        expected = (
            float(compute_dice(p, t)),
            float(compute_hausdorff_distance(p, t, include_background=True, percentile=95, spacing=SPACING)),
            float(compute_surface_dice(p, t, [1.0], include_background=True, spacing=SPACING)),
        )
    found = (dice(pred, truth, 1), hd95(pred, truth, 1, SPACING), nsd(pred, truth, 1, SPACING, 1.0))
    assert found == pytest.approx(expected, rel=1e-5)


def test_balls_have_their_closed_forms() -> None:
    small, large = _ball(5), _ball(7)
    assert dice(small, large, 1) == pytest.approx(2 * 5**3 / (5**3 + 7**3), abs=0.01)
    assert hd95(small, large, 1, (0.5, 0.5, 0.5)) == pytest.approx(2, abs=0.5)
    assert nsd(small, large, 1, (0.5, 0.5, 0.5), 3.0) == 1
    assert nsd(small, large, 1, (0.5, 0.5, 0.5), 1.0) == 0
    assert hd95(small, _ball(5, shift=2), 1, (0.5, 0.5, 0.5)) == pytest.approx(2, abs=0.3)


def test_spacing_is_anisotropic() -> None:
    a, b = np.zeros((9, 9, 9), dtype=int), np.zeros((9, 9, 9), dtype=int)
    a[4, 4, 2], b[4, 4, 5] = 3, 3
    assert hd95(a, b, 3, (1, 1, 4)) == 12


def test_empty_masks_follow_the_stated_convention() -> None:
    empty, full = np.zeros((4, 4, 2), dtype=int), np.ones((4, 4, 2), dtype=int)
    assert (dice(empty, empty, 1), hd95(empty, empty, 1, SPACING), nsd(empty, empty, 1, SPACING, 1)) == (1, 0, 1)
    assert (dice(empty, full, 1), nsd(full, empty, 1, SPACING, 1)) == (0, 0)
    assert hd95(empty, full, 1, SPACING) == pytest.approx(np.linalg.norm([4, 2.8, 4]))
    with pytest.raises(DataError, match="one shape"):
        dice(empty, full[:2], 1)
