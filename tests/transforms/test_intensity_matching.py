from __future__ import annotations

import pytest
import torch

from medgen.transforms.fields import warp_cubic, warp_labels
from medgen.transforms.intensity_matching import restore_contrast


def sheets():
    """Dark sheets, one voxel thin, in a bright block: (image, labels), 1 is the sheet and 2 the block."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(1, 1, 20, 20, 20, dtype=torch.long)
    labels[..., 2:18, 2:18, 2:18] = 2
    labels[..., 6, 2:18, 2:18] = labels[..., 13, 2:18, 2:18] = 1
    values = torch.tensor([0.0, 0.1, 0.8])
    return values[labels] + 0.02 * torch.randn(labels.shape, generator=generator) * (labels > 0), labels


def contrast(image, labels, value):
    chosen = image[labels == value]
    return float(chosen.mean()), float(chosen.std())


def test_a_thin_label_has_its_own_intensity_again_after_it_was_moved():
    image, labels = sheets()
    displacement = torch.full((1, 3, 20, 20, 20), 0.4)
    moved, after = warp_cubic(image, displacement), warp_labels(labels, displacement)
    # Interpolation alone makes the sheet much brighter than it is.
    assert contrast(moved, after, 1)[0] > 2 * contrast(image, labels, 1)[0]
    restored = restore_contrast(moved, after, image, labels)
    for value in (1, 2):
        mean, spread = contrast(restored, after, value)
        expected = contrast(image, labels, value)
        assert mean == pytest.approx(expected[0], abs=1e-5)
        # A spread that would have to change more than twofold is no loss of interpolation.
        assert spread <= contrast(moved, after, value)[1] * 2 + 1e-6
    assert torch.equal(restored[after == 0], moved[after == 0])


def test_what_was_not_moved_and_what_is_too_small_to_judge_stay_as_they_are():
    image, labels = sheets()
    assert torch.allclose(restore_contrast(image, labels, image, labels), image, atol=1e-6)
    few = labels.clone()
    few[few == 1] = 2
    few[..., 9, 9, :5] = 1
    assert torch.equal(restore_contrast(image * 2, few, image, few)[few == 1], (image * 2)[few == 1])
