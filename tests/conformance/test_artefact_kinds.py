"""Every kind of artefact keeps the same promises; a new file in the folder is picked up by itself."""

import re

import numpy as np
import pytest

from medgen.errors import ConfigError, DataError
from medgen.implants import artefacts as files
from medgen.implants.artefact import STRENGTHS
from medgen.implants.artefact_scan import spoil
from medgen.implants.catalogue import artefacts, check_artefacts
from medgen.system import members
from medgen.volume import Grid, Volume
from tests.builders.implants import SPACING, scan

AFFINE = np.diag([*SPACING, 1.0])


def volume(air=False):
    image, foreground = scan()
    if air:
        image = image + np.random.default_rng(9).rayleigh(4.0, image.shape).astype(np.float32)
    return Volume(image[None], Grid(image.shape, AFFINE)), foreground


def made(kind, strength=2.0, seed=0, air=False):
    healthy, foreground = volume(air)
    return healthy, foreground, spoil(healthy, foreground, kind, np.random.default_rng(seed), strength=strength)


@pytest.mark.parametrize("kind", artefacts())
class TestEveryArtefact:
    def test_strength_zero_is_the_untouched_scan(self, kind):
        healthy, foreground, done = made(kind, strength=0)
        assert np.array_equal(done.image.data, healthy.data)
        assert np.array_equal(done.foreground, foreground)

    def test_it_changes_the_scan_more_the_stronger_it_is(self, kind):
        change = []
        for strength in STRENGTHS.values():
            parts = [made(kind, strength, seed) for seed in range(6)]
            change.append(np.mean([np.abs(done.image.data - healthy.data).mean() for healthy, _, done in parts]))
        assert 0 < change[0] < change[1] < change[2]

    def test_small_strength_is_a_small_change(self, kind):
        healthy, _, weak = made(kind, strength=0.1)
        strong = made(kind, strength=3)[2]
        assert np.abs(weak.image.data - healthy.data).sum() < 0.6 * np.abs(strong.image.data - healthy.data).sum()

    def test_a_stripped_scan_stays_exactly_zero_outside(self, kind):
        _, foreground, done = made(kind)
        assert not done.image.data[0][~foreground].any()
        assert not (done.foreground & ~foreground).any()
        assert not done.image.data[0][~done.foreground].any()

    def test_values_are_finite_magnitudes_of_the_same_grid(self, kind):
        healthy, _, done = made(kind, air=True)
        assert done.image.data.dtype == np.float32
        assert done.image.grid == healthy.grid
        assert np.isfinite(done.image.data).all()
        assert done.image.data.min() >= 0

    def test_same_stream_same_artefact(self, kind):
        first, again, other = made(kind)[2], made(kind)[2], made(kind, seed=1)[2]
        assert np.array_equal(first.image.data, again.image.data)
        assert not np.array_equal(first.image.data, other.image.data)

    def test_does_not_depend_on_the_unit(self, kind):
        healthy, foreground = volume()
        scaled = spoil(healthy.with_data(8 * healthy.data), foreground, kind, np.random.default_rng(0))
        assert np.allclose(scaled.image.data, 8 * made(kind)[2].image.data, rtol=1e-3, atol=0.5)

    def test_channels_share_place_and_time(self, kind):
        healthy, foreground = volume()
        twice = healthy.with_data(np.concatenate([healthy.data, healthy.data]))
        done = spoil(twice, foreground, kind, np.random.default_rng(0)).image.data
        # Noise is its own in each channel.
        assert np.array_equal(done[0], done[1]) == (kind != "low_snr")

    def test_its_docstring_says_what_the_strength_is_and_where_it_comes_from(self, kind):
        said = artefacts()[kind].spoil.__doc__
        for word in ("Strength", "Source"):
            assert re.search(rf"^    {word}: \S.*[^.]\.$", said, re.MULTILINE | re.DOTALL), word

    def test_input_is_not_changed(self, kind):
        healthy, foreground = volume()
        before = healthy.data.copy()
        spoil(healthy, foreground, kind, np.random.default_rng(0))
        assert np.array_equal(healthy.data, before)


def test_the_kinds_that_there_are():
    assert {"motion", "ghost", "spike", "wrap", "bias", "metal", "low_snr", "defacing"} <= {*artefacts()}
    assert list(artefacts()) == members.names(files)
    assert all(kind.looks for kind in artefacts().values())


def test_what_cannot_be_made_says_why():
    healthy, foreground = volume()
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match="unknown artefact 'motoin'; did you mean 'motion'"):
        check_artefacts(["motoin"])
    with pytest.raises(ConfigError, match="strength of at least 0, found -1"):
        spoil(healthy, foreground, "ghost", rng, strength=-1)
    with pytest.raises(DataError, match="voxels in it, found"):
        spoil(healthy, np.zeros_like(foreground), "ghost", rng)
    with pytest.raises(DataError, match="finite voxels only"):
        spoil(healthy.with_data(np.where(foreground, healthy.data, np.nan)), foreground, "ghost", rng)
