from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from medgen.anomaly.scores.base import Inputs
from medgen.anomaly.scores.catalogue import get
from medgen.anomaly.scores.descriptors import NAMES, describe, fit_local
from medgen.anomaly.scores.selfsup import _shapes

SHAPE = (20, 24, 18)


def inputs(n=8, seed=0, **settings):
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, size) for size in SHAPE], indexing="ij"))
    pattern = 0.5 + 0.2 * np.cos(6 * grid[0]) * np.sin(5 * grid[1])
    images = pattern + 0.08 * rng.normal(size=(n, 1, *SHAPE))
    mask = np.broadcast_to((grid**2).sum(0) < 1.1, (n, 1, *SHAPE)).copy()
    return Inputs(torch.from_numpy((images * mask).astype(np.float32)), torch.from_numpy(mask), (), settings)


def fitted(training, name):
    states = {each: get(each).fit(training) for each in ("descriptors", name)}
    return get(name).state(states)


def test_mean_and_deviation_are_those_of_the_training_scans():
    training = inputs()
    state = fit_local(training)
    maps = np.stack([describe(scan[0], mask) for scan, mask in zip(training.voxels, training.mask, strict=True)])
    region = state["region"]
    assert np.array_equal(region, training.mask.all(axis=0))
    np.testing.assert_allclose(state["mean"], maps.mean(axis=0)[:, region], atol=5e-3)
    # Without blur it would be (SS + 10 pooled) / (n - 1 + 10); the blur keeps the average.
    square = ((maps - maps.mean(axis=0)) ** 2).sum(axis=0)[:, region]
    pooled = square.sum(axis=1) / (7 * region.sum())
    expected = (square + 10 * pooled[:, None]) / 17
    got = state["sd"].astype(np.float64) ** 2
    interior = ndimage.binary_erosion(region, iterations=4)[region]
    np.testing.assert_allclose(got[:, interior].mean(axis=1), expected[:, interior].mean(axis=1), rtol=0.1)


def test_blurred_and_noisy_tissue_is_found_by_texture_and_not_by_the_voxel_z():
    training, scan = inputs(), inputs(1, seed=9)
    place = (slice(6, 13), slice(9, 16), slice(6, 12))
    image = scan.image.clone()
    image[0, 0][place] = torch.from_numpy(ndimage.gaussian_filter(image[0, 0].numpy(), 1.5)[place])
    blurred = Inputs(image, scan.foreground)
    inside = np.zeros(SHAPE, dtype=bool)
    inside[place] = True
    rest = scan.mask[0] & ~inside
    lift = {}
    for name in ("zscore", "texture", "descriptors", "selfsup"):
        state = fitted(training, name)
        values = get(name)(blurred, state)[0]
        lift[name] = (values[inside].mean() - values[rest].mean()) / values[rest].std()
    assert lift["zscore"] < 0
    assert min(lift["texture"], lift["descriptors"], lift["selfsup"]) > 1


def test_what_the_folds_share_changes_no_number():
    alone, shared = inputs(), inputs()
    state = fitted(alone, "selfsup")
    # Descriptors and corrupted copies come from the memo the second time.
    fitted(shared, "selfsup")
    again = fitted(Inputs(shared.image, shared.foreground, (), {}, shared.memo), "selfsup")
    for key, value in state.items():
        np.testing.assert_array_equal(value, again[key])


def test_corruptions_that_are_left_out_are_not_learned():
    everything = fitted(inputs(), "selfsup")
    without = fitted(inputs(corruptions=("offset",)), "selfsup")
    assert not np.allclose(everything["weight"], without["weight"])
    # Sharpness counts only if corruptions that change it were seen.
    row = NAMES.index("fine_1")
    weights = [np.abs(state["weight"].reshape(-1, len(NAMES))[:, row]).sum() for state in (everything, without)]
    assert weights[0] > weights[1]


def test_shapes_are_piecewise_linear():
    z = np.array([[-4.0, -2.0, 0.0, 1.0, 5.0]], dtype=np.float32)
    expected = [[-4, 4, 2.5, 1], [-2, 2, 0.5, 0], [0, 0, 0, 0], [1, 1, 0, 0], [5, 5, 3.5, 2]]
    np.testing.assert_allclose(_shapes(z), expected)
