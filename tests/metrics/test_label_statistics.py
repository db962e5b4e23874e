from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from skimage.measure import regionprops

from medgen.errors import DataError
from medgen.metrics.label_statistics import (
    kolmogorov_smirnov,
    label_statistics,
    standardised_difference,
    statistics_names,
)


def ellipsoid(radii: tuple[float, float, float], spacing: tuple[float, float, float]) -> np.ndarray:
    shape = [2 * int(r / s) + 5 for r, s in zip(radii, spacing, strict=True)]
    axes = [(np.arange(n) - n // 2) * s for n, s in zip(shape, spacing, strict=True)]
    i, j, k = np.meshgrid(*axes, indexing="ij")
    return ((i / radii[0]) ** 2 + (j / radii[1]) ** 2 + (k / radii[2]) ** 2 <= 1).astype(np.uint8) * 3


def test_ball_has_its_volume_surface_and_sphericity() -> None:
    labels = ellipsoid((12, 12, 12), (1, 1, 1))
    values = label_statistics(np.ones((1, *labels.shape), np.float32), labels, 3, (1, 1, 1))
    assert values["volume_mm3"] == pytest.approx(4 / 3 * math.pi * 12**3, rel=0.02)
    # A mesh on a binary mask is about 9 % larger than the smooth surface (Zwanenburg 2020 uses the same mesh).
    assert values["surface_mm2"] == pytest.approx(4 * math.pi * 12**2 * 1.09, rel=0.02)
    assert values["sphericity"] == pytest.approx(1 / 1.09, rel=0.02)
    assert values["surface_per_volume"] == pytest.approx(values["surface_mm2"] / values["volume_mm3"])
    assert values["elongation"] == pytest.approx(1, abs=1e-6)
    assert values["flatness"] == pytest.approx(1, abs=1e-6)


def test_ellipsoid_on_anisotropic_voxels_has_its_proportions() -> None:
    radii, spacing = (20.0, 10.0, 6.0), (1.0, 0.5, 1.0)
    labels = ellipsoid(radii, spacing)
    values = label_statistics(np.ones((1, *labels.shape), np.float32), labels, 3, spacing)
    assert values["volume_mm3"] == pytest.approx(4 / 3 * math.pi * np.prod(radii), rel=0.04)
    assert values["elongation"] == pytest.approx(10 / 20, rel=0.03)
    assert values["flatness"] == pytest.approx(6 / 20, rel=0.04)


def test_shape_agrees_with_scikit_image() -> None:
    labels = ellipsoid((9, 5, 7), (1, 1, 1))
    values = label_statistics(np.ones((1, *labels.shape), np.float32), labels, 3, (1, 1, 1))
    tensor = regionprops((labels == 3).astype(np.uint8))[0].inertia_tensor_eigvals
    # Moments of inertia a ≥ b ≥ c are sums of two variances each.
    a, b, c = tensor
    variances = (b + c - a) / 2, (a + c - b) / 2, (a + b - c) / 2
    assert values["elongation"] == pytest.approx(math.sqrt(variances[1] / variances[2]), rel=1e-6)
    assert values["flatness"] == pytest.approx(math.sqrt(variances[0] / variances[2]), rel=1e-6)


def test_intensities_agree_with_scipy_per_channel() -> None:
    rng = np.random.default_rng(0)
    image, labels = rng.gamma(2, size=(2, 8, 9, 7)), rng.integers(0, 3, size=(8, 9, 7))
    values = label_statistics(image, labels, 2, (1, 1, 1))
    assert tuple(values) == statistics_names(2)
    for channel in range(2):
        inside = image[channel][labels == 2]
        assert values[f"mean_{channel}"] == pytest.approx(inside.mean())
        assert values[f"sd_{channel}"] == pytest.approx(inside.std())
        assert values[f"skewness_{channel}"] == pytest.approx(stats.skew(inside))
        assert values[f"p90_{channel}"] == pytest.approx(np.quantile(inside, 0.9))


def test_missing_label_and_single_voxel() -> None:
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[1, 2, 3] = 1
    image = np.ones((1, 4, 4, 4), np.float32)
    missing = label_statistics(image, labels, 2, (1, 1, 1))
    assert missing.pop("volume_mm3") == 0
    assert all(math.isnan(value) for value in missing.values())
    single = label_statistics(image, labels, 1, (1, 2, 3))
    assert single["volume_mm3"] == 6
    assert math.isnan(single["elongation"])
    assert math.isnan(single["skewness"])
    with pytest.raises(DataError, match="shape"):
        label_statistics(image, labels[1:], 1, (1, 1, 1))


def test_differences_of_samples() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(1, 2, 400), rng.normal(0, 2, 300)
    spread = math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
    assert standardised_difference(a, b) == pytest.approx((a.mean() - b.mean()) / spread)
    assert standardised_difference(np.append(a, np.nan), b) == standardised_difference(a, b)
    assert standardised_difference(np.ones(3), np.zeros(3)) == math.inf
    assert standardised_difference(np.ones(3), np.ones(3)) == 0
    assert math.isnan(standardised_difference(a[:1], b))
    grid = np.concatenate([a, b])
    gap = max(abs((a <= x).mean() - (b <= x).mean()) for x in grid)
    assert kolmogorov_smirnov(a, b) == pytest.approx(gap)
    assert kolmogorov_smirnov(a, a + 100) == 1
    # With ties, and sides of different length.
    rough, fewer = np.round(a, 1), np.round(a[::3] + 0.2, 1)
    assert kolmogorov_smirnov(rough, fewer) == pytest.approx(stats.ks_2samp(rough, fewer).statistic, abs=1e-15)
    assert math.isnan(kolmogorov_smirnov(a, np.array([np.nan])))
