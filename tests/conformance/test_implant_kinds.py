"""Every kind of implant keeps the same promises; a new file in the folder is picked up by itself."""

import re
import sys

import numpy as np
import pytest
from scipy import ndimage

from medgen.errors import ConfigError
from medgen.implants import kinds
from medgen.implants.catalogue import check_kinds, registered
from medgen.implants.implanted_scans import EvaluationConfig, ValidationConfig
from medgen.implants.scan import implant
from medgen.implants.site import Site, robust_sd
from medgen.system import members
from tests.builders.implants import SPACING, form_for, make, scan


def site(kind, seed=0):
    image, foreground = scan()
    rng = np.random.default_rng(seed)
    region = registered()[kind].region(foreground, rng, 5.0, SPACING, form_for(kind), None)
    image.setflags(write=False)
    return Site(image, foreground, region, rng, 1.5, robust_sd(image, foreground), scan(1)[0])


@pytest.mark.parametrize("kind", registered())
class TestEveryKind:
    def test_truth_is_what_changed(self, kind):
        image, foreground, done = make(kind)
        assert done.image.dtype == np.float32
        assert np.array_equal(done.image[~done.mask], image[~done.mask])
        assert (done.image != image)[done.mask].all()
        assert not (done.mask & ~foreground).any()
        assert np.isfinite(done.image).all()
        assert done.image[foreground].min() >= image[foreground].min()
        ball = 4 / 3 * np.pi * 5**3 / np.prod(SPACING)
        assert 0.15 * ball < done.mask.sum() < 1.6 * ball
        assert (done.kind, done.radius_mm, done.contrast) == (kind, 5.0, 1.5)

    def test_only_the_region_changes_and_some_of_it_does(self, kind):
        here = site(kind)
        changed = registered()[kind](here)
        weight = np.zeros(here.image.shape, np.float32)
        weight[here.region.box] = here.region.weight
        assert changed.shape == here.image.shape
        assert changed.dtype == np.float32
        assert np.array_equal(changed[weight == 0], here.image[weight == 0])
        assert not np.array_equal(changed, here.image)

    def test_it_draws_from_the_stream_that_it_is_given_and_no_other(self, kind):
        first, again = site(kind), site(kind)
        assert registered()[kind](first).tobytes() == registered()[kind](again).tobytes()
        assert first.rng.bit_generator.state == again.rng.bit_generator.state

    def test_its_docstring_says_what_the_contrast_is_and_where_it_comes_from(self, kind):
        said = registered()[kind].change.__doc__
        for word in ("Contrast", "Source"):
            assert re.search(rf"^    {word}: \S.*[^.]\.$", said, re.MULTILINE | re.DOTALL), word

    def test_zero_contrast_is_the_untouched_image(self, kind):
        image, _, done = make(kind, contrast=0)
        assert np.array_equal(done.image, image)
        assert not done.mask.any()

    def test_input_is_not_changed(self, kind):
        image, foreground = scan()
        image.setflags(write=False)
        foreground.setflags(write=False)
        foreign = scan(1)[0]
        shape = form_for(kind)
        rng = np.random.default_rng(0)
        implant(image, foreground, kind, rng, radius_mm=5, spacing=SPACING, foreign=foreign, shape=shape)

    def test_same_stream_same_implant(self, kind):
        first, second, other = make(kind)[2], make(kind)[2], make(kind, seed=1)[2]
        assert np.array_equal(first.image, second.image)
        assert np.array_equal(first.mask, second.mask)
        assert not np.array_equal(first.mask, other.mask)

    def test_small_contrast_is_a_small_change(self, kind):
        image, _, weak = make(kind, contrast=0.05)
        strong = make(kind, contrast=1.0)[2]
        assert np.abs(weak.image - image).sum() < 0.6 * np.abs(strong.image - image).sum()

    def test_does_not_depend_on_the_unit(self, kind):
        image, foreground = scan()
        options = {"radius_mm": 5, "spacing": SPACING, "shape": form_for(kind)}
        one = implant(image, foreground, kind, np.random.default_rng(0), foreign=scan(1)[0], **options)
        scaled = image * np.float32(1024)
        two = implant(scaled, foreground, kind, np.random.default_rng(0), foreign=scan(1)[0], **options)
        assert np.mean(one.mask == two.mask) > 0.9999
        assert np.allclose(two.image / 1024, one.image, atol=0.5)

    def test_missing_values_outside_the_foreground_stay_missing(self, kind):
        image, foreground = scan()
        image = np.where(foreground, image, np.nan)
        options = {"radius_mm": 5, "spacing": SPACING, "shape": form_for(kind)}
        done = implant(image, foreground, kind, np.random.default_rng(0), foreign=scan(1)[0], **options)
        assert np.array_equal(np.isnan(done.image), ~foreground)

    def test_organ_crop_without_background(self, kind):
        rng = np.random.default_rng(2)
        image = (60 + 10 * ndimage.gaussian_filter(rng.standard_normal((35, 50, 33)), 1)).astype(np.float32)
        everywhere = np.ones(image.shape, bool)
        options = {"spacing": (1, 1, 1), "shape": form_for(kind), "foreign": image[::-1]}
        for radius in (3, 8):
            assert implant(image, everywhere, kind, rng, radius_mm=radius, **options).mask.sum() > 20


def test_the_order_of_kinds_that_draws_depend_on():
    toys = ["uniform", "noise", "sink", "source", "shift", "reflection", "blur", "shuffle"]
    rest = ["foreign", "poisson", "hypointense", "hyperintense", "multifocal", "lesion"]
    validation = ["twist", "sharpen", "fade", "ramp"]
    known = [*toys, *rest, *validation]
    # Further ones may have been added.
    assert [kind for kind in registered() if kind in known] == known
    assert EvaluationConfig().kinds[:13] == (*toys, *rest[:-1])
    assert ValidationConfig().kinds[:4] == tuple(validation)
    assert {kind.name for kind in registered().values() if kind.foreign} >= {"foreign", "poisson"}
    check_kinds(list(registered()))
    assert sorted(registered()) == members.names(kinds)


STRIPES = """
from medgen.implants.kind import implant_kind
from medgen.implants.site import Image, Site, add


@implant_kind({})
def stripes(site: Site) -> Image:
    stripes = site.region.voxels()[0] % 4 < 2
    return add(site, site.contrast * site.sd * site.region.weight * stripes)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(tmp_path)])
    yield tmp_path / "stripes.py"
    sys.modules.pop("medgen.implants.kinds.stripes", None)
    vars(kinds).pop("stripes", None)


def test_a_new_file_is_a_kind(own):
    """Found by its file, placed last, refused by its name where it lacks what it needs."""
    own.write_text(STRIPES.format("foreign=True"))
    assert list(registered())[-1] == "stripes"
    assert make("stripes")[2].mask.any()
    with pytest.raises(ConfigError, match="'stripes' mixes in another scan"):
        make("stripes", foreign=None)
    with pytest.raises(ConfigError, match="did you mean 'stripes'"):
        check_kinds(["stripe"])


def test_a_file_without_a_kind_of_its_name_says_so(own):
    own.write_text(STRIPES.format("").replace("def stripes", "def dots"))
    with pytest.raises(ConfigError, match=r"medgen\.implants\.kinds\.stripes: holds no implant kind of the name"):
        registered()
