"""Which artefact a scan looks like, on phantoms: named when it is there, silent about anatomy and lesions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from medgen.anomaly.artefacts.comparison import gain_spread, rimmed_void, stripes
from medgen.anomaly.artefacts.looks import ENDS, detail_of, echo_of, ends_of, noise_of, standardised
from medgen.anomaly.artefacts.signs import MEASURES, ArtefactLimits
from medgen.anomaly.doubts import Doubts, Rank, rank_words
from medgen.anomaly.gate import Gate, GateConfig
from medgen.errors import DataError
from medgen.implants.artefact_scan import spoil
from medgen.implants.catalogue import artefacts
from medgen.implants.scan import implant
from medgen.preprocessing.dataset import Dataset
from medgen.preprocessing.recipe import Preprocess
from medgen.volume import Grid, Volume

torch.set_num_threads(1)
SHAPE, STEP = (32, 40, 32), 4.0
RECIPE = Preprocess(shape=SHAPE, spacing=(STEP, STEP, STEP), center_on="foreground")
_COMMON = ndimage.gaussian_filter(np.random.default_rng(99).standard_normal(SHAPE), 1.5)
_COMMON /= _COMMON.std()
ANATOMY = ndimage.gaussian_filter(np.where(_COMMON > 0.4, 90.0, np.where(_COMMON > -0.8, 65.0, 30.0)), 0.6)


def brain(seed):
    """A stripped ellipsoid with folds that are alike in all, and each its own size, texture, field and noise."""
    rng = np.random.default_rng(seed)
    x = np.stack(np.meshgrid(*[np.linspace(-1, 1, size) for size in SHAPE], indexing="ij"))
    inside = np.sqrt((x**2).sum(0)) < 0.86 + 0.02 * rng.uniform(-1, 1)
    own = ndimage.gaussian_filter(rng.standard_normal(SHAPE), 1.5)
    field = 1 + 0.04 * np.tensordot(rng.uniform(-1, 1, 3), x, axes=1)
    data = (ANATOMY + 6 * own / own.std()) * field + 2 * rng.standard_normal(SHAPE)
    return Volume(
        np.where(inside, np.maximum(data, 1), 0)[None].astype(np.float32), Grid(SHAPE, np.diag([STEP] * 3 + [1]))
    )


def dataset(scans, subjects=None):
    prepared = tuple(RECIPE.apply(scan) for scan in scans)
    ids = tuple(f"case-{number:02d}" for number in range(len(scans)))
    images = torch.from_numpy(np.stack([item.image for item in prepared]))
    foregrounds = torch.from_numpy(np.stack([item.foreground for item in prepared]))[:, None]
    return Dataset(ids, tuple(subjects or ids), images, foregrounds, prepared=prepared)


@pytest.fixture(scope="module")
def limits():
    healthy = dataset([brain(seed) for seed in range(8)])
    return ArtefactLimits.fit(healthy, Gate.fit(healthy, GateConfig()).reference, GateConfig())


def spoilt(scan, kind, strength, seed):
    done = spoil(scan, scan.data[0] > 0, kind, np.random.default_rng(seed), strength=strength)
    return RECIPE.apply(done.image)


def test_every_measure_is_of_an_artefact():
    assert set(MEASURES) <= set(artefacts())
    assert len(MEASURES) >= 8


def test_healthy_scans_and_scans_with_lesions_look_like_none(limits):
    scan = brain(100)
    assert limits.signs(RECIPE.apply(scan)) == ()
    assert limits.signs(RECIPE.apply(scan.with_data(37.5 * scan.data))) == ()
    for kind in ("hyperintense", "hypointense", "sink", "shift", "blur"):
        data = implant(
            scan.data[0],
            scan.data[0] > 0,
            kind,
            np.random.default_rng(3),
            radius_mm=12,
            spacing=(STEP,) * 3,
            contrast=2.5,
        ).image
        assert limits.signs(RECIPE.apply(scan.with_data(data[None]))) == (), kind


@pytest.mark.parametrize("kind", MEASURES)
def test_a_severe_artefact_is_named_before_any_other(limits, kind):
    # On voxels of 4 mm little is seen of smaller metal.
    strength = 6.0 if kind == "metal" else 3.0
    named = [
        [sign.artefact for sign in limits.signs(spoilt(brain(100 + seed), kind, strength, seed))][:1]
        for seed in range(4)
    ]
    assert named.count([kind]) >= 3, named


def test_the_sentence_holds_the_artefact_the_value_and_what_is_usual(limits):
    first = limits.signs(spoilt(brain(101), "defacing", 3.0, 0))[0]
    assert first.words.startswith("looks like a cut at the front (defacing) (flatness of its front: ")
    assert f"usual up to {limits.limits['defacing'].high:.2g}" in first.words
    assert first.words.endswith(MEASURES["defacing"].advice)
    changed = replace(first, artefact="bias", value=0.5)
    assert changed.words.startswith("looks like a bias field (spread of its brightness across the organ: 0.5,")
    assert Doubts(signs=(first,)).why == "likely artefact: a cut at the front (defacing)"
    assert Doubts(refused=("x",), signs=(changed,)).why == "outside the cohort"
    assert not Doubts()


def test_ranks_count_healthy_scans_below_and_are_no_p_values():
    ranks = {"top": Rank.of([1, 2, 3, 4], 3), "max": Rank.of([1, 2, 3, 4], 9)}
    said = rank_words(ranks, "top")
    assert said == "more unusual than 4 of 4 healthy scans (max), more unusual than 2 of 4 healthy scans (top)"
    assert rank_words(ranks, "max") == "more unusual than 4 of 4 healthy scans (max)"


def test_limits_come_from_other_subjects_scans_and_survive_as_plain_arrays():
    scans = [brain(seed) for seed in range(5)]
    # The odd one is there twice; each of its scans is compared with the others' only, so that it stands out.
    odd = spoil(scans[4], scans[4].data[0] > 0, "bias", np.random.default_rng(0), strength=3.0).image
    healthy = dataset([*scans[:4], odd, odd], ["a", "b", "c", "d", "e", "e"])
    gate = Gate.fit(healthy, GateConfig())
    fitted = ArtefactLimits.fit(healthy, gate.reference, GateConfig())
    values = fitted.limits["bias"].values
    assert min(values[4:]) > 2 * max(values[:4])
    assert fitted.flagged == (2, 6)
    again = ArtefactLimits.from_arrays(fitted.to_arrays(), gate.reference)
    prepared = healthy.prepared[0]
    assert again.measure(prepared) == fitted.measure(prepared)
    assert again.flagged == fitted.flagged
    assert {name: own.high for name, own in again.limits.items()} == {
        name: own.high for name, own in fitted.limits.items()
    }
    with pytest.raises(ValueError, match="limits for 'colour'"):
        ArtefactLimits.from_arrays({**fitted.to_arrays(), "limits/colour": np.zeros(1)}, gate.reference)
    with pytest.raises(DataError, match="at least 2 subjects"):
        ArtefactLimits.fit(dataset(scans[:2], ["a", "a"]), gate.reference, GateConfig())


class TestMeasures:
    """Each measure against what it says it measures."""

    rng = np.random.default_rng(0)
    everywhere = np.ones((30, 30, 30), bool)

    def test_noise_is_the_standard_deviation_of_white_noise(self):
        slope = np.indices((30, 30, 30)).sum(0) / 5
        image = (slope + 0.7 * self.rng.standard_normal(slope.shape)).astype(np.float32)
        assert noise_of(image, self.everywhere) == pytest.approx(0.7, rel=0.03)
        assert noise_of(image, np.zeros_like(self.everywhere)) == 0

    def test_detail_is_that_of_its_axis(self):
        waves = np.cos(np.pi * np.indices((30, 30, 30))[1]).astype(np.float32)
        found = detail_of(waves, self.everywhere)
        assert found[1] == pytest.approx(np.log(4))  # 1, -1, 1: a second difference of 4
        assert max(found[0], found[2]) < -10

    def test_an_echo_is_its_share_of_the_signal_weighted_by_where_it_is(self):
        image = self.rng.standard_normal((24, 60, 24)).astype(np.float32)
        inside = np.ones(image.shape, bool)
        assert echo_of(image, inside, (2, 2, 2)) < 0.05
        assert echo_of(image + 0.4 * np.roll(image, 20, axis=1), inside, (2, 2, 2)) == pytest.approx(
            0.4 / (1 + 0.4**2) * np.sqrt(2 / 3), rel=0.15
        )
        # Nearer than 25 mm anatomy resembles itself.
        near = image.copy()
        near[:, 20:] += 0.4 * image[:, :-20]
        assert echo_of(near, inside, (1, 1, 1)) < 0.1

    def test_ends_are_thin_where_they_are_cut_off(self):
        x = np.moveaxis(np.indices((40, 40, 40)), 0, -1) - 19.5
        ball = (x**2).sum(-1) < 18**2
        names = list(ENDS)
        round_ones = ends_of(ball, (2, 2, 2), np.eye(3))
        # The cap of height h of a ball of radius r holds h²(3r − h)/(4r³) of it.
        heights = np.linspace(0, 5, 5001)
        share = heights**2 * (3 * 18 - heights) / (4 * 18**3)
        wanted = 2 * (np.interp(0.01, share, heights) - np.interp(0.0005, share, heights))
        assert np.exp(round_ones) == pytest.approx(wanted, rel=0.2)
        tilted = x @ np.array([0.1, 0.98, 0.0]) < 12
        cut = dict(zip(names, (round_ones - ends_of(ball & tilted, (2, 2, 2), np.eye(3))).tolist(), strict=True))
        assert cut["front"] > 0.7
        assert max(cut["back"], cut["head"], cut["left"]) < 0.3
        # The same scan stored backwards is cut at the same side of the patient.
        turned = ends_of((ball & tilted)[:, ::-1], (2, 2, 2), np.diag([1.0, -1, 1]))
        assert turned[names.index("front")] == pytest.approx(
            ends_of(ball & tilted, (2, 2, 2), np.eye(3))[names.index("front")], abs=0.15
        )

    def test_one_wave_is_a_lone_point_of_k_space_and_noise_has_none(self):
        mean = np.zeros((30, 30, 30), np.float32)
        noise = self.rng.standard_normal(mean.shape).astype(np.float32)
        wave = np.cos(2 * np.pi * (6 * np.indices(mean.shape)[0] + 4 * np.indices(mean.shape)[2]) / 30)
        assert stripes(noise, mean, self.everywhere) < 2
        assert stripes((noise + 0.5 * wave).astype(np.float32), mean, self.everywhere) > 2.5

    def test_the_spread_of_the_gain_is_that_of_the_field(self):
        mean = 1 + 0.5 * ndimage.gaussian_filter(self.rng.standard_normal((30, 30, 30)), 1.5) / 0.1
        mean = np.clip(mean, 0.3, 3)
        field = 0.25 * np.linspace(-1, 1, 30)[:, None, None] * np.ones_like(mean)
        assert gain_spread(mean, mean, self.everywhere) == pytest.approx(0, abs=1e-6)
        found = gain_spread(7 * mean * np.exp(field) - 2, mean, self.everywhere)
        assert found == pytest.approx(field.std(), rel=0.02)
        lesion = mean.copy()
        lesion[10:16, 10:16, 10:16] *= 3
        assert gain_spread(lesion, mean, self.everywhere) < 0.02

    def test_a_rim_counts_next_to_a_void_only(self):
        mean = np.zeros((30, 30, 30), np.float32)
        void, rim, both = (mean.copy() for _ in range(3))
        for image in (void, both):
            image[12:16, 12:16, 12:16] = -1.6
        for image in (rim, both):
            image[16:18, 12:16, 12:16] = 2.3
        spacing = (2.0, 2.0, 2.0)
        assert rimmed_void(void, mean, self.everywhere, spacing) == 0
        assert rimmed_void(rim, mean, self.everywhere, spacing) == 0
        assert rimmed_void(both, mean, self.everywhere, spacing) == pytest.approx(2 * 4 * 4 * 0.008, rel=0.2)
        # A ventricle next to white matter is there in the healthy mean, too.
        assert rimmed_void(both, both, self.everywhere, spacing) == 0

    def test_a_scan_without_contrast_or_foreground_has_no_signs(self):
        assert not standardised(np.ones((4, 4, 4)), np.zeros((4, 4, 4), bool)).any()
        assert np.isfinite(ends_of(np.zeros((4, 4, 4), bool), (1, 1, 1), np.eye(3))).all()
