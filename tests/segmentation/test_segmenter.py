"""The downstream segmenter: it learns, it is deterministic, and arms see the same real scans."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from medgen.config import parse_config
from medgen.errors import ConfigError, TrainingError
from medgen.metrics.segmentation import dice
from medgen.models.losses import dice_cross_entropy
from medgen.seeds import torch_rng
from medgen.segmentation.recipe import Extra, LabelledBatch, LabelledSet, Recipe
from medgen.segmentation.segmenter import SegmenterConfig, synthetic_share, train_segmenter
from medgen.transforms.augmentation import AugmentConfig

SHAPE = (13, 16, 10)
TINY = SegmenterConfig(channels=(8, 16), steps=150, batch_size=2, lr=2e-2, precision="32")


@dataclass
class Scans:
    images: Tensor
    labels: Tensor | None


def scans(n: int, seed: int = 0, gain: float = 1.0) -> Scans:
    """Bright boxes (label 7) with a brighter core (label 3) on noise."""
    generator = torch_rng(seed, "scans")
    images = 0.1 * torch.randn(n, 1, *SHAPE, generator=generator)
    labels = torch.zeros(n, 1, *SHAPE, dtype=torch.uint8)
    corners = torch.randint(1, 4, (n, 3), generator=generator)
    for row, (i, j, k) in enumerate(corners.tolist()):
        labels[row, 0, i : i + 7, j : j + 8, k : k + 5] = 7
        labels[row, 0, i + 2 : i + 5, j + 2 : j + 5, k + 1 : k + 4] = 3
    images += (labels == 7).float() + 2 * (labels == 3).float()
    return Scans(images * gain, labels)


def test_it_learns_labels_of_any_number() -> None:
    segmenter = train_segmenter(scans(6), TINY, 0, labels=[3, 7])
    test = scans(4, seed=1, gain=500.0)  # intensity scale must not matter
    predicted = segmenter.predict(test.images)
    assert predicted.shape == (4, 1, *SHAPE)
    assert set(predicted.unique().tolist()) == {0, 3, 7}
    assert test.labels is not None
    for label in (3, 7):
        assert dice(predicted.numpy(), test.labels.numpy(), label) > 0.75
    probability = segmenter.probabilities(test.images)
    assert probability.shape == (4, 3, *SHAPE)
    assert torch.allclose(probability.sum(1), torch.ones(4, *SHAPE), atol=1e-5)
    assert segmenter.history[-1][1] < segmenter.history[0][1]


def test_equal_seeds_give_equal_segmenters() -> None:
    short = TINY.model_copy(update={"steps": 3})
    options = {"labels": [3, 7], "augmentation": AugmentConfig(), "synthetic": scans(3, seed=2)}
    first, second = (train_segmenter(scans(4), short, 1, **options) for _ in range(2))
    other = train_segmenter(scans(4), short, 2, **options)
    image = scans(1, seed=3).images
    assert torch.equal(first.probabilities(image), second.probabilities(image))
    assert not torch.equal(first.probabilities(image), other.probabilities(image))


def test_training_leaves_the_global_stream_alone() -> None:
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    train_segmenter(scans(2), TINY.model_copy(update={"steps": 1}), 0, labels=[3])
    assert torch.equal(torch.rand(3), expected)


def test_probability_zero_is_no_mixing() -> None:
    short = TINY.model_copy(update={"steps": 4})
    image = scans(1, seed=3).images
    plain = train_segmenter(scans(4), short, 0, labels=[3, 7])
    none = train_segmenter(scans(4), short, 0, labels=[3, 7], synthetic=scans(3, seed=2), p_synthetic=0.0)
    some = train_segmenter(scans(4), short, 0, labels=[3, 7], synthetic=scans(3, seed=2), p_synthetic=1.0)
    assert torch.equal(plain.probabilities(image), none.probabilities(image))
    assert not torch.equal(plain.probabilities(image), some.probabilities(image))


def test_mixing_ends_before_training_does() -> None:
    shares = [synthetic_share(step / 100) for step in range(100)]
    assert shares[:75] == [1.0] * 75
    assert all(a > b for a, b in itertools.pairwise(shares[75:]))
    assert synthetic_share(1.0) == 0


def test_loss_of_a_perfect_answer_is_zero_and_of_a_uniform_one_is_known() -> None:
    target = torch.randint(0, 3, (2, 4, 5, 6), generator=torch_rng(0))
    certain = 50.0 * functional.one_hot(target, 3).movedim(-1, 1).float()
    assert float(dice_cross_entropy(certain, target)) == pytest.approx(0, abs=1e-4)
    uniform = torch.zeros(2, 3, 4, 5, 6)
    n, counts = target.numel(), [(target == label).sum().item() for label in (1, 2)]
    soft = sum(2 * (c / 3) / (n / 3 + c) for c in counts) / 2
    expected = torch.log(torch.tensor(3.0)).item() + 1 - soft
    assert float(dice_cross_entropy(uniform, target)) == pytest.approx(expected, abs=1e-4)


def test_soft_targets_generalise_indices_and_are_best_met_exactly() -> None:
    generator = torch_rng(1)
    scores = torch.randn(2, 3, 4, 5, 6, generator=generator)
    target = torch.randint(0, 3, (2, 4, 5, 6), generator=generator)
    hard = functional.one_hot(target, 3).movedim(-1, 1).float()
    assert float(dice_cross_entropy(scores, hard)) == pytest.approx(float(dice_cross_entropy(scores, target)), abs=1e-5)
    # λ on two classes: cross-entropy is at its entropy and the Dice term at 0 only where the answer is λ.
    share = torch.rand(2, 1, 4, 5, 6, generator=generator).clamp(0.05, 0.95)
    soft = torch.cat([1 - share, share], dim=1)
    entropy = float(-(soft * soft.log()).sum(1).mean())
    logits = soft.log()
    assert float(dice_cross_entropy(logits, soft)) == pytest.approx(entropy, abs=1e-4)
    for sharper in (0.5, 2.0):
        assert float(dice_cross_entropy(sharper * logits, soft)) > entropy + 1e-3


def test_weights_decide_which_voxels_count() -> None:
    generator = torch_rng(2)
    scores = torch.randn(2, 3, 4, 4, 6, generator=generator)
    target = torch.randint(0, 3, (2, 4, 4, 6), generator=generator)
    weight = torch.zeros(2, 1, 4, 4, 6)
    weight[..., :3] = 1
    part = dice_cross_entropy(scores[..., :3], target[..., :3])
    assert float(dice_cross_entropy(scores, target, weight)) == pytest.approx(float(part), abs=1e-5)
    ones = dice_cross_entropy(scores, target, torch.ones_like(weight))
    assert float(ones) == pytest.approx(float(dice_cross_entropy(scores, target)), abs=1e-5)


def test_a_recipe_of_an_augmentation_is_that_augmentation() -> None:
    short = TINY.model_copy(update={"steps": 4})
    image = scans(1, seed=3).images
    options = {"labels": [3, 7], "synthetic": scans(3, seed=2)}
    plain = train_segmenter(scans(4), short, 0, augmentation=AugmentConfig(), **options)
    same = train_segmenter(scans(4), short, 0, recipe=Recipe(AugmentConfig()), **options)
    assert torch.equal(plain.probabilities(image), same.probabilities(image))
    with pytest.raises(TrainingError, match="found both"):
        train_segmenter(scans(4), short, 0, labels=[3], augmentation=AugmentConfig(), recipe=Recipe())


def test_further_scans_come_with_their_probability_and_confidence() -> None:
    seen: list[LabelledBatch] = []

    def record(batch: LabelledBatch, generator: torch.Generator) -> LabelledBatch:
        seen.append(batch)
        return batch

    steps, real, other = 60, scans(4), scans(3, seed=2)
    assert other.labels is not None
    doubt = torch.where(other.labels > 0, 51, 255).to(torch.uint8)
    pool = LabelledSet(other.images + 100, other.labels, doubt)
    config = TINY.model_copy(update={"steps": steps, "batch_size": 4, "channels": (2, 4)})
    plan = Recipe(AugmentConfig(intensity=0), (record,), Extra(pool, 0.5))
    train_segmenter(real, config, 0, labels=[3, 7], recipe=plan)
    further = torch.stack([batch.image.amax((1, 2, 3, 4)) > 50 for batch in seen]).float()
    assert float(further[:45].mean()) == pytest.approx(0.5, abs=0.12)
    assert float(further[57:].mean()) < 0.2
    for batch, chosen in zip(seen, further, strict=True):
        if bool(chosen.any()):
            assert batch.weight is not None
            weight = batch.weight[chosen.bool()]
            inside = batch.target[chosen.bool()] > 0
            # Doubt moves with the labels; what comes from outside is trusted, and so are real scans.
            assert torch.allclose(weight[inside], torch.tensor(0.2), atol=1e-6)
            assert (weight[~inside] == 1).all()
            assert (batch.weight[~chosen.bool()] == 1).all()
    # Further scans leave the real ones as they were.
    alone: list[LabelledBatch] = []
    plan = Recipe(AugmentConfig(intensity=0), (lambda batch, _: (alone.append(batch), batch)[1],))
    train_segmenter(real, config.model_copy(update={"steps": 3}), 0, labels=[3, 7], recipe=plan)
    for mixed, only, chosen in zip(seen[:3], alone, further[:3], strict=True):
        kept = ~chosen.bool()
        assert torch.equal(mixed.image[kept], only.image[kept])


def test_any_shape_goes_through_a_deep_network() -> None:
    network = SegmenterConfig(channels=(4, 4, 8, 8)).network(in_channels=2, n_classes=3)
    assert network(torch.rand(1, 2, 9, 15, 11)).shape == (1, 3, 9, 15, 11)


def test_bad_input_is_refused_by_name() -> None:
    with pytest.raises(TrainingError, match="real scans with labels"):
        train_segmenter(Scans(torch.rand(2, 1, *SHAPE), None), TINY, 0, labels=[1])
    with pytest.raises(TrainingError, match="without 0"):
        train_segmenter(scans(2), TINY, 0, labels=[0, 1])
    small = Scans(torch.rand(1, 1, 8, 8, 8), torch.zeros(1, 1, 8, 8, 8, dtype=torch.uint8))
    with pytest.raises(TrainingError, match="one grid"):
        train_segmenter(scans(2), TINY, 0, labels=[3], synthetic=small)
    with pytest.raises(TrainingError, match=r"expected a probability of further scans in \[0, 1\]"):
        Recipe(extra=Extra(LabelledSet(small.images, torch.zeros(1, 1, 8, 8, 8)), 1.5))
    with pytest.raises(ConfigError, match="at least two positive widths"):
        parse_config(SegmenterConfig, {"channels": [16]}, source="test")


def test_features_are_channel_statistics_of_the_convolutions() -> None:
    config = SegmenterConfig(channels=(4, 8), steps=2, batch_size=2)
    images = torch.randn(5, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    data = Scans(images, (images > 0).to(torch.uint8))
    segmenter = train_segmenter(data, config, 0, labels=(1,), device="cpu")
    features = segmenter.features(images, batch=2)
    # Two levels: one convolution down, one at the bottom, one up with a channel per class.
    assert features.shape == (5, 2 * (4 + 8 + 2))
    first = segmenter.network.body.model[0].conv
    centred = (images - images.mean((2, 3, 4), keepdim=True)) / images.std((2, 3, 4), keepdim=True)
    output = first(centred).detach()
    assert torch.allclose(features[:, :4], output.mean((2, 3, 4)), atol=1e-5)
    assert torch.allclose(features[:, 4:8], output.flatten(2).std(dim=2, correction=0), atol=1e-5)
    assert torch.equal(features, segmenter.features(images, batch=2))
    assert not segmenter.network.body.model[0].conv._forward_hooks
    # At the segmenter's precision, maybe bfloat16. The bottom comes after the first level, which is as small.
    deepest = segmenter.deepest(images, batch=2)
    assert deepest.shape == (5, 8)
    assert torch.allclose(deepest, features[:, 8:16], atol=2e-3)
    assert not segmenter.network.body.model[0].conv._forward_hooks
