"""Hounsfield units are absolute: what an image is padded with changes neither foreground nor model intensities."""

import numpy as np
import pytest
from scipy import ndimage

from medgen import io
from medgen.data.cases import Case, Manifest
from medgen.errors import ConfigError
from medgen.io.hounsfield import is_hounsfield, measured
from medgen.preprocessing.automatic import fit_preprocess
from medgen.preprocessing.recipe import Preprocess
from medgen.preprocessing.template import build_template
from medgen.report.figures.planes import bounding_box
from medgen.transforms.foreground import foreground_mask
from medgen.volume import Grid, Volume

SHAPE, STEP = (48, 48, 24), (7.5, 7.5, 10.0)
PADS = (-1000, -1024, -2000, -3024, -32768)


def tomogram(pad, seed=0, noise=14.0):
    """A trunk with lungs on a table, in air, padded outside of the scanner's circle; and where the trunk is."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * d for n, d in zip(SHAPE, STEP, strict=True)], indexing="ij")
    image = np.full(SHAPE, -1000.0)
    width, height = 130 + 3 * seed, 95 + 2 * seed
    body = np.hypot(x / width, y / height) < 1
    image[body] = -90
    image[np.hypot(x / (width - 18), y / (height - 18)) < 1] = 45
    for side in (-1, 1):
        image[((x - side * 60) / 40) ** 2 + ((y - 8) / 55) ** 2 + ((z - 40) / 90) ** 2 < 1] = -830
    image[np.hypot(x, y - height + 38) < 17] = 420
    image[(np.abs(y - height - 30) < 7) & (np.abs(x) < 150)] = -650
    image = np.clip(ndimage.gaussian_filter(image, 0.4) + rng.normal(0, noise, SHAPE), -1024, 3071)
    image[np.hypot(x, y) > 172] = pad
    return Volume(image.round().astype(np.int16)[None], Grid(SHAPE, np.diag([*STEP, 1.0]))), body


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_foreground_whatever_the_padding(seed):
    masks = [foreground_mask(tomogram(pad, seed)[0].data) for pad in PADS]
    body = tomogram(-1024, seed)[1]
    assert all(np.array_equal(mask, masks[0]) for mask in masks[1:])
    assert 2 * (masks[0] & body).sum() / (masks[0].sum() + body.sum()) > 0.97


def test_one_model_image_whatever_the_padding():
    recipe = Preprocess(shape=(32, 32, 24), spacing=(9.0, 9.0, 10.0), center_on="foreground", mask_background=False)
    images = [recipe.apply(tomogram(pad)[0]) for pad in PADS]
    for other in images[1:]:
        np.testing.assert_array_equal(other.image, images[0].image)
        assert other.scale == images[0].scale


def test_one_template_whatever_the_padding():
    recipe = Preprocess(shape=(32, 24, 24), spacing=(9.0, 9.0, 10.0))
    first, second = (build_template([tomogram(pad, seed)[0] for seed in (0, 1)], recipe) for pad in (-1024, -3024))
    np.testing.assert_array_equal(first.image.data, second.image.data)
    np.testing.assert_array_equal(first.foreground.data, second.foreground.data)


def test_pictures_show_the_same_box_whatever_the_padding():
    boxes = [bounding_box(tomogram(pad)[0]) for pad in PADS]
    assert all(box == boxes[0] for box in boxes)


def test_lungs_cut_out_of_a_scan_are_foreground():
    volume, _ = tomogram(-1024)
    lungs = ndimage.binary_opening((volume.data[0] < -700) & (volume.data[0] > -950))
    alone = np.where(lungs | ndimage.binary_dilation(lungs), volume.data[0], -2000)
    mask = foreground_mask(alone)
    labels, _ = ndimage.label(lungs)
    largest = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    assert mask[largest].mean() > 0.95


def test_a_crop_inside_the_body_is_all_foreground():
    volume, _ = tomogram(-2000)
    assert foreground_mask(volume.data[:, 14:34, 14:34, 2:20]).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_other_images_are_not_taken_for_hounsfield_units(seed):
    rng = np.random.default_rng(seed)
    magnetic = np.abs(rng.normal(100, 60, (30, 30, 30)))
    assert not is_hounsfield(magnetic)
    padded = magnetic.copy()
    padded[:8] = -1024
    assert not is_hounsfield(padded)
    assert not is_hounsfield((magnetic - magnetic.mean()) / magnetic.std())
    assert not is_hounsfield(magnetic * 1000 - 500)
    assert not is_hounsfield(np.full((5, 5, 5), np.nan))
    assert is_hounsfield(tomogram(-3024, seed)[0].data[0])


def test_other_channels_stay_as_they_are():
    volume, _ = tomogram(-2000)
    both = volume.with_data(np.concatenate([volume.data, np.abs(volume.data)]))
    cut = measured(both)
    assert cut.data[0].min() == -1000
    np.testing.assert_array_equal(cut.data[1], both.data[1])
    assert measured(cut) is cut


def test_a_cohort_of_tomograms_gets_one_window_in_hounsfield_units(tmp_path):
    cases = []
    for seed in range(3):
        path = tmp_path / f"ct{seed}.nii.gz"
        io.write(tomogram(-2000, seed)[0], path)
        cases.append(Case(f"ct{seed}", f"ct{seed}", (path,)))
    manifest = Manifest("ct", tmp_path, tuple(cases))
    recipe = fit_preprocess(manifest, {"align": "center"}, max_side=48)
    assert recipe.window is not None
    low, high = recipe.window
    assert -900 < low < -700
    assert 100 < high < 480
    for case in manifest:
        prepared = recipe.apply(case.read_image())
        assert prepared.scale == ((low, high - low),)
    assert fit_preprocess(manifest, {"window": [-200, 300]}, max_side=48).window == (-200, 300)
    with pytest.raises(ConfigError, match="CT is never scaled by percentiles"):
        fit_preprocess(manifest, {"percentiles": [2, 98]}, max_side=48)
    with pytest.raises(ConfigError, match="first value must be below"):
        fit_preprocess(manifest, {"window": [300, -200]}, max_side=48)
