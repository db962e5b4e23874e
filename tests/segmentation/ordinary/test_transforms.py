"""The batch transforms against closed forms."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional

from medgen.errors import ConfigError
from medgen.seeds import torch_rng
from medgen.segmentation.ordinary.arms.carvemix import CarveMix, carve
from medgen.segmentation.ordinary.arms.cutmix import CutMix, boxes
from medgen.segmentation.ordinary.arms.mixup import MixUp
from medgen.segmentation.ordinary.arms.torchio import TorchIOChain
from medgen.segmentation.ordinary.draws import beta, partners
from medgen.segmentation.recipe import BatchTransform, LabelledBatch

TRANSFORMS = [MixUp(classes=3, alpha=1.0), CutMix(probability=1.0), CarveMix(probability=1.0)]
HAS_TORCHIO = importlib.util.find_spec("torchio") is not None
if HAS_TORCHIO:
    TRANSFORMS.append(TorchIOChain(spatial=1.0, intensity=1.0))


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda transform: type(transform).__name__)
def test_equal_generators_give_equal_batches_and_inputs_stay(transform: BatchTransform, batch: LabelledBatch) -> None:
    before = batch.image.clone(), batch.target.clone()
    torch.manual_seed(1)
    first = transform(batch, torch_rng(0))
    torch.manual_seed(2)  # the global stream plays no part
    second, other = transform(batch, torch_rng(0)), transform(batch, torch_rng(1))
    assert first.weight is not None
    assert second.weight is not None
    assert torch.equal(first.image, second.image)
    assert torch.equal(first.target, second.target)
    assert torch.equal(first.weight, second.weight)
    assert not torch.equal(first.image, other.image)
    assert torch.equal(batch.image, before[0])
    assert torch.equal(batch.target, before[1])
    assert first.image.shape == batch.image.shape
    assert first.image.min() >= batch.image.min()
    assert first.image.max() <= batch.image.max()
    assert first.weight.min() >= 0
    assert first.weight.max() <= 1


def test_everyone_has_another_partner_and_is_one() -> None:
    for count in (2, 3, 8):
        other = partners(count, torch_rng(count))
        assert sorted(other.tolist()) == list(range(count))
        assert all(a != b for a, b in enumerate(other.tolist()))
    assert partners(1, torch_rng(0)).tolist() == [0]


def test_draws_are_beta_distributed() -> None:
    draws = beta(0.2, 0.2, 4000, torch_rng(0)).numpy()
    assert stats.kstest(draws, stats.beta(0.2, 0.2).cdf).pvalue > 0.01


def test_mixup_mixes_targets_and_weights_like_images(batch: LabelledBatch) -> None:
    # The first channel says which scan it is: it shows partner and share.
    image = batch.image.clone()
    image[:, 0] = 10.0 ** torch.arange(4)[:, None, None, None]
    mixed = MixUp(classes=3, alpha=1.0)(LabelledBatch(image, batch.target, batch.weight), torch_rng(3))
    truth = functional.one_hot(batch.target[:, 0].long(), 3).movedim(-1, 1).float()
    assert batch.weight is not None
    assert mixed.weight is not None
    found = set()
    for row in range(4):
        value = float(mixed.image[row, 0, 0, 0, 0])
        fits = []
        for other in set(range(4)) - {row}:
            share = (value - 10.0**other) / (10.0**row - 10.0**other)
            expected = share * image[row, 1] + (1 - share) * image[other, 1]
            if 0 <= share <= 1 and torch.allclose(mixed.image[row, 1], expected, atol=1e-4):
                fits.append((other, share))
        ((other, share),) = fits
        found.add(other)
        assert torch.allclose(mixed.target[row], share * truth[row] + (1 - share) * truth[other], atol=1e-4)
        assert torch.allclose(
            mixed.weight[row], share * batch.weight[row] + (1 - share) * batch.weight[other], atol=1e-4
        )
    assert found == {0, 1, 2, 3}
    assert torch.allclose(mixed.target.sum(1), torch.ones(4, *batch.image.shape[2:]), atol=1e-5)


def test_boxes_have_the_share_that_was_drawn() -> None:
    shape = torch.Size((40, 50, 60))
    share = torch.tensor([0.0, 0.1, 0.5, 1.0])
    inside = boxes(shape, torch.full((4, 3), 0.5), share.pow(1 / 3))
    # Each face is off by half a voxel at most.
    assert torch.allclose(inside.float().mean((1, 2, 3, 4)), share, atol=0.03)
    corner = boxes(shape, torch.zeros(1, 3), torch.tensor([0.5]))
    assert float(corner.float().mean()) == pytest.approx(1 / 64, abs=2e-3)


@pytest.mark.parametrize("transform", [CutMix(probability=1.0), CarveMix(probability=1.0)])
def test_what_is_pasted_is_pasted_alike(transform: BatchTransform, batch: LabelledBatch) -> None:
    # Image, label and weight all say which scan and voxel they are from.
    voxel = torch.arange(batch.target[0].numel()).reshape(batch.target[0].shape) / 10000
    image = (torch.arange(4)[:, None, None, None, None] + voxel).float()
    target = torch.zeros_like(batch.target)
    for row in range(4):
        target[row, 0, 5:9, 6:12, 4:8] = row + 1
    weight = image / 4
    result = transform(LabelledBatch(image, target, weight), torch_rng(0))
    source = result.image.floor().long()
    assert torch.allclose(result.image - source, voxel.expand_as(image), atol=1e-4)
    assert torch.equal(target.gather(0, source), result.target)
    assert result.weight is not None
    assert torch.equal(result.weight, result.image / 4)
    assert (source != torch.arange(4)[:, None, None, None, None]).flatten(1).any(1).all()


def test_chance_zero_pastes_nothing(batch: LabelledBatch) -> None:
    for transform in (CutMix(probability=0.0), CarveMix(probability=0.0)):
        assert torch.equal(transform(batch, torch_rng(0)).image, batch.image)


def test_a_carved_ball_is_a_ball_of_the_radius_asked_for() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(31.0) - 15] * 3, indexing="ij"))
    radius = np.sqrt((grid**2).sum(0))
    ball = radius <= 8
    for level, expected in ((0.0, 8.0), (0.5, 12.0), (1.0, 16.0), (-1.0, 4.0)):
        carved = carve(ball, level, (1.0, 1.0, 1.0))
        assert not (carved & (radius > expected + 1)).any()
        assert not (~carved & (radius < expected - 1)).any()
    # Along an axis of double spacing the same distance is half as many voxels.
    stretched = carve(ball, 0.5, (2.0, 1.0, 1.0))
    assert stretched[:, 15, 15].sum() < stretched[15, :, 15].sum()


@pytest.mark.skipif(HAS_TORCHIO, reason="TorchIO is installed")
def test_a_missing_torchio_is_named() -> None:
    with pytest.raises(ConfigError, match=r"medgen\[torchio\]"):
        TorchIOChain()


@pytest.mark.skipif(not HAS_TORCHIO, reason="TorchIO is not installed")
def test_torchio_moves_labels_with_the_image() -> None:
    target = torch.zeros(2, 1, 24, 24, 24, dtype=torch.uint8)
    target[:, :, 6:18, 8:16, 7:15] = 2
    moved = TorchIOChain(spatial=1.0, intensity=0.0)(LabelledBatch(target.float(), target), torch_rng(0))
    assert not torch.equal(moved.target, target)
    assert set(moved.target.unique().tolist()) == {0, 2}
    assert ((moved.image > 1) == (moved.target[:, :1] == 2)).float().mean() > 0.99
