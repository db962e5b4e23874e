"""The prior of codes: causal, exact by enumeration, and samples that follow its own probabilities."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from medgen.models.networks.code_prior import CausalBlock, CodePrior, drawn

GRID = (2, 2, 1)


def prior(size: int = 3, depth: int = 2, grid: tuple[int, int, int] = GRID) -> CodePrior:
    """With weights that all matter, fitted to a few grids."""
    torch.manual_seed(0)
    model = CodePrior(grid, size, 4, 16, depth, 2, dropout=0.5)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    generator = torch.Generator().manual_seed(1)
    model.start(torch.randint(size, (12, *grid), generator=generator), torch.randn(size, 4, generator=generator))
    return model.eval()


def every_grid(size: int = 3) -> Tensor:
    return torch.tensor(list(itertools.product(range(size), repeat=4))).view(-1, *GRID)


def non_causal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(query, key, value)


@torch.no_grad()
def test_probabilities_of_all_grids_sum_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model, grids = prior(), every_grid()
    assert float(torch.exp(-model.nll(grids).flatten(1).sum(1)).sum()) == pytest.approx(1, abs=1e-5)
    # A mutant that sees what it has to predict is no distribution over grids.
    monkeypatch.setattr(CausalBlock, "attend", staticmethod(non_causal))
    assert abs(float(torch.exp(-model.nll(grids).flatten(1).sum(1)).sum()) - 1) > 0.01


@torch.no_grad()
def test_a_place_sees_those_before_it_and_no_others() -> None:
    model = prior(size=5, grid=(2, 3, 2))
    codes = torch.randint(5, (1, 12), generator=torch.Generator().manual_seed(2))
    before = model.logits(codes)
    for place in range(12):
        changed = codes.clone()
        changed[0, place] = (changed[0, place] + 1) % 5
        moved = (model.logits(changed) - before).abs().amax((0, 2)) > 1e-5
        assert moved.tolist() == [False] * (place + 1) + [True] * (11 - place)


@torch.no_grad()
def test_samples_with_kept_keys_are_those_of_full_passes() -> None:
    model = prior(size=5, grid=(2, 3, 2))
    uniform = torch.rand(6, 12, generator=torch.Generator().manual_seed(3))
    codes = torch.zeros(6, 12, dtype=torch.long)
    for place in range(12):
        codes[:, place] = drawn(model.logits(codes)[:, place] / 0.8, uniform[:, place], 0.9)
    assert torch.equal(model.sample(uniform, 0.8, 0.9).flatten(1), codes)


@torch.no_grad()
def test_samples_are_as_frequent_as_they_are_likely() -> None:
    model, grids = prior(size=2), every_grid(2)
    n = 6000
    found = model.sample(torch.rand(n, 4, generator=torch.Generator().manual_seed(4)))
    number = (found.flatten(1) * torch.tensor([8, 4, 2, 1])).sum(1)
    observed = torch.bincount(number, minlength=16).double()
    expected = n * torch.exp(-model.nll(grids).flatten(1).sum(1)).double()
    # Chi-square of 16 cells, but the rarest, has a mean near 15 and a standard deviation near 5.5.
    common = expected > 5
    assert float(((observed - expected).square() / expected)[common].sum()) < 40


def test_temperature_and_nucleus() -> None:
    logits = torch.log(torch.tensor([[0.1, 0.6, 0.3]])).expand(1000, -1)
    uniform = (torch.arange(1000) + 0.5) / 1000
    shares = torch.bincount(drawn(logits, uniform), minlength=3) / 1000
    torch.testing.assert_close(shares, torch.tensor([0.1, 0.6, 0.3]), atol=0.002, rtol=0)
    shares = torch.bincount(drawn(logits, uniform, top_p=0.7), minlength=3) / 1000
    torch.testing.assert_close(shares, torch.tensor([0.0, 2 / 3, 1 / 3]), atol=0.002, rtol=0)
    # Half the temperature squares the probabilities.
    shares = torch.bincount(drawn(logits / 0.5, uniform), minlength=3) / 1000
    torch.testing.assert_close(shares, torch.tensor([0.01, 0.36, 0.09]) / 0.46, atol=0.002, rtol=0)


@torch.no_grad()
def test_the_start_is_the_gaussian_prediction_beside_the_one_without() -> None:
    """Two places of one number each: the closed form of log N(r; a m, v) − log N(r; 0, u), up to a constant."""
    generator = torch.Generator().manual_seed(5)
    first = torch.randint(9, (400, 1, 1, 1), generator=generator)
    second = (first + torch.randint(-3, 4, first.shape, generator=generator)).clamp(0, 8)
    vectors = torch.arange(9.0)[:, None]
    model = CodePrior((2, 1, 1), 9, 1, 16, 1, 2, dropout=0.0).eval()
    model.start(torch.cat([first, second], dim=1), vectors)
    book = ((vectors - vectors.mean(0)) / vectors.std(0, correction=0))[:, 0].double()
    a, b = book[first.flatten()], book[second.flatten()]
    a, mean = a - a.mean(), b.mean()
    b = b - mean
    slope = (a * b).sum() / a.square().sum()
    v, u = (b - slope * a).square().sum() / 398, b.square().sum() / 399
    for code in (0, 4, 8):
        m = book[code] - book[first.flatten()].mean()
        gained = torch.distributions.Normal(slope * m, v.sqrt()).log_prob(book - mean)
        gained -= torch.distributions.Normal(0.0, u.sqrt()).log_prob(book - mean)
        expected = (gained + torch.log(torch.bincount(second.flatten(), minlength=9) + 1.0)).log_softmax(0)
        found = model.logits(torch.tensor([[code, 0]]))[0, 1].log_softmax(0)
        torch.testing.assert_close(found.double(), expected, atol=0.05, rtol=0.01)


def test_the_start_needs_no_second_scan() -> None:
    model = CodePrior(GRID, 4, 2, 16, 1, 2, dropout=0.0)
    model.start(torch.zeros(1, *GRID, dtype=torch.long), torch.randn(4, 2))
    assert torch.isfinite(model.nll(torch.randint(4, (2, *GRID)))).all()
