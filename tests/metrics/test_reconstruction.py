import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from medgen.metrics.reconstruction import psnr, ssim


def pair():
    rng = np.random.default_rng(0)
    x = rng.random((2, 10, 12, 9))
    return x, x + 0.1 * rng.normal(size=x.shape)


def test_psnr_of_the_whole_image_is_that_of_scikit_image():
    x, y = pair()
    everywhere = np.ones(x.shape[1:], dtype=bool)
    assert psnr(x, y, everywhere) == pytest.approx(peak_signal_noise_ratio(x, y, data_range=1.0))


def test_only_voxels_inside_count():
    x, y = pair()
    mask = np.zeros(x.shape[1:], dtype=bool)
    mask[2:, 3:, 1:] = True
    y[:, :2] = 50
    assert psnr(x, y, mask) == pytest.approx(peak_signal_noise_ratio(x[:, mask], y[:, mask], data_range=1.0))
    spoilt = y.copy()
    spoilt[:, :, :3] = -7
    assert ssim(x, spoilt, mask) == ssim(x, y, mask) < 1
    assert ssim(x, x, mask) == pytest.approx(1)
    assert psnr(x, x, mask) == np.inf
    assert np.isnan([psnr(x, y, mask & False), ssim(x, y, mask & False)]).all()


def test_ssim_of_the_whole_image_is_that_of_scikit_image_without_its_crop():
    x, y = pair()
    everywhere = np.ones(x.shape[1:], dtype=bool)
    maps = [structural_similarity(a, b, win_size=7, data_range=1.0, full=True)[1] for a, b in zip(x, y, strict=True)]
    assert ssim(x, y, everywhere) == pytest.approx(np.mean(maps))
