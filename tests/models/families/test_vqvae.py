"""Codes and their prior: the bound against enumeration, samples by temperature, and a resumption in either stage."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from medgen.errors import ConfigError
from medgen.models.catalogue import build, parse_settings
from medgen.models.families.vqvae import VqVae, VqVaeSampling
from medgen.models.losses import gaussian_nll
from medgen.preprocessing.dataset import Dataset
from medgen.training.trainer import FitResult, Terminated, TrainingConfig, fit

SHAPE = (8, 8, 8)
SETTINGS = {"family": "vqvae", "shape": SHAPE, **VqVae.tiny}


def model(**changes: Any) -> VqVae:
    made = build({**SETTINGS, **changes}, seed=0)
    assert isinstance(made, VqVae)
    return made


def scans(n: int = 8, shape: tuple[int, int, int] = SHAPE) -> Dataset:
    """Bright and dark halves, whose sides a coin decides, with noise."""
    generator = torch.Generator().manual_seed(0)
    images = 0.5 + 0.05 * torch.randn((n, 1, *shape), generator=generator)
    for image in images:
        side = slice(shape[0] // 2, None) if torch.rand((), generator=generator) < 0.5 else slice(shape[0] // 2)
        image[:, side] += 0.4
    names = tuple(map(str, range(n)))
    return Dataset(names, names, images, torch.ones_like(images, dtype=torch.bool))


@functools.cache
def trained(codes: int) -> VqVae:
    config = TrainingConfig(steps=60, batch_size=4, lr=3e-3, precision="32", ema=0.9)
    made = fit(model(codes=codes, length=2), scans(), config, seed=0, device="cpu").model.eval()
    assert isinstance(made, VqVae)
    return made


def test_the_likelihood_is_a_near_bound_on_the_sum_over_all_codes() -> None:
    mine, x = trained(2), scans().images[:3]
    grids = torch.tensor(list(itertools.product(range(2), repeat=8))).view(-1, 2, 2, 2)
    log_p = mine.code_log_likelihood(grids)
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-5)
    mean, logvar = mine.decode_codes(grids)
    exact = torch.stack([torch.logsumexp(log_p - gaussian_nll(scan, mean, logvar).flatten(1).sum(1), 0) for scan in x])
    found = mine.log_likelihood(x)
    assert (found <= exact + 1e-3).all()
    assert ((exact - found) < 0.1 * 8**3).all()


def test_samples_are_of_the_kinds_of_scans_that_there_are() -> None:
    """One half is bright and the other dark: codes drawn independently of each other would mix them."""
    made = trained(16).sample(60, torch.Generator().manual_seed(0))[:, 0]
    first, second = made[:, :4].mean((1, 2, 3)), made[:, 4:].mean((1, 2, 3))
    assert float((first + second).mean()) == pytest.approx(1.4, abs=0.1)
    assert float(((first - second).abs() > 0.25).float().mean()) > 0.8
    assert 0.15 < float((first > second).float().mean()) < 0.85


def test_a_low_temperature_draws_the_likeliest_codes() -> None:
    warm = trained(16)
    alike = []
    for options in ({}, {"temperature": 0.01}, {"top_p": 1e-6}):
        made = warm.sampled_by(VqVaeSampling(**options)).sample(12, torch.Generator().manual_seed(0))
        alike.append(float((made - made[:1]).abs().amax()))
    assert alike[0] > 0.2
    assert alike[1] < 0.05
    assert alike[2] == 0


def test_the_surprise_adds_up_to_the_likelihood_of_the_codes() -> None:
    mine, x = trained(16), scans(1).images
    torch.testing.assert_close(
        mine.voxel_maps(x)["code_surprise"].mean((1, 2, 3, 4)),
        -mine.code_log_likelihood(mine.codes(x)) / 8,
        atol=1e-4,
        rtol=1e-4,
    )


def test_facts_count_the_codes_in_use() -> None:
    mine = model(codes=16)
    mine.prior.start(torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]).view(1, 2, 2, 2), mine.book.vectors)
    facts = {fact.name: fact for fact in mine.facts()}
    assert facts["codes_used"].value == 4
    assert facts["codes_used"].text == "The training scans use 4 of the 16 codes in the book."
    assert facts["perplexity"].value == pytest.approx(4)
    assert facts["likelihood"].value == "bound"
    assert facts["places"].value == 8


def test_the_book_is_averaged_with_the_weights_and_at_rest_in_the_second_stage() -> None:
    config = TrainingConfig(steps=8, batch_size=2, precision="32", ema=0.5)
    first = fit(model(prior_share=0.125), scans(), config, seed=0, device="cpu").model
    live = fit(model(prior_share=0.125), scans(), config.model_copy(update={"ema": 0.0}), seed=0, device="cpu").model
    assert isinstance(first, VqVae)
    assert isinstance(live, VqVae)
    assert not torch.equal(first.book.vectors, live.book.vectors)
    before = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    first.train()
    first.loss("prior", scans().batch([0, 1]))["loss"].backward()
    assert all(torch.equal(tensor, before[name]) for name, tensor in first.state_dict().items())
    assert all(parameter.grad is None for parameter in (*first.encoder.parameters(), *first.decoder.parameters()))


@pytest.mark.parametrize("step", [3, 6, 9])
def test_a_resumption_in_either_stage_is_bit_identical(tmp_path: Path, step: int) -> None:
    config = TrainingConfig(steps=12, batch_size=2, precision="32", log_every=1, checkpoint_every=1, lr=0.01, ema=0.9)

    def run(**options: Any) -> FitResult:
        return fit(model(), scans(), config, seed=1, device="cpu", **options)

    expected = run()

    def interrupt(numbers: dict[str, float], now: int) -> None:
        if now == step:
            raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, Terminated)):
        run(out=tmp_path, log=interrupt)
    found = run(out=tmp_path)
    assert found.history == expected.history
    for name, tensor in expected.model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], tensor), name


def test_heads_divide_the_width() -> None:
    with pytest.raises(ConfigError, match="prior_width to be a multiple of heads"):
        parse_settings({**SETTINGS, "heads": 3})
