"""The density of a flow against closed forms, against integration over a plane, and against SciPy's solver."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.stats import multivariate_normal
from torch import Tensor, nn

from medgen.models.facts import Estimate
from medgen.models.likelihoods.change_of_variables import divergence, log_density, rademacher


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_network(seed: int = 0) -> nn.Module:
    """A velocity on the plane that depends on place and time and bends the Gaussian visibly."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 2))
        for parameter in layers.parameters():
            nn.init.normal_(parameter, std=0.7)
    return layers.double()


def velocity_of(network: nn.Module):
    return lambda at, time: network(torch.cat([at, time[:, None].to(at)], dim=1))


def test_the_density_of_a_linear_field_is_the_gaussian_that_it_makes() -> None:
    # Straight lines from N(0, I) to N(m, S): v = m + (t S − (1 − t) I) (t² S + (1 − t)² I)⁻¹ (x − t m).
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(3, 3))
    mean, cover = torch.tensor([0.5, -1.0, 2.0]).double(), torch.from_numpy(mixing @ mixing.T + 0.3 * np.eye(3))
    eye = torch.eye(3, dtype=torch.float64)

    def velocity(at: Tensor, time: Tensor) -> Tensor:
        t = time[0]
        matrix = (t * cover - (1 - t) * eye) @ torch.linalg.inv(t**2 * cover + (1 - t) ** 2 * eye)
        return mean + (at - t * mean) @ matrix.T

    x = mean + torch.from_numpy(rng.normal(size=(5, 3)) @ mixing.T)
    exact = multivariate_normal(mean.numpy(), cover.numpy()).logpdf(x.numpy())
    np.testing.assert_allclose(log_density(velocity, x, steps=20).numpy(), exact, atol=1e-3)
    # Of order 4: half the step, a sixteenth of the error.
    errors = [np.abs(log_density(velocity, x, steps=n).numpy() - exact).max() for n in (5, 10)]
    assert errors[1] < errors[0] / 8
    # The trace of a linear field is the same for every probe of signs but for what is off its diagonal.
    draws = torch.stack([log_density(velocity, x, 10, rademacher(x, gen(seed))) for seed in range(60)])
    found = Estimate.of(draws)
    assert (np.abs(found.value.numpy() - exact) < 4 * found.error.numpy() + 0.02).all()
    assert (found.error > 0).all()


def test_the_density_integrates_to_one_over_the_plane() -> None:
    velocity, axis = velocity_of(small_network()), torch.linspace(-9, 9, 91, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    density = log_density(velocity, grid, steps=8).exp()
    assert float(density.sum()) * float(axis[1] - axis[0]) ** 2 == pytest.approx(1, abs=2e-3)


def test_the_density_is_that_of_the_map_of_another_solver() -> None:
    # SciPy takes points forwards; the volume comes from differences of neighbouring points, not from a divergence.
    network = small_network(1)
    velocity = velocity_of(network)

    def moved(start: np.ndarray) -> np.ndarray:
        def slope(t: float, at: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                return velocity(torch.from_numpy(at)[None], torch.tensor([t]))[0].numpy()

        return solve_ivp(slope, (0, 1), start, rtol=1e-9, atol=1e-10).y[:, -1]

    for seed in range(3):
        start, h = np.random.default_rng(seed).normal(size=2), 1e-4
        columns = [(moved(start + h * axis) - moved(start - h * axis)) / (2 * h) for axis in np.eye(2)]
        volume = np.linalg.slogdet(np.stack(columns, axis=1))[1]
        expected = -0.5 * start @ start - math.log(2 * math.pi) - volume
        found = log_density(velocity, torch.from_numpy(moved(start))[None], steps=16)
        assert float(found) == pytest.approx(expected, abs=1e-4)


def test_hutchinsons_estimate_is_unbiased_and_the_exact_trace_is_that_of_the_jacobian() -> None:
    velocity, at, time = (
        velocity_of(small_network(2)),
        torch.randn(4, 2, generator=gen()).double(),
        torch.full((4,), 0.3),
    )
    _, exact = divergence(velocity, at, time)
    for row in range(4):
        jacobian = torch.autograd.functional.jacobian(lambda x: velocity(x[None], time[:1])[0], at[row])
        assert float(exact[row]) == pytest.approx(float(jacobian.trace()))
    found = Estimate.of(torch.stack([divergence(velocity, at, time, rademacher(at, gen(n)))[1] for n in range(400)]))
    assert ((found.value - exact).abs() < 4 * found.error + 1e-9).all()


def test_the_standard_error_shrinks_with_the_root_of_the_draws() -> None:
    draws = torch.randn(400, 1, generator=gen()).double()
    assert float(Estimate.of(draws).error) == pytest.approx(1 / 20, rel=0.1)
    assert float(Estimate.of(draws[:100]).error) == pytest.approx(1 / 10, rel=0.2)
