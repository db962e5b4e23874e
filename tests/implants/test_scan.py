import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medgen.errors import ConfigError, DataError
from medgen.implants.regions import place, random_blob, shape_of_mask
from medgen.implants.scan import implant
from medgen.implants.site import robust_sd
from tests.builders.implants import SHAPE, SPACING, lesion_shape, make, scan


@pytest.mark.parametrize("kind", ["uniform", "noise", "hypointense", "hyperintense"])
def test_contrast_is_in_robust_standard_deviations(kind):
    image, foreground, done = make(kind, contrast=1.0, radius_mm=7)
    sd = 1.4826 * np.median(np.abs(image[foreground] - np.median(image[foreground])))
    change = (done.image - image)[ndimage.binary_erosion(done.mask, iterations=3)] / sd
    size = change.std() if kind == "noise" else abs(change.mean())
    assert size == pytest.approx(1, abs=0.3)
    sign = {"hypointense": -1, "hyperintense": 1}.get(kind)
    assert sign is None or np.sign(change.mean()) == sign


def test_sink_and_source_move_tissue_the_right_way_and_leave_the_surface():
    # A radial profile: intensity grows with the distance from the blob's centre.
    foreground = np.ones((41, 41, 41), bool)
    ramp = np.linspace(100, 200, 41, dtype=np.float32)
    for kind, sign in (("sink", 1), ("source", -1)):
        image = np.broadcast_to(ramp[:, None, None], foreground.shape)
        rng = np.random.default_rng(0)
        done = implant(image, foreground, kind, rng, radius_mm=10, spacing=(1, 1, 1), contrast=1)
        change = done.image - image
        middle = ndimage.center_of_mass(done.mask)[0]
        beyond = (np.arange(41)[:, None, None] > middle + 1) & done.mask
        # Pulled in: the voxel beyond the centre shows what lay further out.
        assert np.mean(np.sign(change[beyond]) == sign) > 0.95
        surface = done.mask & ~ndimage.binary_erosion(done.mask)
        assert np.abs(change[surface]).mean() < 0.5 * np.abs(change[done.mask]).mean()


def test_shuffle_keeps_the_values():
    image, _, done = make("shuffle", contrast=1.0, radius_mm=6)
    core = done.mask
    assert np.isin(done.image[core], image).mean() > 0.4  # where the soft edge does not mix
    assert done.image.mean() == pytest.approx(image.mean(), rel=1e-3)


def test_blur_smooths():
    image, _, done = make("blur", contrast=1.5, radius_mm=7)
    core = ndimage.binary_erosion(done.mask, iterations=3)
    assert done.image[core].std() < 0.7 * image[core].std()


def test_reflection_copies_the_mirror_image():
    image, _, done = make("reflection", contrast=1.0)
    core = done.mask & ndimage.binary_erosion(ndimage.binary_fill_holes(done.mask), iterations=2)
    mirrored = [np.flip(image, axis) for axis in range(3)]
    assert min(np.abs(done.image - mirror)[core].max() for mirror in mirrored) < 1


def test_foreign_patch_is_the_matched_other_scan():
    image, foreground, done = make("foreign", contrast=1.0, radius_mm=7)
    other = scan(1)[0]
    gain = robust_sd(image, foreground) / robust_sd(other, foreground)
    expected = (other - np.median(other[foreground])) * gain + np.median(image[foreground])
    core = ndimage.binary_erosion(ndimage.binary_fill_holes(done.mask), iterations=3)
    assert np.abs(done.image - expected)[core & done.mask].max() < 1


def test_poisson_keeps_the_gradients_and_the_boundary():
    image, foreground = scan()
    # A foreign scan that differs by a constant has the same gradients: nothing may change.
    rng = np.random.default_rng(0)
    same = implant(image, foreground, "poisson", rng, radius_mm=5, spacing=SPACING, foreign=image + 300)
    assert np.abs(same.image - image).max() < 1
    _, _, done = make("poisson", contrast=1.0, radius_mm=7)
    core = ndimage.binary_erosion(done.mask, iterations=3)
    other = scan(1)[0]
    gain = robust_sd(image, foreground) / robust_sd(other, foreground)
    found, wanted = ndimage.laplace(done.image)[core], ndimage.laplace(other * gain)[core]
    assert np.corrcoef(found, wanted)[0, 1] > 0.99


