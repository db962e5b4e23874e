"""The flow family: coarse images and their regression against closed forms, detail against known moments."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from medgen.errors import TrainingError
from medgen.models.catalogue import build
from medgen.models.families.flow import Flow, FlowSampling
from medgen.models.networks.haar import haar, inverse_haar
from medgen.models.networks.time_unet import TimeUNet, guess, waves
from medgen.preprocessing.dataset import Dataset
from medgen.training.trainer import TrainingConfig, fit

SHAPE = (16, 18, 12)


def flow(**changes: object) -> Flow:
    settings = {"family": "flow", "shape": SHAPE, "widths": (16,), "style": 3, "n_labels": 1, **changes}
    model = build(settings, seed=0)
    assert isinstance(model, Flow)
    return model.eval()


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cohort(n: int = 12, noise: float = 0.05, seed: int = 0) -> Dataset:
    """Boxes of random height, brighter as they are higher, on a smooth background, with white noise."""
    generator = gen(seed)
    heights = torch.randint(4, 13, (n,), generator=generator)
    labels = torch.zeros(n, 1, *SHAPE, dtype=torch.uint8)
    for row, height in enumerate(heights):
        labels[row, 0, 2 : 2 + height, 4:12, 2:10] = 1
    bright = 0.4 + heights.float() / 30
    images = 0.3 + (bright - 0.3)[:, None, None, None, None] * labels.float()
    images = images + noise * torch.randn(images.shape, generator=generator)
    view = torch.ones_like(labels, dtype=torch.bool)
    view[::2, :, :, :3] = False
    names = tuple(f"c{row}" for row in range(n))
    return Dataset(names, names, images * view, view, labels)


def test_white_bands_come_back_as_they_were() -> None:
    model, data = flow(), cohort()
    model.initialize(data)
    rest = torch.randn(2, 1, *SHAPE, generator=gen())
    torch.testing.assert_close(model.colour(model.whiten(rest)), rest, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(inverse_haar(haar(rest)), rest, atol=1e-6, rtol=1e-5)
    # A constant block is all in the sum, a checkerboard all in the last difference.
    constant, board = torch.ones(1, 1, 2, 2, 2), torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    board = torch.stack([board, -board])[None, None]
    assert haar(constant).flatten().tolist() == pytest.approx([8**0.5, *[0.0] * 7], abs=1e-6)
    assert haar(board).flatten().tolist() == pytest.approx([*[0.0] * 7, 8**0.5], abs=1e-6)


def test_bands_of_white_noise_have_its_standard_deviation() -> None:
    # Nothing but noise: no style explains it, and an orthonormal transform keeps its variance in every band.
    generator = gen(1)
    images = 0.5 + 0.1 * torch.randn(40, 1, *SHAPE, generator=generator)
    names = tuple(map(str, range(40)))
    view = torch.ones_like(images, dtype=torch.bool)
    data = Dataset(names, names, images, view, torch.ones_like(images, dtype=torch.uint8))
    model = flow(style=1)
    model.initialize(data)
    np.testing.assert_allclose(model.bands.flatten().numpy()[1:], 0.1, rtol=0.05)


def test_an_untrained_flow_draws_the_gaussian_of_the_bands() -> None:
    # A network that adds nothing leaves the best linear guess, which transports N(0, 1) to N(0, 1) exactly.
    model, data = flow().sampled_by(FlowSampling(solver_steps=60)), cohort(noise=0.1)
    model.initialize(data)
    labels = data.labels[:1].long().expand(24, -1, -1, -1, -1)
    style = torch.zeros(24, 3)
    noise = model.draw_noise(24, gen(2))
    made = model.paint(labels, style, noise)
    wanted = model.coarse_image(style) + model.colour(noise[0])
    torch.testing.assert_close(made, wanted, atol=2e-3, rtol=1e-2)
    bands = model.whiten(made - model.coarse_image(style))
    assert bands.std(dim=(0, 2, 3, 4)).numpy() == pytest.approx(np.ones(8), abs=0.06)
    skip, scale = guess(torch.linspace(0, 1, 11))
    power = torch.linspace(0, 1, 11).square() + (1 - torch.linspace(0, 1, 11)).square()
    # Var(r − ε) = 2 = skip² Var(r_t) + scale² for independent r and ε.
    torch.testing.assert_close(skip.square() * power + scale.square(), torch.full((11,), 2.0))


def test_styles_follow_labels_as_ridge_regression_says() -> None:
    model, data = flow(style=2), cohort(n=18, noise=0.0)
    model.initialize(data)
    assert data.labels is not None
    styles = model.encode_style(data.images, data.foregrounds.float())[0]
    shares = model._small_labels(data.labels.long()).double().numpy()
    centred = shares - shares.mean(0)
    gram = centred @ centred.T
    dual = np.linalg.solve(gram + np.diag(gram).mean() * np.eye(18), styles.double().numpy())
    np.testing.assert_allclose(model.regression.numpy(), centred.T @ dual, atol=2e-2)
    # Higher boxes are brighter: what is drawn for a high one is.
    order = data.labels.flatten(1).sum(1).argsort()
    low, high = (data.labels[row : row + 1].long().expand(30, -1, -1, -1, -1) for row in (order[0], order[-1]))
    drawn = [model.coarse_image(model.draw_style(labels, gen(3))).mean() for labels in (low, high)]
    assert drawn[1] > drawn[0] + 0.02


def test_what_a_field_of_view_cuts_off_changes_neither_style_nor_scan() -> None:
    model, data = flow(style=2), cohort(n=18, noise=0.0)
    model.initialize(data)
    whole = data.images[1:2]
    cut = torch.ones_like(whole)
    cut[..., 8:, :] = 0
    a, b = model.encode_style(whole)[0], model.encode_style(whole * cut, cut)[0]
    assert float((a - b).abs().max()) < 1.0
    assert float((model.encode_style(whole * cut)[0] - a).abs().max()) > float((a - b).abs().max())
    assert data.labels is not None
    made = model.paint(data.labels[:1].long(), a, model.draw_noise(1, gen()), cut)
    assert float(made[cut == 0].abs().max()) == 0
    assert float(made[cut == 1].abs().mean()) > 0.1


def test_a_trained_flow_paints_where_the_labels_are() -> None:
    # Contrast that no style holds: boxes are brighter or darker than what surrounds them, at a place of their own.
    generator, n = gen(4), 24
    labels = torch.zeros(n, 1, *SHAPE, dtype=torch.uint8)
    for row in range(n):
        i, j, k = (int(torch.randint(0, size - 5, (1,), generator=generator)) for size in SHAPE)
        labels[row, 0, i : i + 5, j : j + 5, k : k + 5] = 1
    images = 0.3 + 0.4 * labels.float() + 0.03 * torch.randn(labels.shape, generator=generator)
    names = tuple(map(str, range(n)))
    data = Dataset(names, names, images, torch.ones_like(labels, dtype=torch.bool), labels)
    model = flow(style=1, coarse=8)
    config = TrainingConfig(steps=150, batch_size=8, lr=5e-3, ema=0.9, precision="32")
    trained = fit(model, data, config, seed=0, device="cpu").model.eval()
    assert isinstance(trained, Flow)
    moved = labels.flip(0)[:6].long()
    made = trained.paint(moved, trained.draw_style(moved, gen(5)), trained.draw_noise(6, gen(6)))
    inside, outside = made[moved == 1], made[moved == 0]
    assert float(inside.mean() - outside.mean()) == pytest.approx(0.4, abs=0.12)
    assert float(outside.std()) < 0.15


def test_scans_without_masks_are_refused() -> None:
    model, data = flow(), cohort()
    bare = Dataset(data.ids, data.subjects, data.images, data.foregrounds)
    with pytest.raises(TrainingError, match="learns from label maps"):
        model.initialize(bare)


def test_the_network_starts_at_nothing_and_hears_the_time() -> None:
    network = TimeUNet(3, (16, 32), 1, 2)
    x = torch.randn(2, 3, 7, 8, 9, generator=gen())
    assert network(x, torch.tensor([0.0, 1.0])).shape == (2, 2, 7, 8, 9)
    assert float(network(x, torch.tensor([0.0, 1.0])).detach().abs().max()) == 0
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=gen(1))
    one, other = (network(x, torch.full((2,), time)) for time in (0.1, 0.9))
    assert float((one - other).detach().abs().max()) > 1e-3
    found: Tensor = waves(torch.tensor([0.0, 0.5]))
    assert found.shape == (2, 64)
    assert found[0].tolist() == pytest.approx([1.0] * 32 + [0.0] * 32)
