"""Every ordinary arm: found by name, trains, repeats; and the work behind the arms against closed forms."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import pytest
import torch

from medgen.errors import AuditError, ConfigError, DataError
from medgen.metrics.segmentation import dice
from medgen.preprocessing.dataset import Dataset
from medgen.seeds import torch_rng
from medgen.segmentation.ordinary import Setting, available, describe, needs_unlabelled, recipe
from medgen.segmentation.ordinary.arms.ensemble_labels import labelled_by
from medgen.segmentation.ordinary.arms.lab2im import Lab2Im
from medgen.segmentation.ordinary.multi_atlas import multi_atlas_labels, vote_weights
from medgen.segmentation.ordinary.registrations import atlas_pairs, displacements, labelled_pairs, velocities
from medgen.segmentation.segmenter import Segmenter, train_segmenter
from medgen.system.precision import precision_of
from medgen.training.trainer import device_of
from medgen.transforms.fields import expand, exponentiate, warp, warp_labels
from medgen.transforms.velocity_registration import RegistrationConfig
from tests.builders.labelled_scans import SHAPE, blobs
from tests.segmentation.ordinary.conftest import TINY

SHORT = RegistrationConfig(spacing=6, iterations=40, window=5)
ARMS = [name for name in available() if name != "torchio" or importlib.util.find_spec("torchio") is not None]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registrations of few iterations."""
    original = velocities

    def short(setting: Setting, pairs: list[tuple[int, int]]) -> torch.Tensor:
        return original(setting, pairs, RegistrationConfig(iterations=2, window=3))

    monkeypatch.setattr("medgen.segmentation.ordinary.arms.warp.velocities", short)
    monkeypatch.setattr("medgen.segmentation.ordinary.multi_atlas.velocities", short)


def test_arms_are_found_by_name() -> None:
    assert available()[:2] == ["real", "standard"]
    expected = {
        *(
            "carvemix",
            "cutmix",
            "elastic",
            "ensemble_labels",
            "lab2im",
            "mean_teacher",
            "mixup",
            "pseudo_labels",
            "real",
        ),
        *("self_training", "standard", "torchio", "warp"),
    }
    # Further ones may have been added.
    assert set(available()) >= expected
    assert {name for name in expected if needs_unlabelled(name)} == {
        "ensemble_labels",
        "mean_teacher",
        "pseudo_labels",
        "self_training",
    }
    assert all(describe(name).endswith(".") and "\n" not in describe(name) for name in expected)
    with pytest.raises(ConfigError, match=r"expected one of real, standard, .*carvemix"):
        describe("magic")


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_trains_and_repeats(name: str, setting: Setting, quick: None) -> None:
    image = setting.real.images[:1]
    answers = []
    for number in range(2):
        again = setting if number == 0 else replace(setting, memo={})
        plan = recipe(name, again)
        segmenter = train_segmenter(setting.real, TINY, 5, labels=setting.labels, recipe=plan, device="cpu")
        answers.append(segmenter.probabilities(image))
        assert segmenter.history[-1][0] == TINY.steps
    assert torch.equal(*answers)
    if name != "real":
        plain = train_segmenter(setting.real, TINY, 5, labels=setting.labels, device="cpu")
        assert not torch.equal(answers[0], plain.probabilities(image))


@pytest.mark.parametrize("name", [name for name in available() if needs_unlabelled(name)])
def test_arms_that_need_unlabelled_scans_say_so(name: str, setting: Setting) -> None:
    with pytest.raises(DataError, match="learns from unlabelled scans"):
        recipe(name, replace(setting, unlabelled=None, memo={}))


def test_masks_of_unlabelled_scans_cannot_be_reached(setting: Setting) -> None:
    with pytest.raises(DataError, match="must not carry masks"):
        replace(setting, unlabelled=blobs(3, 1, "u"), memo={})
    with pytest.raises(AuditError, match="both labelled and unlabelled"):
        replace(setting, unlabelled=blobs(3, 1, "a", labelled=False), memo={})
    with pytest.raises(DataError, match="other scans"):
        Setting(blobs(2, 0, "a"), None, (1, 4), TINY, memo=setting.memo)
    bare = replace(setting.real, labels=None)
    with pytest.raises(DataError, match="need training scans with masks"):
        replace(setting, real=bare, memo={})


