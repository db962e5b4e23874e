"""The masked-context family: no voxel sees itself, and its likelihood against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from medgen.models.catalogue import build
from medgen.models.families.context import Context
from medgen.preprocessing.dataset import Dataset
from medgen.training.trainer import TrainingConfig, fit

SHAPE = (16, 18, 12)


def context(**changes: object) -> Context:
    model = build({"family": "context", "shape": SHAPE, "widths": (16, 16), **changes}, seed=0)
    assert isinstance(model, Context)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(1))
    return model.eval()


def scans(n: int = 8, seed: int = 0) -> Dataset:
    """Waves of random phase along two axes with a little noise: a voxel follows from its neighbours."""
    generator = torch.Generator().manual_seed(seed)
    i, j, _ = torch.meshgrid(*[torch.arange(float(size)) for size in SHAPE], indexing="ij")
    phase = 2 * math.pi * torch.rand(n, 2, generator=generator)
    waves = torch.stack([torch.sin(i / 3 + a) + torch.sin(j / 3 + b) for a, b in phase])[:, None]
    images = 0.5 + 0.1 * waves + 0.02 * torch.randn(waves.shape, generator=generator)
    names = tuple(map(str, range(n)))
    return Dataset(names, names, images, torch.ones_like(images, dtype=torch.bool), None)


@pytest.mark.parametrize(("block", "every", "shifts"), [(4, 2, 1), (4, 2, 2), (3, 3, 2), (5, 2, 3)])
def test_every_voxel_is_hidden_as_often_as_said(block: int, every: int, shifts: int) -> None:
    model = context(block=block, every=every, shifts=shifts)
    hidden = torch.stack(list(model._patterns()))
    assert len(hidden) == shifts * every**3
    assert torch.equal(hidden.sum(0), torch.full((1, *SHAPE), float(shifts)))


def test_a_voxel_does_not_see_itself() -> None:
    # A mutant that showed it would let anomalies explain themselves.
    model, x = context(shifts=1), scans(1).images
    place = (0, 0, 7, 8, 5)
    changed = x.clone()
    changed[place] += 3
    before, after = model.reconstruct(x), model.reconstruct(changed)
    assert float(after[place]) == pytest.approx(float(before[place]), abs=1e-6)
    assert float((after - before).abs().max()) > 1e-4
    # So the likelihood falls as a Gaussian of fixed mean and variance says.
    _, variance = _gaussian(model, x, place)
    mean = float(before[place])
    gained = ((float(x[place]) + 3 - mean) ** 2 - (float(x[place]) - mean) ** 2) / 2 / variance
    rise = float(model.voxel_nll(changed)[place] - model.voxel_nll(x)[place])
    assert rise == pytest.approx(gained, rel=1e-3)


def _gaussian(model: Context, x: torch.Tensor, place: tuple[int, ...]) -> tuple[float, float]:
    hidden = next(own for own in model._patterns() if own[place[1:]] == 1)
    with torch.no_grad():
        mean, logvar = model.predict(x, hidden[None])
    return float(mean[place]), float(logvar[place].exp())


def test_untrained_it_is_the_gaussian_of_every_voxel() -> None:
    data = scans(200)
    model = build({"family": "context", "shape": SHAPE, "widths": (16,)}, seed=0).eval()
    assert isinstance(model, Context)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    model.initialize(data)
    mean, variance = data.images.mean(0), data.images.var(0, unbiased=False)
    wanted = torch.distributions.Normal(mean, (variance + 0.1 * variance.mean() + 1e-6).sqrt())
    torch.testing.assert_close(
        model.voxel_nll(data.images[:3]), -wanted.log_prob(data.images[:3]), atol=1e-3, rtol=1e-3
    )


def test_trained_it_knows_more_than_the_mean_and_marks_what_does_not_fit() -> None:
    data, test = scans(24), scans(4, seed=9)
    config = TrainingConfig(steps=120, batch_size=8, lr=5e-3, ema=0.9, precision="32")
    start = build({"family": "context", "shape": SHAPE, "widths": (16, 32)}, seed=0)
    model = fit(start, data, config, seed=0, device="cpu").model.eval()
    assert isinstance(model, Context)
    of_mean = float((test.images - data.images.mean(0)).square().mean().sqrt())
    rest = float((test.images - model.reconstruct(test.images)).square().mean().sqrt())
    assert rest < 0.6 * of_mean
    marked = test.images.clone()
    marked[:, :, 6:9, 7:10, 4:7] += 0.15
    rise = model.voxel_nll(marked) - model.voxel_nll(test.images)
    inside = torch.zeros_like(rise, dtype=torch.bool)
    inside[:, :, 6:9, 7:10, 4:7] = True
    assert float(rise[inside].mean()) > 1.0
    assert float(rise[inside].mean()) > 20 * float(rise[~inside].mean().abs())
