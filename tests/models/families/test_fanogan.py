"""f-AnoGAN: the loss izi_f as published, what rests in the second stage, and codes that bring healthy scans back."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from medgen.anomaly.scores.base import Inputs
from medgen.anomaly.scores.catalogue import get
from medgen.models.catalogue import build
from medgen.models.families.fanogan import FAnoGan
from medgen.preprocessing.dataset import Dataset
from medgen.training.trainer import TrainingConfig, fit

SHAPE = (8, 12, 8)


def model(**changes: Any) -> FAnoGan:
    made = build({"family": "fanogan", "shape": SHAPE, **FAnoGan.tiny, **changes}, seed=0)
    assert isinstance(made, FAnoGan)
    return made


def scans(n: int = 12, seed: int = 0) -> Dataset:
    generator = torch.Generator().manual_seed(seed)
    images = 0.6 + 0.02 * torch.randn((n, 1, *SHAPE), generator=generator)
    images[:, :, :4] += 0.2 * torch.randn((n, 1, 1, 1, 1), generator=generator)
    names = tuple(f"{seed}-{number}" for number in range(n))
    return Dataset(names, names, images, torch.ones_like(images, dtype=torch.bool))


@functools.cache
def trained() -> FAnoGan:
    config = TrainingConfig(steps=60, batch_size=6, lr=2e-3, precision="32", ema=0.9)
    made = fit(model(encoder_share=0.5), scans(), config, seed=0, device="cpu").model.eval()
    assert isinstance(made, FAnoGan)
    return made


def test_izi_f_is_residual_and_features_per_voxel() -> None:
    mine = model(kappa=3.0)
    mine.initialize(scans())
    batch = scans().batch([0, 1])
    # Inside of the field of view, which it therefore leaves as it is.
    batch.foreground[:, :, 3:5] = 0
    kept = [0, 1, 2, 5, 6, 7]
    terms = {name: float(value.detach()) for name, value in mine.loss("encoder", batch).items()}
    with torch.no_grad():
        guess = mine.decode(mine.code(batch.image))
        image = ((batch.image - guess) / mine.detail).square()[:, :, kept].mean()
        x, y = batch.image / mine.detail, guess / mine.detail
        first, second = (mine.critic.features(part) for part in (x, y))
        coarse = [(a - b).square().mean(1, keepdim=True) for a, b in zip(first, second, strict=True)]
        maps = [torch.nn.functional.interpolate(m, SHAPE, mode="trilinear", align_corners=False) for m in coarse]
        features = torch.stack(maps).mean(0)[:, :, kept].mean()
    assert terms["image"] == pytest.approx(float(image), rel=1e-4)
    assert terms["features"] == pytest.approx(float(features), rel=1e-4)
    assert terms["loss"] == pytest.approx(float(image + 3 * features), rel=1e-4)


def test_generator_and_critic_rest_in_the_second_stage() -> None:
    config = TrainingConfig(steps=10, batch_size=4, precision="32", ema=0.9, lr=0.01)
    found = {}
    for lr in (0.01, 0.02):
        # The first eight steps are alike; the rate of the last two is the encoder's alone.
        start = model(encoder_share=0.2)
        game, encoder = start.stages()
        start.stages = lambda game=game, encoder=encoder, lr=lr: (
            game,
            type(encoder)(  # type: ignore[method-assign]
                encoder.name, encoder.phases, encoder.share, lr=lr
            ),
        )
        found[lr] = fit(start, scans(), config, seed=0, device="cpu").model.state_dict()
    moved = {name.split(".")[0] for name, tensor in found[0.01].items() if not torch.equal(tensor, found[0.02][name])}
    assert moved == {"encoder"}


def test_the_encoder_brings_new_scans_back() -> None:
    mine, x = trained(), scans(6, seed=1).images
    error = float((mine.reconstruct(x) - x).square().mean())
    assert error < 0.25 * float((mine.linear.mean - x).square().mean())
    # Not below what is noise.
    assert error > 0.5 * 0.02**2


def test_its_score_finds_what_has_no_code() -> None:
    mine, data = trained(), scans(1, seed=2)
    strange = Dataset(data.ids, data.subjects, data.images.clone(), data.foregrounds)
    strange.images[0, 0, 1:4, 7:10, 2:5] += 0.5
    before, after = (get("fanogan")(Inputs.of(part, mine), {})[0] for part in (data, strange))
    assert after[1:4, 7:10, 2:5].mean() > 5 * before[1:4, 7:10, 2:5].mean()
    assert after[5:, :4].mean() < 0.5 * after[1:4, 7:10, 2:5].mean()
