from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from medgen.anomaly.scores.base import Inputs
from medgen.anomaly.scores.descriptors import (
    LIMIT,
    NAMES,
    Surroundings,
    _eigenvalues,
    describe,
    flat_descriptors,
    standardised,
    standardised_scans,
)

SHAPE = (18, 20, 16)
RNG = np.random.default_rng(0)
EVERYWHERE = np.ones(SHAPE, dtype=bool)
ROW = {name: row for row, name in enumerate(NAMES)}


def test_there_is_a_name_for_every_map():
    maps = describe(RNG.random(SHAPE, dtype=np.float32), EVERYWHERE)
    assert maps.shape == (len(NAMES), *SHAPE)
    assert maps.dtype == np.float32
    assert np.isfinite(maps).all()


def test_a_constant_scan_has_no_contrast_texture_or_asymmetry():
    maps = describe(np.full(SHAPE, 0.4, np.float32), EVERYWHERE)
    for name in ("intensity", "smooth_1", "smooth_2", "smooth_4"):
        np.testing.assert_allclose(maps[ROW[name]], 0.4, atol=1e-5)
    for name in ("band_0_1", "band_1_2", "band_2_4", "asymmetry_1", "asymmetry_2", "asymmetry_fine"):
        np.testing.assert_allclose(maps[ROW[name]], 0, atol=1e-5)
    # The logarithm of the floor; a standard deviation is the root of a difference that rounds to 1e-7.
    for name in ("fine_1", "range", "slope", "tensor_1"):
        np.testing.assert_allclose(maps[ROW[name]], np.log(0.02), atol=0.02)


def test_what_lies_outside_the_foreground_does_not_matter():
    scan = RNG.random(SHAPE, dtype=np.float32)
    mask = EVERYWHERE.copy()
    mask[:, :4] = False
    other = np.where(mask, scan, 7).astype(np.float32)
    np.testing.assert_allclose(describe(scan, mask), describe(other, mask), atol=1e-5)
    assert (describe(scan, mask)[:, ~mask] == 0).all()


def test_blur_lowers_and_noise_raises_the_energy_of_fine_detail():
    from scipy import ndimage

    scan = RNG.random(SHAPE, dtype=np.float32)
    before = describe(scan, EVERYWHERE)[ROW["fine_1"]].mean()
    assert describe(ndimage.gaussian_filter(scan, 1.0), EVERYWHERE)[ROW["fine_1"]].mean() < before - 0.5
    assert describe(scan + RNG.normal(size=SHAPE).astype(np.float32), EVERYWHERE)[ROW["fine_1"]].mean() > before + 0.5


def test_asymmetry_changes_sign_with_the_sides():
    scan = RNG.random(SHAPE, dtype=np.float32)
    for name in ("asymmetry_1", "asymmetry_2", "asymmetry_fine"):
        here, mirrored = (describe(part, EVERYWHERE)[ROW[name]] for part in (scan, scan[::-1].copy()))
        np.testing.assert_allclose(mirrored, -here, atol=1e-4)
        np.testing.assert_allclose(here[::-1], -here, atol=1e-4)


@pytest.mark.parametrize("kind", ["random", "diagonal", "isotropic", "zero"])
def test_eigenvalues_are_numpys(kind):
    parts = RNG.normal(size=(50, 3, 3))
    matrices = {
        "random": parts @ parts.transpose(0, 2, 1),
        "diagonal": np.array([np.diag(row) for row in RNG.random((50, 3))]),
        "isotropic": np.eye(3) * RNG.random((50, 1, 1)),
        "zero": np.zeros((50, 3, 3)),
    }[kind]
    entries = (matrices[:, a, b].astype(np.float32) for a, b in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)))
    mine = np.stack(_eigenvalues(*entries), axis=1)
    np.testing.assert_allclose(mine, np.linalg.eigvalsh(matrices)[:, ::-1], atol=2e-3)


def test_empty_space_around_the_foreground_changes_nothing():
    scan, mask = RNG.random(SHAPE, dtype=np.float32), np.zeros(SHAPE, dtype=bool)
    mask[3:-3, 2:-2, 1:-2] = RNG.random((SHAPE[0] - 6, SHAPE[1] - 4, SHAPE[2] - 3)) > 0.1
    margins = ((4, 4), (5, 3), (0, 6))
    inside = tuple(slice(low, low + size) for (low, _), size in zip(margins, SHAPE, strict=True))
    wider = describe(np.pad(scan, margins), np.pad(mask, margins))
    np.testing.assert_array_equal(wider[(slice(None), *inside)], describe(scan, mask))
    assert np.count_nonzero(wider) == np.count_nonzero(wider[(slice(None), *inside)])
    assert not describe(scan, np.zeros(SHAPE, dtype=bool)).any()


def test_some_voxels_have_the_descriptors_that_they_have_among_all() -> None:
    scan = ndimage.gaussian_filter(RNG.random((2, *SHAPE), dtype=np.float32), (0, 1, 1, 1))
    mask = ndimage.binary_erosion(EVERYWHERE, iterations=2)
    mask[:4] = False
    whole = flat_descriptors(scan, mask)
    assert np.array_equal(whole, np.concatenate([describe(own, mask)[:, mask] for own in scan]).astype(np.float16))
    rows = RNG.permutation(int(mask.sum()))[:50]
    around = Surroundings(mask)
    for _ in range(2):
        assert np.array_equal(flat_descriptors(scan, mask, rows, around), whole[:, rows])


def test_z_are_those_of_the_formula_to_the_bit_and_made_once() -> None:
    mask, region = RNG.random((2, *SHAPE)) < 0.7
    values = RNG.normal(size=(24, mask.sum())).astype(np.float16)
    mean, sd = (RNG.uniform(0.5, 1, (24, region.sum())).astype(np.float16) for _ in range(2))
    state = {"region": region, "mean": mean, "sd": sd}
    both = mask & region
    expected = (values[:, both[mask]].astype(np.float32) - mean[:, both[region]]) / sd[:, both[region]]
    z, where = standardised(values, mask, state)
    assert np.array_equal(z, np.clip(expected, -LIMIT, LIMIT))
    assert np.array_equal(where, both)
    image = torch.zeros(1, 1, *SHAPE)
    inputs = Inputs(image, torch.from_numpy(mask)[None, None], memo=({"descriptors": values},))
    assert np.array_equal(standardised_scans(inputs, state)[0][0], z)
    assert standardised_scans(inputs, {**state, "weight": mean[0]}) is standardised_scans(inputs, state)
    other = standardised_scans(inputs, {**state, "mean": mean + np.float16(1)})[0][0]
    assert not np.array_equal(other, z)
