"""Scans that look like none of the cohort are found by their features."""

from __future__ import annotations

import numpy as np
import torch

from medgen.segmentation.segmenter import SegmenterConfig, train_segmenter
from medgen.synthesis.filtering.looks import Looks
from medgen.transforms.augmentation import blur
from tests.builders.labelled_scans import blobs


def test_blurred_and_noisy_scans_are_far_and_new_subjects_near() -> None:
    real, fresh = blobs(12, 0, "a"), blobs(8, 7, "n")
    config = SegmenterConfig(channels=(8, 16), steps=20, batch_size=2, lr=0.02)
    segmenter = train_segmenter(real, config, 0, labels=(1, 4), device="cpu")
    looks = Looks.fit([segmenter], real.images, real.subjects, 95)
    new = np.array([looks.distance(image) for image in fresh.images])
    smooth = blur(fresh.images, torch.full((8,), 1.5))
    noisy = fresh.images + 0.3 * torch.randn(fresh.images.shape, generator=torch.Generator().manual_seed(0))
    assert (new <= looks.bound * 1.2).mean() >= 0.5
    for spoilt in (smooth, noisy):
        far = np.array([looks.distance(image) for image in spoilt])
        assert (far > looks.bound).all()
        assert far.min() > 1.5 * np.median(new)
    # A training scan is at distance 0 from itself; the bound is taken over other subjects only.
    assert looks.distance(real.images[3]) < 0.05
    one = tuple("same" if row < 11 else "other" for row in range(12))
    assert Looks.fit([segmenter], real.images, one, 100).bound >= looks.bound
