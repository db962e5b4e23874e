"""Adversarial codes have the mean and covariance of the codes that they are mixed from, from one scan as from many."""

from __future__ import annotations

import pytest
import torch

from medgen.models.adversarial.mixed_codes import MixedCodes


@pytest.mark.parametrize("batch", [1, 2, 6])
def test_mean_and_covariance_are_those_of_the_codes(batch: int) -> None:
    torch.manual_seed(0)
    mixed, factor = MixedCodes(3), torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.5, 0.0], [0.0, -0.3, 0.2]])
    far = torch.tensor([5.0, -3.0, 0.0])
    codes = [far + torch.randn(batch, 3) @ factor.T for _ in range(4000 // batch)]
    for z in codes:
        mixed.learn(z)
    mixed.mean.copy_(far)
    made = torch.cat([mixed(z) for z in codes])
    torch.testing.assert_close(made.mean(0), far, atol=0.06, rtol=0)
    torch.testing.assert_close(torch.cov(made.T), factor @ factor.T, atol=0.08, rtol=0.05)


def test_one_scan_gives_its_code_and_its_mirror_image() -> None:
    torch.manual_seed(0)
    mixed = MixedCodes(2)
    mixed.mean.copy_(torch.tensor([1.0, 2.0]))
    made = torch.cat([mixed(torch.tensor([[3.0, 3.0]])) for _ in range(40)])
    assert sorted({tuple(code) for code in made.round(decimals=4).tolist()}) == [(-1.0, 1.0), (3.0, 3.0)]


def test_the_mean_is_that_of_all_batches_at_first() -> None:
    mixed, codes = MixedCodes(2), torch.randn(10, 4, 2)
    for z in codes:
        mixed.learn(z)
    torch.testing.assert_close(mixed.mean, codes.mean((0, 1)))
    for _ in range(400):
        mixed.learn(torch.ones(4, 2))
    torch.testing.assert_close(mixed.mean, torch.ones(2), atol=1e-2, rtol=0)
