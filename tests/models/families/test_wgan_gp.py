"""The game of WGAN-GP: it leads samples to the scans, the critic first, and begins at the principal components."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from medgen.models.adversarial.sample_distance import band_features, energy_distance
from medgen.models.catalogue import build
from medgen.models.families.wgan_gp import WganGp
from medgen.preprocessing.dataset import Batch, Dataset
from medgen.training.trainer import TrainingConfig, fit

SHAPE = (8, 8, 8)


def model(**changes: Any) -> WganGp:
    made = build({"family": "wgan_gp", "shape": SHAPE, **WganGp.tiny, **changes}, seed=0)
    assert isinstance(made, WganGp)
    return made


def scans(n: int = 12) -> Dataset:
    """One half bright and one dark, by a number that is normal over scans, with noise."""
    generator = torch.Generator().manual_seed(0)
    images = 0.6 + 0.05 * torch.randn((n, 1, *SHAPE), generator=generator)
    images[:, :, :4] += 0.2 * torch.randn((n, 1, 1, 1, 1), generator=generator)
    names = tuple(map(str, range(n)))
    return Dataset(names, names, images, torch.ones_like(images, dtype=torch.bool))


def test_the_game_leads_samples_to_the_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begun at black scans, where a critic or a generator that plays for the other side stays, or goes astray."""
    monkeypatch.setattr(WganGp, "initialize", lambda self, dataset: self.detail.fill_(0.1))
    start, data = model(components=0, critic_steps=2, widths=(16,)), scans()
    before = start.sample(60, torch.Generator().manual_seed(0))
    config = TrainingConfig(steps=80, batch_size=4, lr=0.03, precision="32", ema=0.9, log_every=30)
    result = fit(start, data, config, seed=0, device="cpu")
    after = result.model.eval().sample(60, torch.Generator().manual_seed(0))  # type: ignore[operator]
    assert float(before.mean()) < 0.1
    # How far a game of 80 steps comes depends on how a processor rounds; on the wrong side it stays below 0.1.
    assert float(after.mean()) == pytest.approx(0.6, abs=0.25)
    first, last, real = (band_features(images)[-1] for images in (before[:12], after[:12], data.images))
    assert float(energy_distance(last, real)) < 0.3 * float(energy_distance(first, real))
    # The critic's slope has become 1.
    assert result.history[-1]["critic/penalty"] < 0.1


def test_the_critic_learns_alone_first() -> None:
    start = model(warmup=0.5)
    start.initialize(scans())
    image = scans().images[:2]
    for progress, moves in ((0.49, False), (0.5, True)):
        start.zero_grad()
        start.loss("generator", Batch(image, torch.ones_like(image), progress=progress))["loss"].backward()
        gradients = [p.grad for p in start.generator.parameters() if p.grad is not None]
        assert any(bool(gradient.any()) for gradient in gradients) == moves


def test_it_begins_at_the_principal_components() -> None:
    start, data = model(components=2), scans(40)
    start.initialize(data)
    made = start.sample(400, torch.Generator().manual_seed(0))
    for part in (slice(4), slice(4, None)):
        mean, real = made[:, 0, part].mean((1, 2, 3)), data.images[:, 0, part].mean((1, 2, 3))
        assert float(mean.mean()) == pytest.approx(float(real.mean()), abs=0.03)
    bright, real = made[:, 0, :4].mean((1, 2, 3)), data.images[:, 0, :4].mean((1, 2, 3))
    assert float(bright.std()) == pytest.approx(float(real.std()), rel=0.15)
    plain = model(components=0)
    plain.initialize(data)
    torch.testing.assert_close(plain.sample(30).mean(0), data.images.mean(0), atol=0.1, rtol=0)


def test_every_voxel_has_noise_of_its_own() -> None:
    start = model()
    start.initialize(scans())
    z = torch.zeros(1, start.settings.latent)
    noise = [torch.zeros(1, *shape) for shape in start.generator.noise_shapes()]
    base = start.decode(z, noise)
    assert torch.equal(base, start.decode(z, noise))
    noise[-1][0, 0, 3, 4, 5] = 1
    changed = (start.decode(z, noise) - base).abs() > 0
    assert changed.sum() == 1
    assert changed[0, 0, 3, 4, 5]
