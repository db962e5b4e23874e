"""Lesions as separate things: found, feathered, and varied."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from medgen.seeds import numpy_rng
from medgen.synthesis.lesions import forms as lesions
from tests.builders.focal_scans import focal_scans


def test_lesions_are_found_as_components() -> None:
    data = focal_scans(3, "f")
    found = lesions.find_lesions(data, (2,), 1)
    assert [lesion.row for lesion in found] == [0, 1, 2]
    for lesion in found:
        mask = data.labels[lesion.row, 0].numpy() == 2
        assert lesion.voxels == mask.sum()
        assert lesion.surrounding == 1
        low, high = lesions.foreground_box(data.foregrounds[lesion.row, 0].numpy())
        expected = (np.array(ndimage.center_of_mass(mask)) - low) / (high - low)
        np.testing.assert_allclose(lesion.place, expected)


def test_feather_is_one_inside_and_zero_beyond_the_margin() -> None:
    lesion = np.zeros((11, 11, 11), dtype=np.uint8)
    lesion[5, 5, 5] = 1
    inside = np.ones(lesion.shape, dtype=bool)
    weight = lesions.feather(lesion, inside, 2)
    np.testing.assert_allclose(weight[5, 5, 5:10], [1, 2 / 3, 1 / 3, 0, 0], atol=1e-6)
    assert lesions.feather(lesion, ~inside, 2).max() == 0


def test_forms_vary_but_keep_about_their_size() -> None:
    form = np.zeros((24, 24, 24), dtype=np.uint8)
    form[8:16, 9:15, 10:14] = 1
    form[8:16, 9:12, 10:14] = 2
    made = [lesions.deformed(form, 0.04, numpy_rng(seed, "warp")) for seed in range(6)]
    for other in made:
        assert set(np.unique(other)) == {0, 1, 2}
        assert 0.35 < (other > 0).sum() / (form > 0).sum() < 2.5
        assert ndimage.label(other > 0, np.ones((3, 3, 3)))[1] == 1
    assert len({other.tobytes() for other in made}) == 6
    same = lesions.deformed(form, 0.04, numpy_rng(0, "warp"))
    assert np.array_equal(same, made[0])