def test_multifocal_has_several_parts():
    rng = np.random.default_rng(0)
    foreground = np.ones((60, 60, 60), bool)
    image = (100 + 5 * rng.standard_normal(foreground.shape)).astype(np.float32)
    counts = [
        ndimage.label(implant(image, foreground, "multifocal", rng, radius_mm=8, spacing=(1, 1, 1), contrast=5).mask)[1]
        for _ in range(3)
    ]
    assert max(counts) >= 3


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    radius=st.floats(2, 9),
    spacing=st.tuples(*[st.floats(0.7, 3)] * 3),
)
def test_blobs_have_the_volume_of_their_ball_and_one_part(seed, radius, spacing):
    blob = random_blob(np.random.default_rng(seed), radius, spacing)
    support = blob.weight > 0
    assert support[blob.centre]
    assert blob.weight.max() == 1
    assert not (support[[0, -1]].any() and min(support.shape) > 3 and radius / max(spacing) > 2)
    if radius / max(spacing) > 2:
        volume = support.sum() * np.prod(spacing)
        assert 0.6 < volume / (4 / 3 * np.pi * radius**3) < 1.6
        assert ndimage.label(support)[1] == 1


@pytest.mark.parametrize("spacing", [(1, 1, 1), (2, 2, 2), (0.7, 1.5, 3)])
def test_real_shapes_keep_their_form_at_any_spacing(spacing):
    mask = lesion_shape()
    shape = shape_of_mask(mask, np.random.default_rng(0), 9, spacing)
    volume = (shape.weight > 0).sum() * np.prod(spacing)
    assert volume == pytest.approx(4 / 3 * np.pi * 9**3, rel=0.35 if len(set(spacing)) > 1 else 0.2)


def test_place_keeps_80_percent_inside_or_refuses():
    image, foreground = scan()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        blob = random_blob(rng, 6, SPACING)
        region = place(blob, foreground, rng, 6, SPACING)
        assert (region.weight > 0).sum() >= 0.8 * (blob.weight > 0).sum()
        assert region.weight.shape == tuple(part.stop - part.start for part in region.box)
    with pytest.raises(DataError, match="does not fit the foreground"):
        implant(image, foreground, "uniform", np.random.default_rng(0), radius_mm=30, spacing=SPACING)


def test_place_does_not_depend_on_kind_or_contrast():
    first, second = make("uniform", contrast=1)[2], make("hyperintense", contrast=3)[2]
    both = (first.mask & second.mask).sum()
    assert both > 0.97 * max(first.mask.sum(), second.mask.sum())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kind": "unifrom"}, ConfigError, "did you mean 'uniform'"),
        ({"kind": "zzz"}, ConfigError, "known kinds: uniform"),
        ({"radius_mm": 0}, ConfigError, "radius_mm > 0"),
        ({"contrast": -1}, ConfigError, "contrast >= 0"),
        ({"contrast": float("nan")}, ConfigError, "contrast >= 0"),
        ({"kind": "foreign", "foreign": None}, ConfigError, "pass it as foreign="),
        ({"kind": "lesion", "shape": None}, ConfigError, "pass it as shape="),
        ({"shape": np.zeros((3, 3, 3))}, DataError, "lesion mask"),
        ({"kind": "foreign", "foreign": np.ones((3, 3, 3))}, DataError, "foreign scan of shape"),
        ({"kind": "foreign", "foreign": np.full(SHAPE, np.nan)}, DataError, "no finite voxel"),
    ],
)
def test_wrong_arguments(options, error, message):
    with pytest.raises(error, match=message):
        make(**{"kind": "uniform", **options})


def test_wrong_arrays():
    image, foreground = scan()
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match="one shape"):
        implant(image[None], foreground, "uniform", rng, radius_mm=5, spacing=SPACING)
    with pytest.raises(DataError, match="finite voxels"):
        implant(image * np.nan, foreground, "uniform", rng, radius_mm=5, spacing=SPACING)
    with pytest.raises(DataError, match="finite voxels"):
        implant(image, foreground & False, "uniform", rng, radius_mm=5, spacing=SPACING)
