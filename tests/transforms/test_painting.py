"""Painted scans: repeatable, of random contrast, on the anatomy that they were given."""

import pytest
import torch

from medgen.config import parse_config
from medgen.errors import ConfigError
from medgen.transforms.painting import paint
from medgen.transforms.painting_config import PaintingConfig

STILL = {"deformation": 0.0, "bias": 0.0, "gamma": 0.0, "noise": 0.0, "spread": 0.0, "blur": (1e-3, 1e-3)}


def anatomy(n=6):
    labels = torch.zeros(n, 1, 12, 12, 12, dtype=torch.uint8)
    labels[:, :, 3:6, 3:9, 3:9] = 1
    labels[:, :, 6:9, 3:9, 3:9] = 2
    seen = torch.zeros_like(labels, dtype=torch.bool)
    seen[:, :, 1:11, 1:11, 1:11] = True
    return labels, seen


def painted(seed=0, **settings):
    labels, seen = anatomy()
    return paint(labels, seen, PaintingConfig(**settings), torch.Generator().manual_seed(seed))


def test_equal_generators_paint_equal_scans():
    first, again, other = painted(1), painted(1), painted(2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_without_deformation_and_noise_labels_are_flat_regions_of_random_intensity():
    image, labels, seen = painted(**STILL)
    given, shown = anatomy()
    assert torch.equal(labels, given)
    assert torch.equal(seen, shown)
    assert not image[~seen].any()
    means = torch.stack(
        [
            torch.stack([own[where == value].mean() for value in (1, 2)])
            for own, where in zip(image, labels, strict=True)
        ]
    )
    spreads = [own[where == value].std() for own, where in zip(image, labels, strict=True) for value in (1, 2)]
    assert max(spreads) < 1e-5
    # Which one is brighter is chance.
    assert 0 < int((means[:, 0] > means[:, 1]).sum()) < len(means)
    # What has no label has several intensities.
    rest = image[0][(seen & (labels == 0))[0]]
    assert len(rest.round(decimals=4).unique()) > 1


def test_deformation_moves_labels_and_keeps_them_whole():
    _, labels, seen = painted(deformation=2.0)
    given, _ = anatomy()
    assert not torch.equal(labels, given)
    assert {*labels.unique().tolist()} == {0, 1, 2}
    assert bool(seen[labels > 0].all())


@pytest.mark.parametrize("name", ["bias", "gamma", "noise", "spread"])
def test_every_setting_does_something(name):
    amount = {"bias": 0.3, "gamma": 0.4, "noise": 0.05, "spread": 0.1}[name]
    assert not torch.allclose(painted(**STILL)[0], painted(**{**STILL, name: amount})[0], atol=1e-3)


def test_intensities_are_those_of_a_prepared_scan():
    image, _, seen = painted()
    assert float(image.min()) == 0
    assert 0.5 < float(torch.quantile(image[seen], 0.99)) < 1.3


def test_a_blur_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="blur: expected two numbers above 0"):
        parse_config(PaintingConfig, {"blur": [1.0, 0.5]}, "painting")
