"""Filling of holes: against closed forms, and what a trained model must keep."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medgen.models.catalogue import build
from medgen.models.families.inpaint import Inpaint, dilate, fill_holes, measure_style
from medgen.preprocessing.dataset import Batch

SHAPE = (12, 16, 10)


def model(**changes):
    return build({"family": "inpaint", "shape": SHAPE, **Inpaint.tiny, **changes}, seed=0).eval()


def scan(batch=2, channels=1):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand((batch, channels, *SHAPE), generator=generator)
    hole = torch.zeros(batch, 1, *SHAPE)
    hole[:, :, 3:8, 4:10, 2:7] = 1
    labels = torch.zeros(batch, 1, *SHAPE, dtype=torch.long)
    labels[:, :, 4:7, 5:9, 3:6] = 1
    return image, hole, labels


def test_filling_continues_constants_and_keeps_what_is_known():
    image, hole, _ = scan()
    filled = fill_holes(torch.full_like(image, 0.7), 1 - hole)
    torch.testing.assert_close(filled, torch.full_like(image, 0.7))
    filled = fill_holes(image, 1 - hole)
    outside = hole == 0
    assert torch.equal(filled[outside], image[outside])
    assert filled[hole > 0].min() >= image[outside].min()
    assert filled[hole > 0].max() <= image[outside].max()
    # What was in the hole is not looked at.
    assert torch.equal(fill_holes(image + 5 * hole, 1 - hole), filled)
    assert (fill_holes(image, torch.zeros_like(hole)) == 0).all()


def test_style_is_the_mean_and_spread_of_the_difference():
    image, hole, labels = scan(channels=2)
    style = measure_style(image, hole, labels, n_labels=2)
    assert style.shape == (2, 3, 4)
    difference = (image - fill_holes(image, 1 - hole)).numpy()
    for part, inside in ((0, (hole > 0) & (labels == 0)), (1, (hole > 0) & (labels == 1))):
        for channel in range(2):
            values = difference[1, channel][inside[1, 0].numpy()]
            assert style[1, part, channel].item() == pytest.approx(values.mean(), abs=1e-5)
            assert style[1, part, 2 + channel].item() == pytest.approx(values.std(), abs=1e-3)
    assert (style[:, 2] == 0).all()


def test_dilation_is_a_cube():
    mask = torch.zeros(1, 1, 9, 9, 9)
    mask[..., 4, 4, 4] = 1
    grown = dilate(mask, 2)
    assert grown.sum() == 125
    assert torch.equal(dilate(mask, 0), mask)


def test_only_the_hole_changes_and_the_style_sets_the_contrast():
    network, (image, hole, labels) = model(), scan()
    style = torch.zeros(2, 3, 2)
    plain = network.inpaint(image, hole, labels, style)
    style[:, 1, 0] = 0.5
    brighter = network.inpaint(image, hole, labels, style)
    assert torch.equal(plain[hole == 0], image[hole == 0])
    lesion = labels > 0
    assert (brighter - plain)[lesion].mean().item() == pytest.approx(0.5, abs=0.2)
    seeds = [torch.Generator().manual_seed(seed) for seed in (1, 1, 2)]
    first, again, other = (network.inpaint(image, hole, labels, style, seed) for seed in seeds)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_training_holes_are_lesions_with_a_margin_or_random_ones_in_the_foreground():
    network = model(margin=1, healthy=0.0)
    _, _, labels = scan()
    labels[1] = 0
    foreground = torch.zeros(2, 1, *SHAPE)
    foreground[..., 2:, :, :] = 1
    torch.manual_seed(0)
    hole = network._training_hole(foreground, labels)
    assert torch.equal(hole[:1], dilate((labels[:1] > 0).float(), 1) * foreground[:1])
    assert 0 < hole[1].mean() < 0.5
    assert (hole[:, :, :2] == 0).all()


def test_discriminator_looks_at_the_hole_only():
    network, (image, hole, labels) = model(), scan()
    near = network._patches(hole)
    assert near.shape == (2, 1, 3, 4, 3)
    expected = hole[0, 0].numpy()
    padded = np.pad(expected, ((0, 0), (0, 0), (1, 1)), mode="edge").reshape(3, 4, 4, 4, 3, 4).max(axis=(1, 3, 5))
    assert np.array_equal(near[0, 0].numpy(), padded > 0)
    terms = network.loss("discriminator", Batch(image, torch.ones_like(hole), labels))
    assert terms["loss"].item() == pytest.approx(1.0, abs=0.5)
