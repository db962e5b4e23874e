"""Everything that windows, pools or halves takes every side from 8 to 128 voxels: no cohort is refused for its size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from medgen.anomaly.scores.descriptors import describe
from medgen.anomaly.scores.ssim import structural_dissimilarity
from medgen.metrics.msssim import pairwise_ms_ssim
from medgen.segmentation.segmenter import SegmenterConfig
from medgen.synthesis.filtering.copies import Gallery

SIDES = range(8, 129)


def likeness(scans: Tensor) -> Tensor:
    return Gallery(scans, ["a", "b"], ["a", "b"]).correlations(scans[0])


def dissimilarity(scans: Tensor) -> np.ndarray:
    return structural_dissimilarity(scans[0, 0].numpy(), scans[1, 0].numpy())


def descriptors(scans: Tensor) -> np.ndarray:
    return describe(scans[0, 0].numpy(), np.ones(tuple(scans.shape[2:]), bool))


def ms_ssim(scans: Tensor) -> np.ndarray:
    return pairwise_ms_ssim(scans, 1.0)


def segmenter(scans: Tensor) -> Tensor:
    torch.manual_seed(0)
    with torch.no_grad():
        scores = SegmenterConfig(channels=(8, 8, 8, 8)).network(1, 2)(scans)
    assert scores.shape[2:] == scans.shape[2:]
    return scores


@pytest.mark.parametrize("measure", [likeness, dissimilarity, descriptors, ms_ssim, segmenter])
def test_every_side(measure: Callable[[Tensor], Tensor | np.ndarray]) -> None:
    generator = torch.Generator().manual_seed(0)
    for side in SIDES:
        for shape in ((side, 9, 8), (8, side, 11)):
            values = measure(torch.rand((2, 1, *shape), generator=generator))
            assert np.isfinite(np.asarray(values)).all(), shape
