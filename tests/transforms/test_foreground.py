import numpy as np
import pytest

from medgen.errors import DataError
from medgen.transforms.foreground import foreground_mask


def ball(shape, radius, centre=None):
    centre = (np.array(shape) - 1) / 2 if centre is None else np.array(centre)
    points = np.moveaxis(np.indices(shape), 0, -1) - centre
    return (points**2).sum(-1) <= radius**2


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def stripped(rng, shape=(40, 44, 36), background=0.0):
    brain = ball(shape, 14)
    image = np.where(brain, 100 + 10 * rng.standard_normal(shape), background).astype(np.float32)
    image[ball(shape, 3)] = background  # a ventricle as dark as the background
    return image, brain


@pytest.mark.parametrize("background", [0.0, -1024.0, 300.0])
def test_constant_background_is_cut_and_holes_are_kept(rng, background):
    image, brain = stripped(rng, background=background)
    assert np.array_equal(foreground_mask(image), brain)
    assert np.array_equal(foreground_mask(image[None]), brain)


def test_stray_voxels_and_non_finite_background(rng):
    image, brain = stripped(rng)
    image[1, 1, 1] = 50
    image[:, :, :3] = np.nan
    assert np.array_equal(foreground_mask(image), brain)


def test_feathered_edge_of_a_resampled_mask_is_not_taken_for_air(rng):
    from scipy import ndimage

    image, _ = stripped(rng)
    smooth = ndimage.zoom(image, 0.6, order=1)
    assert np.array_equal(foreground_mask(smooth), ndimage.binary_fill_holes(smooth != 0))


@pytest.mark.parametrize("masked_corner", [False, True])
def test_head_in_noisy_air(rng, masked_corner):
    shape = (64, 64, 56)
    head, skull, brain = ball(shape, 26), ball(shape, 24), ball(shape, 21)
    clean = np.where(brain, 100.0, np.where(skull, 6.0, np.where(head, 70.0, 0.0)))
    image = np.hypot(clean + 5 * rng.standard_normal(shape), 5 * rng.standard_normal(shape))
    if masked_corner:  # gradient-distortion correction leaves exact zeros beside noisy air
        image[:12] = image[-12:] = 0
        head = head & (image > 0)
    assert dice(foreground_mask(image), head) > 0.97


def test_crop_inside_the_body_is_whole(rng):
    from scipy import ndimage

    texture = ndimage.gaussian_filter(rng.standard_normal((35, 51, 33)), 2)
    image = np.clip(60 + 250 * texture, 0, None).astype(np.float32)
    image[rng.integers(0, 35, 20), rng.integers(0, 51, 20), rng.integers(0, 33, 20)] = 0
    assert foreground_mask(image).all()
    assert foreground_mask(image.astype(np.uint8)).all()


def test_padding_of_a_crop_is_cut(rng):
    image = np.pad(60 + 10 * rng.standard_normal((30, 40, 30)), ((4, 4), (0, 0), (0, 6)))
    expected = np.pad(np.ones((30, 40, 30), bool), ((4, 4), (0, 0), (0, 6)))
    assert np.array_equal(foreground_mask(image), expected)


def test_channels_are_combined(rng):
    image, brain = stripped(rng)
    other = np.where(brain, 5.0, 0.0) + np.where(ball(image.shape, 6), 2.0, 0.0)
    assert np.array_equal(foreground_mask(np.stack([image, other])), brain)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8, 8)), "one constant value"),
        (np.full((8, 8, 8), np.nan), "no finite voxel"),
        (np.zeros((8, 8)), "expected an image of shape"),
    ],
)
def test_useless_images_are_refused(image, message):
    with pytest.raises(DataError, match=message):
        foreground_mask(image)


def test_real_scans(shared_data):
    import nibabel as nib

    for path in sorted((shared_data / "hippocampus" / "imagesTr").glob("*.nii.gz"))[::20]:
        assert foreground_mask(np.asarray(nib.load(path).dataobj)).all(), path.name
    path = sorted((shared_data / "oasis").glob("*_T1w.nii.gz"))[0]
    image = np.asarray(nib.load(path).dataobj)[::2, ::2, ::2]
    assert dice(foreground_mask(image), image > 0) > 0.98
