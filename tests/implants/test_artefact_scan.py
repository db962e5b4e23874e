"""The physics of artefacts against closed forms."""

import numpy as np
import pytest
from scipy import ndimage, stats

from medgen.errors import ConfigError
from medgen.implants.artefact import Acquisition
from medgen.implants.artefact_scan import spoil
from medgen.implants.artefacts.metal import pushed
from medgen.implants.catalogue import artefacts
from medgen.volume import Grid, Volume

RNG = np.random.default_rng


def acquisition(image, axis=1, strength=2.0, seed=0, foreground=None, directions=None, hounsfield=False):
    image = np.asarray(image, dtype=np.float32)
    inside = image > 0 if foreground is None else foreground
    own = np.eye(3) if directions is None else directions
    return Acquisition(image, inside, axis, strength, RNG(seed), RNG(seed + 1), (1.0, 1.0, 1.0), own, hounsfield)


def half_full(shape=(16, 24, 16)):
    """Tissue in the first half along axis 1 alone, so that copies shifted by half the field of view do not overlap."""
    image = np.zeros(shape)
    image[3:13, 1:11, 3:13] = RNG(1).uniform(50, 100, (10, 10, 10))
    return image


def nyquist_seed():
    return next(seed for seed in range(50) if int(RNG(seed).integers(2, 5)) == 2)


def test_a_nyquist_ghost_is_a_copy_half_a_field_of_view_away_with_the_square_of_its_share_as_energy():
    image, share = half_full(), 0.2
    done = artefacts()["ghost"](acquisition(image, seed=nyquist_seed()))
    assert done == pytest.approx(image + share * np.roll(image, 12, axis=1), abs=1e-3)
    ghost = done[:, 12:]
    assert (ghost**2).sum() / (image**2).sum() == pytest.approx(share**2, rel=1e-4)


@pytest.mark.parametrize("every", [3, 4])
def test_a_modulation_of_every_nth_line_gives_a_copy_to_each_side(every):
    seed = next(seed for seed in range(80) if int(RNG(seed).integers(2, 5)) == every)
    image = np.zeros((8, 24, 8))
    image[2:6, 10:13, 2:6] = 80
    done = artefacts()["ghost"](acquisition(image, seed=seed))
    step, depth = 24 // every, 0.4
    wanted = image + depth / 2 * (np.roll(image, step, axis=1) + np.roll(image, -step, axis=1))
    assert done == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_wrap_is_the_sum_of_copies_shifted_by_the_smaller_field_of_view(axis):
    image = np.zeros((30, 30, 30))
    image[3:27, 3:27, 3:27] = RNG(0).uniform(1, 2, (24, 24, 24))
    done = artefacts()["wrap"](acquisition(image, axis=axis))
    kept = np.flatnonzero(np.isfinite(done).all(axis=tuple({0, 1, 2} - {axis})))
    length = len(kept)
    assert length == round(24 * (1 - 0.2))
    copies = sum(np.roll(np.pad(image, 40), turn * length, axis=axis) for turn in (-2, -1, 0, 1, 2))
    copies = copies[40:70, 40:70, 40:70]
    assert np.take(done, kept, axis=axis) == pytest.approx(np.take(copies, kept, axis=axis), rel=1e-5)
    assert np.nansum(done) == pytest.approx(image.sum(), rel=1e-5)


def test_noise_has_the_moments_of_a_rician_distribution():
    image = np.full((40, 40, 40), 100.0)
    image[20:] = 0
    done = artefacts()["low_snr"](acquisition(image, strength=3.0))
    sd = 0.18 * 100
    rice, rayleigh = stats.rice(100 / sd, scale=sd), stats.rayleigh(scale=sd)
    for values, law in ((done[:20], rice), (done[20:], rayleigh)):
        assert values.mean() == pytest.approx(law.mean(), rel=0.01)
        assert values.std() == pytest.approx(law.std(), rel=0.01)
        assert stats.skew(values.ravel()) == pytest.approx(float(law.stats("s")), abs=0.05)


def test_a_spike_is_one_point_of_k_space():
    image = np.full((24, 30, 20), 100.0)
    done = artefacts()["spike"](acquisition(image, strength=1.0, seed=3))
    spectrum = np.abs(np.fft.fftn(done - done.mean()))
    strongest = np.sort(spectrum.ravel())[::-1]
    assert strongest[0] == pytest.approx(strongest[1], rel=1e-6)  # a real image has each point and its mirror
    assert strongest[2] < 0.1 * strongest[0]
    # |100 + 7 e^{iθ}| = 100 + 7 cos θ + sin²θ 49 / 200 + ..., whose wave has the amplitude 7 to first order.
    assert strongest[0] == pytest.approx(7 / 2 * image.size, rel=0.01)
    alone = artefacts()["spike"](acquisition(np.where(np.arange(20) < 10, image, 0), strength=1.0, seed=3))
    assert alone[..., 10:] == pytest.approx(7)  # where there is no signal, the magnitude of the wave is what is left


def test_a_bias_field_multiplies_and_has_the_spread_that_it_says():
    image = RNG(0).uniform(50, 100, (24, 24, 24))
    done = artefacts()["bias"](acquisition(image, strength=3.0))
    field = np.log(done / image)
    assert field.std() == pytest.approx(0.39, rel=1e-4)
    assert np.abs(np.gradient(field)).max() < 0.5 * np.ptp(field)


