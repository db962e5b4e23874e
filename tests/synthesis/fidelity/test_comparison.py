from __future__ import annotations

import numpy as np
import pytest
import torch

from medgen.metrics.halves import Measure
from medgen.segmentation.segmenter import Segmenter, SegmenterConfig, train_segmenter
from medgen.synthesis.backend import Synthetic
from medgen.synthesis.fidelity.comparison import (
    Described,
    Fidelity,
    FidelityConfig,
    Scans,
    auditor_features,
    compare,
    describe,
)
from medgen.synthesis.filtering.filter import FilterResult
from medgen.synthesis.filtering.pool import Candidate
from medgen.transforms.augmentation import AugmentConfig
from tests.builders.labelled_scans import SHAPE, blobs

CONFIG = FidelityConfig(splits=40, similar=10)


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    config = SegmenterConfig(channels=(4, 8), steps=5, batch_size=2)
    return train_segmenter(blobs(4, 9, "z"), config, 0, labels=(1, 4), augmentation=AugmentConfig(), device="cpu")


def described(scans: Scans, segmenter: Segmenter) -> Described:
    return describe(
        scans,
        auditor_features([segmenter]),
        CONFIG,
        labels=(1, 4),
        spacing=(2, 2, 2),
        data_range=1.5,
        seed=0,
    )


def sampled(images: torch.Tensor, labels: torch.Tensor) -> Scans:
    candidates = [
        Candidate(
            f"syn-{row:04d}", Synthetic(image.numpy(), mask.numpy(), "b", row), FilterResult(True, {}, {}, ""), "b", row
        )
        for row, (image, mask) in enumerate(zip(images, labels, strict=True))
    ]
    return Scans.synthetic("b", candidates)


@pytest.fixture(scope="module")
def real(segmenter: Segmenter) -> Described:
    return described(Scans.real("training", blobs(10, 0, "a"), blobs(12, 1, "u", labelled=False)), segmenter)


def named(item: Fidelity) -> dict[str, Measure]:
    return {measure.name: measure for measure in item.measures}


def test_scans_of_the_same_kind_pass(real: Described, segmenter: Segmenter) -> None:
    more = blobs(20, 5, "s")
    assert more.labels is not None
    item = compare(real, described(sampled(more.images, more.labels[:, 0]), segmenter), CONFIG, 0)
    found = named(item)
    assert (item.scans, item.real_scans, item.subjects, item.labelled) == (20, 22, 22, 10)
    assert list(found) == ["kid", "mmd", "density", "coverage", "ms_ssim", "volume_1", "volume_4"]
    assert all(found[name].met for name in ("kid", "mmd", "coverage", "ms_ssim"))
    volumes = (more.labels == 4).flatten(1).sum(1).double() * 8
    row = next(row for row in item.statistics if (row.label, row.statistic) == (4, "volume_mm3"))
    assert row.synthetic[0] == pytest.approx(float(volumes.mean()))
    plain = item.to_plain()
    assert plain["measures"]["kid"]["met"] is True
    assert len(plain["statistics"]) == 24


def test_a_collapsed_generator_is_caught(real: Described, segmenter: Segmenter) -> None:
    one = blobs(1, 5, "s")
    assert one.labels is not None
    noise = 0.002 * torch.randn(20, 1, *SHAPE, generator=torch.Generator().manual_seed(0))
    scans = sampled(one.images + noise, one.labels[:, 0].expand(20, *SHAPE))
    found = named(compare(real, described(scans, segmenter), CONFIG, 0))
    assert found["coverage"].met is False
    assert found["ms_ssim"].met is False
    assert found["ms_ssim"].synthetic.estimate > 0.95
    assert found["ms_ssim"].ratio.estimate > 1.1


def test_a_generator_of_noise_is_caught(real: Described, segmenter: Segmenter) -> None:
    noise = torch.rand(20, 1, *SHAPE, generator=torch.Generator().manual_seed(0))
    item = compare(real, described(sampled(noise, (noise[:, 0] > 0.5).to(torch.uint8)), segmenter), CONFIG, 0)
    found = named(item)
    assert found["density"].synthetic.estimate < 0.05
    assert found["kid"].met is False
    assert found["volume_4"].synthetic.estimate > 0
    assert any(row.unlike for row in item.statistics if row.label == 1)


def test_real_scans_of_one_person_count_once_for_diversity(segmenter: Segmenter) -> None:
    data = blobs(8, 0, "a")
    twice = Scans("training", data.ids, tuple(f"s{row // 2}" for row in range(8)), data.images, torch.zeros(0, *SHAPE))
    found = described(twice, segmenter)
    assert sorted(found.similarity_groups) == ["s0", "s1", "s2", "s3"]
    assert found.labelled == 0
    assert not np.isnan(found.features).any()


def test_equal_seeds_give_equal_numbers(real: Described, segmenter: Segmenter) -> None:
    again = described(Scans.real("training", blobs(10, 0, "a"), blobs(12, 1, "u", labelled=False)), segmenter)
    assert np.array_equal(again.features, real.features)
    assert np.array_equal(again.similarity, real.similarity)
