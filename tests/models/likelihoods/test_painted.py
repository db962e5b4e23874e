"""Likelihoods of painted scans: the volume of the bands, the Gaussian of an untrained flow, and one that has learnt."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from medgen.models.base import HasConditionalLikelihood, HasLikelihood
from medgen.models.catalogue import build
from medgen.models.families.flow import Flow
from medgen.models.likelihoods.change_of_variables import rademacher
from medgen.models.likelihoods.painted import detail_log_density
from medgen.models.networks.haar import coloured, log_volume, whitened
from medgen.preprocessing.dataset import Batch, Dataset
from medgen.training.trainer import TrainingConfig, fit

SHAPE = (8, 10, 8)
NOISE = 0.06


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cohort(n: int, seed: int, shape: tuple[int, ...] = SHAPE) -> Dataset:
    """White noise on labels whose place varies, and a gain for each scan."""
    generator = gen(seed)
    labels = torch.zeros(n, 1, *shape, dtype=torch.uint8)
    for row in range(n):
        first = int(torch.randint(0, 5, (1,), generator=generator))
        labels[row, 0, :, first : first + 4] = 1
    gain = 1 + 0.2 * torch.randn(n, 1, 1, 1, 1, generator=generator)
    images = gain * (0.4 + 0.4 * labels) + NOISE * torch.randn(labels.shape, generator=generator)
    names = tuple(f"{seed}-{row}" for row in range(n))
    return Dataset(names, names, images, torch.ones_like(labels, dtype=torch.bool), labels)


def flow(shape: tuple[int, ...] = SHAPE, data: Dataset | None = None) -> Flow:
    settings = {"family": "flow", "shape": shape, "widths": (16,), "blocks": 1, "style": 2, "n_labels": 1}
    model = build(settings, seed=0)
    assert isinstance(model, Flow)
    model.initialize(cohort(12, 0, shape) if data is None else data)
    return model.eval()


@pytest.mark.parametrize("half", [(4, 4, 4), (3, 4, 2), (3, 1, 5)])
def test_the_volume_of_the_bands_is_the_determinant_of_their_jacobian(half: tuple[int, int, int]) -> None:
    fine, deep = (torch.rand(8, 1, 1, 1, generator=gen(seed)).double() + 0.2 for seed in (1, 2))
    x = torch.randn(1, 1, *(2 * side for side in half), generator=gen()).double()
    torch.testing.assert_close(coloured(whitened(x, fine, deep), fine, deep), x)
    columns = torch.eye(x.numel(), dtype=torch.float64).view(-1, *x.shape[1:])
    matrix = whitened(columns, fine, deep).flatten(1)
    assert float(log_volume(fine, deep, half)) == pytest.approx(float(torch.linalg.slogdet(matrix)[1]))


def gaussian(model: Flow, labels: torch.Tensor, kept: int) -> multivariate_normal:
    """x = u(s) + W⁻¹ r written out, with r ~ N(0, I): what an untrained flow paints on the voxels of the grid."""
    size = [side + side % 2 for side in model.settings.shape]
    columns = torch.eye(8 * math.prod(side // 2 for side in size)).view(-1, 8, *(side // 2 for side in size))
    detail = model.colour(columns).flatten(1).double()
    zero = torch.zeros(1, model.settings.style)
    middle = model.coarse_image(zero)
    ways = torch.cat([model.coarse_image(one[None]) - middle for one in torch.eye(model.settings.style)]).flatten(1)
    expected = ((model._small_labels(labels) - model.label_mean) @ model.regression)[0].double()
    factor = ways.double().T @ model.spread.double()
    mean = middle.flatten().double() + expected @ ways.double()
    assert detail.shape[1] == kept
    return multivariate_normal(mean.numpy(), (factor @ factor.T + detail.T @ detail).numpy(), allow_singular=False)


@pytest.mark.parametrize("shape", [(8, 10, 8), (9, 8, 8)])
def test_the_bound_of_an_untrained_flow_is_below_its_gaussian_by_little(shape: tuple[int, ...]) -> None:
    model, data = flow(shape), cohort(2, 3, shape)
    batch = data.batch([0, 1])
    found = model.conditional_log_likelihood(batch, samples=10, generator=gen(1))
    voxels = math.prod(shape)
    for row in range(2):
        exact = gaussian(model, batch.labels[row : row + 1], voxels).logpdf(batch.image[row].flatten().double().numpy())
        value, error = float(found.value[row]), float(found.error[row])
        assert value < exact + 4 * error
        # Styles cost a few nats in all; voxels beyond the grid, an eighth of the others, what one Gaussian width for
        # all of them leaves.
        assert exact - value < 4 * error + 4 + (0 if shape[0] % 2 == 0 else 0.3 * voxels / 8)
        assert 0 < error < 0.01 * voxels
    again = model.conditional_log_likelihood(batch, samples=10, generator=gen(1))
    assert torch.equal(again.value, found.value)


def test_the_density_of_the_detail_of_an_untrained_flow_is_a_gaussian_of_bands() -> None:
    model, data = flow(), cohort(1, 4)
    rest = 0.1 * torch.randn(1, 1, *SHAPE, generator=gen(5))
    labels, view = data.labels.long(), torch.ones(1, 1, *SHAPE)
    coarse = model.coarse_image(torch.zeros(1, 2))
    with torch.no_grad():
        found = detail_log_density(model, rest, coarse, labels, view, 8, rademacher(model.whiten(rest), gen()))
        bands = model.whiten(rest).double()
    constant = math.prod(SHAPE) * math.log(2 * math.pi)
    expected = -0.5 * (float(bands.square().sum()) + constant) + float(
        log_volume(model.bands, model.deep_bands, model.whiten(rest).shape[2:])
    )
    assert float(found) == pytest.approx(expected, abs=0.05)


@functools.cache
def trained() -> Flow:
    config = TrainingConfig(steps=150, batch_size=8, lr=5e-3, ema=0.95, precision="32")
    data = cohort(40, 0)
    model = fit(flow(data=data), data, config, seed=0, device="cpu").model.eval()
    assert isinstance(model, Flow)
    return model


def test_a_trained_flow_is_near_the_entropy_of_the_noise_and_prefers_the_right_labels() -> None:
    model, data = trained(), cohort(4, 7)
    batch, voxels = data.batch(range(4)), math.prod(SHAPE)
    own = model.conditional_log_likelihood(batch, samples=4, generator=gen(2))
    most = -math.log(NOISE * math.sqrt(2 * math.pi * math.e))
    assert most - 0.5 < float(own.value.mean()) / voxels < most + 0.05
    assert (own.value > flow(data=cohort(40, 0)).conditional_log_likelihood(batch, 4, gen(2)).value).all()
    moved = Batch(batch.image, batch.foreground, batch.labels.flip(3))
    assert (own.value > model.conditional_log_likelihood(moved, 4, gen(2)).value).all()


def test_the_estimate_of_a_trained_flow_agrees_with_the_exact_trace() -> None:
    model, data = trained(), cohort(1, 8)
    batch = data.batch([0])
    coarse = model.coarse_image(model.encode_style(batch.image)[0])
    rest = batch.image - coarse
    given = (model, rest, coarse, batch.labels.long(), batch.foreground.float(), 1)
    exact = float(detail_log_density(*given))
    draws = [float(detail_log_density(*given, rademacher(model.whiten(rest), gen(seed)))) for seed in range(12)]
    error = float(np.std(draws, ddof=1) / math.sqrt(12))
    assert abs(float(np.mean(draws)) - exact) < 4 * error
    assert error < 0.02 * math.prod(SHAPE)


def test_what_lies_outside_of_the_field_of_view_does_not_count() -> None:
    model, data = trained(), cohort(1, 9)
    batch = data.batch([0])
    view = batch.foreground.clone()
    view[..., 6:] = 0
    seen = Batch(batch.image * view, view, batch.labels)
    other = Batch(batch.image * view + 5 * (1 - view), view, batch.labels)
    one, two = (model.conditional_log_likelihood(scan, 2, gen(3)).value for scan in (seen, other))
    torch.testing.assert_close(one, two)


def test_it_is_no_likelihood_that_tells_healthy_scans_from_others() -> None:
    model = flow()
    assert isinstance(model, HasConditionalLikelihood)
    assert not isinstance(model, HasLikelihood)
    assert next(fact for fact in model.facts() if fact.name == "likelihood").value == "bound"
    with pytest.raises(ValueError, match="at least 2 samples"):
        model.conditional_log_likelihood(cohort(1, 1).batch([0]), samples=1)
