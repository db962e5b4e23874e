"""The lesion backend: where lesions go, what they look like, and that the host stays the host."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from medgen.errors import DataError
from medgen.preprocessing.dataset import Dataset
from medgen.preprocessing.recipe import Preprocess
from medgen.seeds import numpy_rng
from medgen.synthesis.backend import FitContext
from medgen.synthesis.backends.lesion import forms as lesions
from medgen.synthesis.backends.lesion.backend import LesionBackend
from medgen.synthesis.backends.lesion.bank import LesionConfig, build_bank, conditional_style
from medgen.synthesis.filtering.filter import Filter, FilterConfig
from medgen.synthesis.sources import Sources

SHAPE = (32, 28, 24)
SETTINGS = {
    "lesion_labels": [2],
    "context": 3,
    "inpaint": {"widths": (16,), "discriminator_widths": (16,), "margin": 1},
    "inpaint_training": {"steps": 2, "batch_size": 2, "log_every": 1},
}


def scans(n: int, prefix: str, channels: int = 1) -> Dataset:
    """An organ (label 1, grey) with one dark lesion (label 2) on its left side."""
    axes = np.stack(np.meshgrid(*[np.arange(s) for s in SHAPE], indexing="ij")).astype(float)
    images, labels = [], []
    for number in range(n):
        rng = numpy_rng(5, prefix, number)
        body = (((axes.T - [16, 14, 12]) / [13, 11, 9]) ** 2).sum(-1).T < 1
        centre = np.array([10, 14, 12]) + rng.uniform(-4, 4, 3)
        lesion = rng.uniform(2, 3.5) > np.sqrt(((axes.T - centre) ** 2).sum(-1)).T
        image = np.where(body, 0.8, 0) + 0.02 * rng.standard_normal(SHAPE) * body
        image = np.where(lesion, 0.3 + 0.05 * rng.standard_normal(), image)
        images.append(np.stack([image * (1 + c) for c in range(channels)]))
        labels.append(np.where(lesion, 2, body).astype(np.uint8)[None])
    names = tuple(f"{prefix}-{number}" for number in range(n))
    foreground = torch.from_numpy(np.stack(labels)) > 0
    return Dataset(
        names,
        names,
        torch.from_numpy(np.stack(images).astype(np.float32)),
        foreground,
        torch.from_numpy(np.stack(labels)),
    )


@pytest.fixture(scope="module")
def cohort() -> Sources:
    return Sources(scans(6, "a"), replace(scans(3, "u"), labels=None), (1, 2))


@pytest.fixture(scope="module")
def context() -> FitContext:
    return FitContext(preprocess=Preprocess(shape=SHAPE, spacing=(2.0, 2.0, 2.0)), seed=0, device="cpu")


@pytest.fixture(scope="module")
def backend(cohort: Sources, context: FitContext) -> LesionBackend:
    return LesionBackend.fit(cohort, LesionConfig.model_validate(SETTINGS), context)


def test_samples_are_hosts_but_for_new_lesions_where_lesions_occur(backend: LesionBackend, cohort: Sources) -> None:
    for seed in range(6):
        scan = backend.sample(seed)
        assert scan.region is not None
        row = cohort.labelled.ids.index(scan.parents[0])
        host, truth = cohort.labelled.images[row].numpy(), cohort.labelled.labels[row, 0].numpy()
        assert np.array_equal(scan.image[:, ~scan.region], host[:, ~scan.region])
        assert np.array_equal(scan.labels[~scan.region], truth[~scan.region])
        new = (scan.labels == 2) & (truth != 2)
        assert new.sum() == sum(scan.facts["lesion_voxels"])
        # Not on the old one, in the organ, on the left side.
        assert (scan.labels[truth == 2] == 2).all()
        assert (truth[new] == 1).all()
        assert np.argwhere(new).mean(axis=0)[0] < 20
        # Darker than what was there, as real lesions are.
        assert scan.image[0][new].mean() < host[0][new].mean() - 0.2


def test_several_channels_and_unlabelled_hosts(context: FitContext) -> None:
    data = scans(4, "m", channels=2)
    focal = replace(data, labels=torch.where(data.labels == 2, 2, 0).to(torch.uint8))
    sources = Sources(focal, replace(scans(2, "v", channels=2), labels=None), (2,))
    settings = LesionConfig.model_validate({**SETTINGS, "unlabelled_hosts": "healthy"})
    backend = LesionBackend.fit(sources, settings, context)
    made = [backend.sample(seed) for seed in range(8)]
    assert made[0].image.shape == (2, *SHAPE)
    assert {scan.parents[0] for scan in made} & {"v-0", "v-1"}


def test_hosts_follow_the_labels(cohort: Sources) -> None:
    assert build_bank(cohort, LesionConfig.model_validate(SETTINGS)).host_ids == cohort.labelled.ids
    with pytest.raises(DataError, match="label 1 is no lesion label"):
        build_bank(cohort, LesionConfig.model_validate({**SETTINGS, "unlabelled_hosts": "healthy"}))
    with pytest.raises(DataError, match="label 7 is not in use"):
        build_bank(cohort, LesionConfig(lesion_labels=(7,)))
    with pytest.raises(DataError, match="no lesion of at least"):
        build_bank(cohort, LesionConfig(lesion_labels=(2,), smallest=5000))
    guessed = scans(3, "u")
    sure = torch.full_like(guessed.foregrounds, 250, dtype=torch.uint8)
    sure[1] = 100
    helped = replace(cohort, consensus=replace(guessed, confidence=sure))
    bank = build_bank(helped, LesionConfig.model_validate(SETTINGS))
    assert bank.host_ids == (*cohort.labelled.ids, "u-0", "u-2")
    assert bank.host_counts == (1,) * 8
    none = LesionConfig.model_validate({**SETTINGS, "unlabelled_hosts": "none"})
    assert build_bank(helped, none).host_ids == cohort.labelled.ids


def test_filter_judges_what_was_drawn(backend: LesionBackend, cohort: Sources) -> None:
    config = FilterConfig.model_validate({"auditor": {"steps": 2, "channels": [8, 16]}, "agreement_percentile": 0})
    judge = Filter.fit(cohort, config, seed=0, device="cpu")
    scan = backend.sample(0)
    verdict = judge.check(scan, derived=True)
    assert "identity" not in verdict.scores
    assert "volume_1" not in verdict.scores
    assert verdict.scores["volume_2"] == sum(scan.facts["lesion_voxels"])
    assert verdict.scores["visible"] > 0.2
    row = cohort.labelled.ids.index(scan.parents[0])
    invisible = replace(scan, image=cohort.labelled.images[row].numpy())
    assert "visible" in judge.check(invisible, derived=True).reasons


def test_lesions_are_found_as_components() -> None:
    data = scans(3, "f")
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


def test_styles_follow_the_gaussian_and_the_surroundings() -> None:
    rng = numpy_rng(0, "style")
    level = rng.normal(0.6, 0.1, 400)
    # An intensity of 0.2 whatever is around: the difference is 0.2 minus the surroundings.
    styles = np.stack([0.2 - level + 0.01 * rng.standard_normal(400), level], axis=1).astype(np.float32)
    for around in (0.5, 0.8):
        expected = conditional_style(styles, np.array([around], dtype=np.float32), 0.0, rng)
        assert expected[0] == pytest.approx(0.2 - around, abs=0.01)
    draws = [conditional_style(styles, np.array([0.6], dtype=np.float32), 1.0, rng)[0] for _ in range(300)]
    assert np.std(draws) == pytest.approx(0.01, rel=0.2)
    alone = conditional_style(styles[:1], np.array([0.9], dtype=np.float32), 0.0, rng)
    assert alone[0] == pytest.approx(styles[0, 0], abs=1e-4)
