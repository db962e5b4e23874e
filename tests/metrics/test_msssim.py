from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.metrics import structural_similarity

from medgen.errors import DataError
from medgen.metrics.msssim import SIGMA, WEIGHTS, likeness_draws, pairwise_ms_ssim, window_and_levels

RANGE = 1.5


def scans(n: int, shape: tuple[int, int, int], seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    smooth = [ndimage.gaussian_filter(rng.normal(size=shape), 2) for _ in range(n)]
    return torch.from_numpy(np.stack([(image / image.std() * 0.2 + 0.7).clip(0, RANGE) for image in smooth])[:, None])


def reference(a: np.ndarray, b: np.ndarray, window: int, levels: int) -> float:
    """MS-SSIM written from the paper's equations with SciPy's filters in double precision."""
    taps = np.exp(-((np.arange(window) - window // 2) ** 2) / (2 * SIGMA**2))
    taps /= taps.sum()

    def blur(image: np.ndarray) -> np.ndarray:
        for axis in range(3):
            image = ndimage.correlate1d(image, taps, axis=axis)
        return image[(slice(window // 2, -(window // 2)),) * 3]

    weights = np.array(WEIGHTS[:levels]) / sum(WEIGHTS[:levels])
    c1, c2, result = (0.01 * RANGE) ** 2, (0.03 * RANGE) ** 2, 1.0
    for level in range(levels):
        ma, mb = blur(a), blur(b)
        va, vb, vab = blur(a * a) - ma * ma, blur(b * b) - mb * mb, blur(a * b) - ma * mb
        contrast = (2 * vab + c2) / (va + vb + c2)
        luminance = (2 * ma * mb + c1) / (ma * ma + mb * mb + c1)
        value = (contrast * luminance).mean() if level == levels - 1 else contrast.mean()
        result *= max(value, 0) ** weights[level]
        halved = [image[tuple(slice(0, 2 * (n // 2)) for n in image.shape)] for image in (a, b)]
        a, b = (im.reshape(*np.ravel([(n // 2, 2) for n in im.shape])).mean(axis=(1, 3, 5)) for im in halved)
    return float(result)


@pytest.mark.parametrize("shape", [(14, 16, 15), (13, 20, 12)])
def test_agrees_with_the_equations(shape: tuple[int, int, int]) -> None:
    images = scans(3, shape)
    found = pairwise_ms_ssim(images, RANGE, batch=2)
    assert np.array_equal(found, found.T)
    assert np.array_equal(np.diag(found), np.ones(3))
    for a, b in itertools.combinations(range(3), 2):
        expected = reference(images[a, 0].numpy(), images[b, 0].numpy(), *window_and_levels(shape))
        assert found[a, b] == pytest.approx(expected, abs=2e-4)


def test_one_level_agrees_with_scikit_image(monkeypatch: pytest.MonkeyPatch) -> None:
    # Eleven voxels are scikit-image's window for this Gaussian; a second level of them does not fit.
    monkeypatch.setattr("medgen.metrics.msssim.WINDOW", 11)
    images = scans(2, (14, 13, 15))
    a, b = (image[0].numpy() for image in images)
    settings = {"gaussian_weights": True, "sigma": SIGMA, "use_sample_covariance": False}
    _, expected = structural_similarity(a, b, data_range=RANGE, full=True, **settings)
    assert pairwise_ms_ssim(images, RANGE)[0, 1] == pytest.approx(expected[(slice(5, -5),) * 3].mean(), abs=2e-4)


def test_flat_scans_are_refused() -> None:
    with pytest.raises(DataError, match="three voxels along each axis"):
        pairwise_ms_ssim(torch.zeros(2, 1, 8, 8, 2), RANGE)


def test_mean_leaves_scans_of_one_subject_out() -> None:
    rng = np.random.default_rng(0)
    table = rng.random((6, 6))
    table = (table + table.T) / 2
    groups = ["a", "a", "b", "c", "c", "d"]
    pairs = [table[i, j] for i, j in itertools.combinations(range(6), 2) if groups[i] != groups[j]]
    mean, draws = likeness_draws(table, groups, 500)
    assert mean == pytest.approx(np.mean(pairs))
    finite = draws[np.isfinite(draws)]
    assert finite.min() < mean < finite.max()
    # A resample in which one subject fills every place has no pair and says nothing.
    assert np.isfinite(draws).mean() > 0.9
    constant, same = likeness_draws(np.full((4, 4), 0.25), list("abcd"), 100)
    assert constant == 0.25
    assert np.allclose(same[np.isfinite(same)], 0.25)
    assert np.isnan(likeness_draws(table, ["a"] * 6, 10)[0])


def test_every_side_fits_what_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    # The convolutions left out, sides and pooling are as they are: a scan of 56 to 62 voxels was refused by MONAI.
    def cheap(y_pred: torch.Tensor, y: torch.Tensor, **options: object) -> tuple[torch.Tensor, torch.Tensor]:
        sizes = options["kernel_size"]
        assert isinstance(sizes, tuple)
        assert all(side >= size for side, size in zip(y_pred.shape[2:], sizes, strict=True))
        return torch.ones(len(y_pred), 1), torch.ones(len(y_pred), 1)

    monkeypatch.setattr("monai.metrics.regression.compute_ssim_and_cs", cheap)
    for side in range(3, 129):
        for shape in ((side, 16, 20), (side, 128, 64), (128, 128, side)):
            scan = torch.zeros(2, 1, 1, 1, 1).expand(2, 1, *shape)
            assert pairwise_ms_ssim(scan, RANGE)[0, 1] == 1.0, shape


@pytest.mark.parametrize("side", [8, 13, 14, 27, 28, 55, 56, 62, 63])
def test_sides_at_which_the_number_of_levels_changes(side: int) -> None:
    images = scans(2, (side, 14, 15) if side < 56 else (side, 57, 58))
    value = pairwise_ms_ssim(images, RANGE)[0, 1]
    assert 0 <= value < 1
    if side < 20:
        expected = reference(images[0, 0].numpy(), images[1, 0].numpy(), *window_and_levels(images.shape[2:]))
        assert value == pytest.approx(expected, abs=2e-4)


def test_agrees_with_monai_to_a_hundred_thousandth() -> None:
    from monai.metrics.regression import compute_ms_ssim

    shape = (21, 24, 16)
    images = torch.cat([scans(4, shape), scans(4, shape, seed=1)], dim=1).float()
    # Nearly alike, where a variance is the small difference of two means.
    images[1] = 0.97 * images[0] + 0.02
    window, levels = window_and_levels(shape)
    weights = [weight / sum(WEIGHTS[:levels]) for weight in WEIGHTS[:levels]]
    found = pairwise_ms_ssim(images, RANGE, batch=2)
    for a, b in itertools.combinations(range(4), 2):
        expected = compute_ms_ssim(
            images[[a]],
            images[[b]],
            spatial_dims=3,
            data_range=RANGE,
            kernel_size=(window,) * 3,
            kernel_sigma=(SIGMA,) * 3,
            weights=weights,
        )
        assert found[a, b] == pytest.approx(float(expected), abs=1e-5)
