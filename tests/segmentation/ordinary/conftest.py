"""Made-up scans for the ordinary arms."""

from __future__ import annotations

import pytest
import torch

from medgen.seeds import torch_rng
from medgen.segmentation.ordinary import Setting
from medgen.segmentation.recipe import LabelledBatch
from medgen.segmentation.segmenter import SegmenterConfig
from tests.builders.labelled_scans import SHAPE, blobs

TINY = SegmenterConfig(channels=(4, 8), steps=6, batch_size=2, precision="32")


@pytest.fixture
def setting() -> Setting:
    return Setting(blobs(4, 0, "a"), blobs(3, 1, "u", labelled=False), (1, 4), TINY, device="cpu")


@pytest.fixture
def batch() -> LabelledBatch:
    """Four scans of random intensities, classes 0 to 2 and trust."""
    generator = torch_rng(0, "batch")
    target = torch.randint(0, 3, (4, 1, *SHAPE), generator=generator).to(torch.uint8)
    weight = torch.rand(4, 1, *SHAPE, generator=generator)
    return LabelledBatch(torch.rand(4, 2, *SHAPE, generator=generator), target, weight)