def test_registrations_are_computed_once(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    first = velocities(setting, [(0, 1), (0, 4)], SHORT)
    monkeypatch.setattr("medgen.segmentation.ordinary.registrations.register", None)
    assert torch.equal(velocities(setting, [(0, 4), (0, 1)], SHORT), first.flip(0))


def test_pairs_are_of_different_subjects_and_alike_first(setting: Setting) -> None:
    real = replace(setting.real, subjects=("x", "x", "y", "z"))
    assert labelled_pairs(replace(setting, real=real, memo={})) == [
        *((0, 2), (0, 3), (1, 2), (1, 3), (2, 0), (2, 1), (2, 3), (3, 0), (3, 1), (3, 2)),
    ]
    assert setting.unlabelled is not None
    twin = replace(setting.unlabelled, images=setting.real.images[[2, 0, 3]] * 0.5 + 0.1)
    nearest = atlas_pairs(replace(setting, unlabelled=twin, memo={}), 1)
    assert nearest == [(2, 4), (0, 5), (3, 6)]


def test_displacements_agree_with_the_full_resolution() -> None:
    control = torch.randn(2, 3, 6, 7, 5, generator=torch_rng(0))
    full = exponentiate(expand(control, (24, 32, 16)))
    assert (displacements(control, (24, 32, 16)) - full).abs().max() < 0.1


def test_multi_atlas_labels_find_the_labels_of_known_warps() -> None:
    atlases = blobs(3, 0, "a")
    assert atlases.labels is not None
    control = 1.5 * torch.randn(3, 3, 6, 7, 5, generator=torch_rng(7))
    field = exponentiate(expand(control, SHAPE))
    moved = warp(atlases.images, field)
    truth = warp_labels(atlases.labels, field)
    targets = Dataset(("u-0", "u-1", "u-2"), ("s0", "s1", "s2"), moved, truth > 0)
    pool = multi_atlas_labels(Setting(atlases, targets, (1, 4), TINY, device="cpu"))
    for label in (1, 4):
        unmoved = sum(dice(atlases.labels[row].numpy(), truth[row].numpy(), label) for row in range(3)) / 3
        found = sum(dice(pool.labels[row].numpy(), truth[row].numpy(), label) for row in range(3)) / 3
        assert found > max(unmoved, 0.85)
    assert pool.confidence is not None
    wrong = pool.labels != truth
    assert pool.confidence[wrong].float().mean() < pool.confidence[~wrong].float().mean()


def test_the_atlas_that_fits_gets_the_votes_and_twins_share_one() -> None:
    generator = torch_rng(0)
    fixed = torch.rand(1, 1, 8, 8, 8, generator=generator)
    bad, other = (torch.rand(1, 1, 8, 8, 8, generator=generator) for _ in range(2))
    weights = vote_weights(torch.cat([fixed, bad]), fixed)
    assert torch.allclose(weights.sum(0), torch.ones(1, 8, 8, 8))
    # M = diag(0, d²) and α = d² / 20: the weights are as 1 / 0.05 to 1 / 1.05.
    assert torch.allclose(weights[0], torch.tensor(1.05 / 1.10), atol=1e-4)
    twins = vote_weights(torch.cat([bad, bad, other]), fixed).mean((1, 2, 3, 4))
    assert float(twins[0]) == pytest.approx(float(twins[1]), abs=1e-3)
    assert float(twins[2]) > 1.3 * float(twins[0])


def test_painted_scans_have_the_intensities_that_were_drawn(setting: Setting) -> None:
    painter = Lab2Im.fit(setting.real, setting.labels, clusters=2)
    # No air, no bias and no blur: what is painted can be read back.
    plain = replace(painter, bias=0.0, blurring=(1e-2, 1e-2), largest=9.0)
    rows, _, _ = plain.parameters(3, torch_rng(1))
    means = torch.tensor([0.0, 2.0, 4.0, 6.0, 6.5])[None, :, None].repeat(3, 1, 1)
    spreads = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.3])[None, :, None].repeat(3, 1, 1)
    painted = plain.paint(rows, means, spreads, torch_rng(2))
    assert set(painted.target.unique().tolist()) == {0, 1, 4}
    for number, mean, spread in ((1, 2.0, 0.1), (4, 4.0, 0.2)):
        inside = painted.image[painted.target == number]
        assert float(inside.mean()) == pytest.approx(mean, abs=0.02)
        assert float(inside.std()) == pytest.approx(spread, abs=0.02)


def test_priors_are_those_of_the_scans(setting: Setting) -> None:
    painter = Lab2Im.fit(setting.real, setting.labels)
    labels = setting.real.labels
    assert labels is not None
    for index, label in enumerate(setting.labels, start=1):
        each = torch.stack([setting.real.images[row][labels[row] == label].mean() for row in range(4)])
        assert float(painter.means[0, index, 0]) == pytest.approx(float(each.mean()), abs=1e-5)
        assert float(painter.means[1, index, 0]) == pytest.approx(float(each.std(unbiased=False)), abs=1e-5)
    assert painter.means[0, 0] == 0
    drawn = painter.draw(6, torch_rng(0))
    assert drawn.image.min() >= 0
    assert drawn.image.max() <= setting.real.images.max()
    assert (drawn.image[drawn.target == 4] > 0).any()


def test_background_clusters_are_ordered_by_brightness() -> None:
    image = torch.zeros(1, 1, *SHAPE)
    image[..., :4, :], image[..., 4:8, :], image[..., 8:, :] = 0.9, 0.1, 0.5
    whole = torch.ones(1, 1, *SHAPE, dtype=torch.bool)
    data = Dataset(("a",), ("a",), image, whole, torch.zeros(1, 1, *SHAPE, dtype=torch.uint8))
    painter = Lab2Im.fit(data, (7,), clusters=3)
    assert painter.means[0, 2:, 0].tolist() == pytest.approx([0.1, 0.5, 0.9])
    assert painter.numbers.tolist() == [0, 7, 0, 0, 0]


def test_teachers_average_and_leave_doubtful_voxels_out() -> None:
    class Fixed(torch.nn.Module):
        def __init__(self, sharpness: float) -> None:
            super().__init__()
            self.sharpness = sharpness

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            # The second class has the probability sigmoid(2 · sharpness · x).
            return torch.cat([-image, image], dim=1) * self.sharpness

    precision = precision_of("32", device_of("cpu"))
    teachers = [Segmenter(Fixed(sharpness), (0, 9), precision) for sharpness in (1.0, 3.0)]
    image = torch.linspace(-2, 2, 64).reshape(1, 1, 4, 4, 4)
    pool = labelled_by(teachers, image, 0.75)
    assert torch.equal(pool.labels, torch.where(image > 0, 9, 0).to(torch.uint8))
    second = (torch.sigmoid(2 * image) + torch.sigmoid(6 * image)) / 2
    expected = torch.maximum(second, 1 - second) >= 0.75
    assert torch.equal(pool.confidence, expected.to(torch.uint8) * 255)
