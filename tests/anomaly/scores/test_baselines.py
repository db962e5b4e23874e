"""Baselines against scikit-learn, SciPy and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis as scipy_mahalanobis
from skimage.exposure import equalize_hist
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from medgen.anomaly.scores.base import Inputs
from medgen.anomaly.scores.catalogue import registered

SHAPE = (8, 9, 8)


def scans(n, channels=1, seed=0, shown=1.0):
    """Scans of smooth common variation and noise; every voxel is shown with probability ``shown``."""
    rng = np.random.default_rng(seed)
    patterns = np.random.default_rng(99).normal(size=(3, channels, *SHAPE))
    images = 0.7 + 0.1 * np.einsum("np,pcijk->ncijk", rng.normal(size=(n, 3)), patterns)
    images += 0.02 * rng.normal(size=images.shape)
    foregrounds = rng.random((n, 1, *SHAPE)) < shown
    return Inputs(torch.from_numpy(images).float(), torch.from_numpy(foregrounds))


def values(name, training, new):
    entry = registered()[name]
    return entry(new, entry.fit(training))


def test_mahalanobis_of_one_channel_is_the_distance_in_shrunk_standard_deviations():
    training, new = scans(6, shown=0.8), scans(2, seed=1)
    found = values("mahalanobis_voxel", training, new)
    x, mask = training.voxels[:, 0].astype(np.float64), training.mask
    count = np.maximum(mask.sum(0), 1)
    mean = (x * mask).sum(0) / count
    square = ((x - mean) ** 2 * mask).sum(0)
    sd = np.sqrt((square + 10 * square.sum() / mask.sum()) / (count + 10))
    np.testing.assert_allclose(found, np.abs(new.voxels[:, 0] - mean) / sd, rtol=1e-4)
    np.testing.assert_allclose(found, values("zscore", training, new), rtol=1e-4)


def test_mahalanobis_of_several_channels_is_that_of_scipy():
    training, new = scans(7, channels=3), scans(2, channels=3, seed=1)
    found = values("mahalanobis_voxel", training, new)
    x = training.voxels.astype(np.float64)
    mean = x.mean(0)
    scatter = np.einsum("ncijk,ndijk->ijkcd", x - mean, x - mean)
    covariance = (scatter + 10 * scatter.mean((0, 1, 2)) / 7) / 17
    for place in ((0, 0, 0), (3, 8, 2), (7, 4, 5)):
        inverse = np.linalg.inv(covariance[place])
        for row in range(2):
            expected = scipy_mahalanobis(new.voxels[(row, slice(None), *place)], mean[(slice(None), *place)], inverse)
            assert found[(row, *place)] == pytest.approx(expected, rel=1e-4)


def test_mahalanobis_sees_a_combination_that_is_unusual_where_each_channel_is_not():
    rng = np.random.default_rng(0)
    common = rng.normal(size=(12, 1, *SHAPE))
    images = torch.from_numpy(common + 0.1 * rng.normal(size=(12, 2, *SHAPE))).float()
    training = Inputs(images, torch.ones((12, 1, *SHAPE), dtype=torch.bool))
    both, apart = torch.ones((1, 2, *SHAPE)), torch.ones((1, 2, *SHAPE))
    apart[:, 1] = -1
    inputs = Inputs(torch.cat([both, apart]), torch.ones((2, 1, *SHAPE), dtype=torch.bool))
    together, against = values("mahalanobis_voxel", training, inputs).mean((1, 2, 3))
    assert against > 5 * together
    alike, unlike = values("zscore", training, inputs).mean((1, 2, 3))
    assert unlike == pytest.approx(alike, rel=0.1)


def test_copied_channels_do_not_break_the_covariance():
    single = scans(6)
    twice = Inputs(single.image.repeat(1, 2, 1, 1, 1), single.foreground)
    found = values("mahalanobis_voxel", twice, twice)
    assert np.isfinite(found).all()


def neighbours(training, new, whiten):
    """Distances and rows from scikit-learn, and its PCA."""
    pca = PCA(min(12, len(training) - 2), whiten=whiten, svd_solver="full")
    codes = pca.fit_transform(training.voxels.reshape(len(training), -1).astype(np.float64))
    new_codes = pca.transform(new.voxels.reshape(len(new), -1).astype(np.float64))
    return *NearestNeighbors(n_neighbors=3).fit(codes).kneighbors(new_codes), pca, codes


def test_knn_is_the_residual_to_the_nearest_scans_of_scikit_learn():
    training, new = scans(16), scans(4, seed=1)
    _, rows, pca, codes = neighbours(training, new, whiten=False)
    expected = pca.inverse_transform(codes[rows].mean(1)).reshape(new.voxels.shape)
    found = values("knn", training, new)
    np.testing.assert_allclose(found, np.abs(new.voxels - expected).mean(1), atol=1e-5)


def test_knn_pca_is_the_distance_of_scikit_learn():
    training, new = scans(16), scans(4, seed=1)
    distances, *_ = neighbours(training, new, whiten=True)
    np.testing.assert_allclose(values("knn_pca", training, new), distances.mean(1), rtol=1e-3)


def test_knn_does_not_follow_an_anomaly_as_pca_does():
    training, scan = scans(16), scans(1, seed=1)
    # Along a component: pca explains it away.
    state = registered()["pca"].fit(training)
    image = scan.image.clone()
    image[0, 0] += torch.from_numpy(20 * state["components"][0].reshape(SHAPE) * np.abs(scan.voxels[0, 0]).mean())
    moved = Inputs(image, scan.foreground)
    assert values("pca", training, moved).mean() == pytest.approx(values("pca", training, scan).mean(), rel=0.05)
    assert values("knn", training, moved).mean() > 1.5 * values("knn", training, scan).mean()


@pytest.mark.parametrize("name", ["knn", "knn_pca"])
def test_neighbours_keep_scores_and_no_scan(name):
    training = scans(16)
    state = registered()[name].fit(training)
    assert set(state) == {"region", "mean", "components", "scores"}
    assert state["scores"].shape == (16, 12)
    assert len(state["components"]) == 12


def test_fewer_scans_than_neighbours_are_all_neighbours():
    training, new = scans(2), scans(3, seed=1)
    mean = training.voxels.astype(np.float64).mean(0)
    np.testing.assert_allclose(values("knn", training, new), np.abs(new.voxels - mean).mean(1), atol=1e-5)
    assert np.isfinite(values("knn_pca", training, new)).all()


def test_histogram_is_the_distance_of_scikit_learn():
    training, new = scans(10, channels=2, shown=0.7), scans(3, channels=2, seed=1, shown=0.9)
    inside = [training.voxels[:, c][training.mask] for c in range(2)]

    def features(inputs):
        rows = []
        for scan, mask in zip(inputs.voxels, inputs.mask, strict=True):
            counts = []
            for channel, own in zip(scan, inside, strict=True):
                edges = np.linspace(own.min(), own.max(), 33)
                counts.append(np.histogram(np.clip(channel[mask], edges[0], edges[-1]), edges)[0] / mask.sum())
            rows.append(np.sqrt(np.concatenate(counts)))
        return np.array(rows)

    fitted = LedoitWolf().fit(features(training))
    expected = np.sqrt(fitted.mahalanobis(features(new)))
    # A voxel on the edge of a bin may fall on either side in another precision: less than a hundredth of the distance.
    np.testing.assert_allclose(values("histogram", training, new), expected, rtol=0.01)


def test_histogram_sees_another_contrast_and_not_a_rearrangement():
    training, scan = scans(10), scans(1, seed=1)
    flipped = Inputs(scan.image.flip(2), scan.foreground.flip(2))
    brighter = Inputs(scan.image * 1.3, scan.foreground)
    before = values("histogram", training, scan)
    np.testing.assert_allclose(values("histogram", training, flipped), before, rtol=1e-5)
    assert values("histogram", training, brighter) > 2 * before


def test_equalised_is_the_histogram_equalisation_of_scikit_image_inside_the_scan():
    new = scans(2, channels=2, seed=3, shown=0.7)
    found = values("equalised", new, new)
    for row in range(2):
        mask = new.mask[row]
        flat = [equalize_hist(channel, nbins=1 << 16, mask=mask) for channel in new.voxels[row]]
        # scikit-image counts the voxel itself in full, the middle rank by half.
        np.testing.assert_allclose(found[row][mask], np.mean(flat, axis=0)[mask] - 0.5 / mask.sum(), atol=2e-3)
    assert not found[~new.mask].any()


def test_equalised_sees_bright_and_not_dark_whatever_the_scans_gain():
    new = scans(1)
    new.image[0, 0, 2, 2, 2], new.image[0, 0, 5, 5, 5] = 9.0, -9.0
    found = values("equalised", new, new)[0]
    assert found[2, 2, 2] == found.max()
    assert found[5, 5, 5] == found.min()
    brighter = Inputs(3 * new.image + 1, new.foreground)
    np.testing.assert_allclose(values("equalised", brighter, brighter)[0], found)
