"""A flow of codes where the answer is known: two modes, a spread by place, and nothing learnt at all."""

from __future__ import annotations

import math

import pytest
import torch

from medgen.models.catalogue import build
from medgen.models.code_model import CodeFlowSettings, CodeModel, CodeModels, arrived, on_the_way
from medgen.preprocessing.dataset import Dataset
from medgen.training.trainer import TrainingConfig, fit

WIDTH, CODES, GRID = 16, 2, (3, 2, 2)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def new(grid=GRID):
    torch.manual_seed(0)
    return CodeModel(WIDTH, CODES, grid, CodeFlowSettings(widths=(16,)))


def two_modes(n, seed):
    """Codes of variance 1: one sign for each scan, the same at all places, and a tenth of it as noise; state 0."""
    random = generator(seed)
    sign = 2.0 * torch.randint(0, 2, (n, 1, 1, 1, 1), generator=random) - 1
    codes = (sign + 0.1 * torch.randn((n, CODES, *GRID), generator=random)) / math.sqrt(1.01)
    return codes, torch.zeros(n, WIDTH, *GRID)


def test_a_flow_finds_both_modes_where_a_gaussian_has_none():
    flow = new()
    optimiser = torch.optim.Adam(flow.parameters(), lr=3e-3)
    for step in range(150):
        torch.manual_seed(step)
        codes, state = two_modes(8, step)
        optimiser.zero_grad()
        flow.error(codes, state, torch.ones(8, 1, *GRID)).backward()
        optimiser.step()
    noise = torch.randn((200, CODES, *GRID), generator=generator())
    with torch.no_grad():
        drawn = flow.draw(noise, torch.zeros(200, WIDTH, *GRID), 6).mean((1, 2, 3, 4))
    # All numbers of a scan have one sign: their mean is near 1 or -1, for about as many scans each.
    assert ((drawn.abs() - 1).abs() < 0.4).float().mean() > 0.8
    assert 0.35 < (drawn > 0).float().mean() < 0.65
    # Independent Gaussians of the same variance are about 0 there.
    assert (noise.mean((1, 2, 3, 4)).abs() > 0.7).float().mean() < 0.01


def test_a_flow_that_has_learnt_nothing_leaves_noise_as_it_is():
    flow, noise = new(), torch.randn((3, CODES, *GRID), generator=generator())
    state = torch.randn((3, WIDTH, *GRID), generator=generator(1))
    with torch.no_grad():
        assert torch.equal(flow.draw(noise, state, 1), noise)
        # What it gets wrong is then the whole velocity, of variance 1.
        torch.manual_seed(0)
        error = flow.error(noise.repeat(200, 1, 1, 1, 1), state.repeat(200, 1, 1, 1, 1), torch.ones(600, 1, *GRID))
    assert float(error) == pytest.approx(1, abs=0.1)


def test_the_spread_is_that_of_the_place_and_drawn_codes_have_it():
    spread = 0.5 + torch.rand((CODES, *GRID), generator=generator())
    codes = spread * torch.randn((400, CODES, *GRID), generator=generator(1))
    models = CodeModels([new()])
    models.measure([(scan[None], torch.zeros(1, WIDTH, *GRID))] for scan in codes)
    (flow,) = models.levels()
    torch.testing.assert_close(flow.spread, codes.square().mean(0).sqrt(), atol=0.02, rtol=0.02)
    with torch.no_grad():
        drawn = flow.draw(torch.randn((400, CODES, *GRID), generator=generator(2)), torch.zeros(400, WIDTH, *GRID), 2)
    torch.testing.assert_close(drawn.std(0), spread, atol=0.12, rtol=0.12)


def test_the_way_has_variance_one_and_the_velocity_is_its_derivative():
    noise, codes = torch.randn((2, 5000, 2), generator=generator(), dtype=torch.float64)
    for time in (0.0, 0.2, 0.7, 1.0):
        at, velocity = on_the_way(noise, codes, torch.full((5000,), time, dtype=torch.float64))
        assert float(at.var()) == pytest.approx(1, abs=0.05)
        later, _ = on_the_way(noise, codes, torch.full((5000,), time + 1e-5, dtype=torch.float64))
        torch.testing.assert_close((later - at) / (0.5e-5 * math.pi), velocity, atol=1e-4, rtol=1e-4)
    # Rectified flow's straight line over its standard deviation, at the time whose angle it is.
    t = 0.3
    straight = ((1 - t) * noise + t * codes) / math.hypot(t, 1 - t)
    angle = torch.full((5000,), math.atan2(t, 1 - t) / (0.5 * math.pi), dtype=torch.float64)
    torch.testing.assert_close(on_the_way(noise, codes, angle)[0], straight)