def test_motion_leaves_the_head_where_it_was_and_ripples_along_the_phase_axis_only():
    image = np.zeros((32, 32, 32))
    image[8:24, 8:24, 8:24] = 100
    image = ndimage.gaussian_filter(image, 1)
    still = artefacts()["motion"](acquisition(image, strength=1e-6))
    assert still == pytest.approx(image, abs=0.01)
    moved = artefacts()["motion"](acquisition(image, strength=1.0))
    # The centre of k-space is that of the head at rest: neither place nor brightness change as a whole.
    middle = [np.average(np.indices(own.shape)[1], weights=own) for own in (image, moved)]
    assert middle[0] == pytest.approx(middle[1], abs=1.0)
    assert moved[12:20, 12:20, 12:20].mean() == pytest.approx(100, rel=0.15)
    ripples = np.stack([np.abs(np.take(moved, [2, 29], axis=axis)).mean() for axis in range(3)])
    assert ripples.argmax() == 1
    assert ripples[1] > 5 * max(ripples[0], ripples[2])


def test_defacing_zeroes_its_share_in_front_and_nothing_else():
    shape = (30, 30, 30)
    foreground = ((np.moveaxis(np.indices(shape), 0, -1) - 14.5) ** 2).sum(-1) < 13**2
    image = np.where(foreground, 100.0, 0.0)
    done = artefacts()["defacing"](acquisition(image, strength=3.0, foreground=foreground))
    gone = np.isnan(done) & foreground
    assert gone.sum() / foreground.sum() == pytest.approx(0.12, abs=0.005)
    assert np.argwhere(gone)[:, 1].mean() > 20  # axis j points forwards here
    assert np.array_equal(done[~np.isnan(done)], image.astype(np.float32)[~np.isnan(done)])


def test_what_is_in_front_follows_from_the_grid():
    shape = (24, 26, 28)
    foreground = ((np.moveaxis(np.indices(shape), 0, -1) - (np.array(shape) - 1) / 2) ** 2).sum(-1) < 11**2
    image = np.where(foreground, 100.0, 0.0)[None]
    # The third array axis points backwards.
    affine = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    done = spoil(Volume(image, Grid(shape, affine)), foreground, "defacing", RNG(0), strength=2.0)
    gone = foreground & ~done.foreground
    assert np.argwhere(gone)[:, 2].mean() < 8
    assert not done.image.data[0][gone].any()


def test_displaced_signal_is_neither_lost_nor_made_and_piles_up_where_it_meets():
    signal = RNG(0).uniform(1, 2, (6, 40, 6)).astype(np.float32)
    shift = np.zeros(signal.shape, np.float32)
    shift[:, 10:15], shift[:, 15:20] = 2.5, -2.5
    done = pushed(signal, shift, 1)
    assert done.sum(axis=1) == pytest.approx(signal.sum(axis=1), rel=1e-5)
    assert done[:, 14:16].mean() > 1.5 * signal.mean()
    assert pushed(signal, np.full_like(shift, 3), 1)[:, 3:] == pytest.approx(signal[:, :-3])


def test_metal_is_a_void_with_a_brighter_rim():
    shape = (40, 40, 40)
    foreground = ((np.moveaxis(np.indices(shape), 0, -1) - 19.5) ** 2).sum(-1) < 18**2
    done = artefacts()["metal"](acquisition(np.where(foreground, 100.0, 0.0), foreground=foreground))
    inside = done[foreground]
    assert (inside < 1).sum() > 4 / 3 * np.pi * 3**3
    assert (inside > 150).sum() > 20


def head(size=48):
    """A round head in air, in Hounsfield units, the third axis upwards."""
    away = np.linalg.norm(np.moveaxis(np.indices((size, size, 12)), 0, -1)[..., :2] - (size - 1) / 2, axis=-1)
    image = np.where(away < 20, np.where(away > 17, 900.0, 35.0), -1000.0)
    image[(away > 20) & (away < 21)] = -90
    image += 5 * RNG(0).standard_normal(image.shape)
    return np.maximum(image, -1000), away < 20.5


def test_metal_in_a_tomogram_sends_streaks_through_its_slices_only():
    image, foreground = head()
    healthy = Volume(image[None].astype(np.float32), Grid(image.shape, np.eye(4)))
    done = spoil(healthy, foreground, "metal", RNG(2), strength=1.0).image.data[0]
    change = np.abs(done - healthy.data[0])
    changed = np.flatnonzero(change.max(axis=(0, 1)) > 1)
    assert 0 < len(changed) <= 7
    brain = (image < 100) & (image > 0)
    streaked = change[..., changed][brain[..., changed]]
    assert np.percentile(streaked, 95) > 20  # as much as grey and white matter differ, and more
    assert done.max() > 3000


def test_what_only_magnetic_resonance_has_is_refused_for_a_tomogram():
    image, foreground = head()
    healthy = Volume(image[None].astype(np.float32), Grid(image.shape, np.eye(4)))
    with pytest.raises(
        ConfigError, match="'ghost' is none of computed tomography; choose one of defacing, low_snr, metal"
    ):
        spoil(healthy, foreground, "ghost", RNG(0))
    noisy = spoil(healthy, foreground, "low_snr", RNG(0), strength=1.0).image.data[0]
    assert (noisy - healthy.data[0])[foreground].std() == pytest.approx(15, rel=0.05)