def test_the_solver_is_of_second_order():
    """Gaussian codes of standard deviation s: the best velocity is known, and leads noise ε to s ε."""
    s = 3.0

    def best(at, time):
        near, far = torch.cos(0.5 * math.pi * time), torch.sin(0.5 * math.pi * time)
        return (s**2 - 1) * near * far / (near**2 + s**2 * far**2) * at

    noise = torch.ones(1, dtype=torch.float64)
    errors = [abs(float(arrived(best, noise, steps)) - s) for steps in (16, 32)]
    assert errors[1] < 0.02
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.25)


SHAPE = (16, 16, 16)
PLAIN = {"family": "vae", "shape": SHAPE, "widths": [16, 32], "latent": 2, "codes": [[4, 2], [2, 2]]}
FLOW = {**PLAIN, "code_flow": {"share": 0.5, "widths": [16]}}


def cohort(n=6):
    names = tuple(f"c{k}" for k in range(n))
    coarse = torch.rand((n, 1, 4, 4, 4), generator=generator())
    images = torch.nn.functional.interpolate(coarse, size=SHAPE, mode="trilinear")
    return Dataset(names, names, images, torch.ones((n, 1, *SHAPE), dtype=torch.bool))


def test_a_flow_changes_samples_and_nothing_else():
    """The first stage is the training without it, bit for bit, and so are bounds, maps and reconstructions."""
    data, config = cohort(), TrainingConfig(steps=4, batch_size=1, precision="32", lr=1e-2, ema=0.5)
    plain = fit(build(PLAIN, seed=0), data, config, seed=0, device="cpu").model
    # Half of eight steps are four.
    same = fit(build(FLOW, seed=0), data, config.model_copy(update={"steps": 8}), seed=0, device="cpu").model
    found = same.state_dict()
    own = {name: tensor for name, tensor in plain.state_dict().items() if not name.startswith("code_models")}
    assert all(torch.equal(found[name], tensor) for name, tensor in own.items())
    x = data.images[:2]
    for method in ("elbo", "log_likelihood"):
        assert torch.equal(
            getattr(plain, method)(x, samples=2, generator=generator()),
            getattr(same, method)(x, samples=2, generator=generator()),
        )
    assert torch.equal(plain.reconstruct(x), same.reconstruct(x))
    assert not torch.equal(plain.sample(2, generator()), same.sample(2, generator()))


def test_silent_flows_draw_what_gaussians_of_the_same_spread_draw():
    plain, flow = build(PLAIN, seed=0).eval(), build(FLOW, seed=0).eval()
    before = []
    for model in (plain, flow):
        model.initialize(cohort())
        before.append(model.sample(2, generator()))
        torch.manual_seed(0)
        model.begin_stage("flow", cohort())
    assert torch.equal(*before)
    assert torch.equal(plain.sample(2, generator()), flow.sample(2, generator()))
    assert not torch.equal(plain.sample(2, generator()), before[0])


def test_weights_from_before_there_was_a_spread_draw_without_one():
    old, model = build(PLAIN, seed=0), build(PLAIN, seed=1)
    for level in model.code_models.levels():
        level.spread.fill_(3)
    state = {name: tensor for name, tensor in old.state_dict().items() if not name.endswith("spread")}
    model.load_state_dict({**state, "linear.spread": old.linear.spread})
    assert all((level.spread == 1).all() for level in model.code_models.levels())


def test_a_model_says_what_its_samples_are_drawn_by():
    said = [{fact.name: fact for fact in build(settings, seed=0).facts()} for settings in (PLAIN, FLOW)]
    assert [facts["code_model"].value for facts in said] == ["gaussian", "flow"]
    assert said[0]["likelihood"] == said[1]["likelihood"]
