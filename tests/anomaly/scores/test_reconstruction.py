"""Reconstruction channels against closed forms and independent computations."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy import ndimage

from medgen.anomaly.scores import fanogan
from medgen.anomaly.scores.base import Inputs
from medgen.anomaly.scores.catalogue import get
from medgen.anomaly.scores.kl_gradient import kl_input_gradient
from medgen.anomaly.scores.restoration import RestorationObjective
from medgen.anomaly.scores.ssim import structural_dissimilarity
from medgen.models import losses
from medgen.models.catalogue import build
from medgen.seeds import torch_rng
from medgen.transforms.masked_smoothing import smooth

SHAPE = (12, 14, 10)


class Said(NamedTuple):
    mean: torch.Tensor
    logvar: torch.Tensor


class Toy:
    """x | z ~ N(template + loading · z₁, sd²) with q(z | x) = N((mean of x, 0), spread²)."""

    family = "toy"

    def __init__(self, template=0.0, loading=0.0, sd=0.1, spread=0.5):
        self.template, self.loading, self.sd, self.spread = template, loading, sd, spread

    def encode(self, x):
        mean = torch.stack([x.mean((1, 2, 3, 4)), torch.zeros(len(x))], dim=1)
        return mean, torch.full_like(mean, 2 * float(np.log(self.spread)))

    def decode(self, z):
        mean = (self.template + self.loading * z[:, 0]).view(-1, 1, 1, 1, 1).expand(-1, 1, *SHAPE)
        return Said(mean, torch.full_like(mean, 2 * float(np.log(self.sd))))


def scans(n=2, seed=0):
    image = torch.rand((n, 1, *SHAPE), generator=torch.Generator().manual_seed(seed))
    foreground = torch.zeros((n, 1, *SHAPE), dtype=torch.bool)
    foreground[:, :, 1:11, 2:12, 1:9] = True
    return image, foreground


def vae(family="cevae", **changes):
    settings = {"family": family, "shape": SHAPE, "widths": [16], "latent": 4, "narrow": 4, "components": 0, **changes}
    model = build(settings, seed=0).eval()
    with torch.no_grad():
        # Far enough from the start that decoder and code depend on the scan.
        model.decoder.head.weight.mul_(10)
        model.encoder.vector.weight.mul_(5)
    return model


def test_ssim_at_one_scale_is_wangs_formula():
    rng = np.random.default_rng(0)
    x = rng.random(SHAPE).astype(np.float32)
    y = (x + 0.2 * rng.random(SHAPE)).astype(np.float32)
    mx, my = (ndimage.uniform_filter(v.astype(np.float64), 7) for v in (x, y))
    unbiased = 343 / 342
    vx, vy, vxy = (
        unbiased * (ndimage.uniform_filter(a.astype(np.float64) * b, 7) - ma * mb)
        for a, b, ma, mb in ((x, x, mx, mx), (y, y, my, my), (x, y, mx, my))
    )
    c1, c2 = 0.01**2, 0.03**2
    expected = 1 - (2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    np.testing.assert_allclose(structural_dissimilarity(x, y, scales=1), expected, atol=1e-4)


def test_ssim_of_constants_at_two_scales_and_odd_shapes():
    x, y = np.full((9, 13, 8), 0.3, np.float32), np.full((9, 13, 8), 0.8, np.float32)
    expected = 1 - (2 * 0.3 * 0.8 + 1e-4) / (0.3**2 + 0.8**2 + 1e-4)
    np.testing.assert_allclose(structural_dissimilarity(x, y), expected, rtol=1e-3)
    np.testing.assert_allclose(structural_dissimilarity(x, x), 0, atol=1e-5)


def test_the_second_scale_is_the_first_of_the_halved_image():
    rng = np.random.default_rng(0)
    x, y = rng.random((2, 16, 16, 16)).astype(np.float32)
    half = [v.reshape(8, 2, 8, 2, 8, 2).mean((1, 3, 5)) for v in (x, y)]
    coarse = 2 * structural_dissimilarity(x, y, 2) - structural_dissimilarity(x, y, 1)
    # Away from the border, interpolation to twice the size keeps the mean of what is smooth.
    expected = structural_dissimilarity(*half, 1)
    np.testing.assert_allclose(coarse.reshape(8, 2, 8, 2, 8, 2).mean((1, 3, 5)), expected, atol=0.05)


def test_aeu_is_the_nll_without_its_log_term():
    image, foreground = scans()
    model = vae()
    found = get("aeu")(Inputs(image, foreground, (model,)), {})
    with torch.no_grad():
        decoded = model.decode(model.encode(image)[0])
    normal = torch.distributions.Normal(decoded.mean, (0.5 * decoded.logvar).exp())
    expected = -2 * normal.log_prob(image) - np.log(2 * np.pi) - decoded.logvar
    np.testing.assert_allclose(found, expected[:, 0], rtol=1e-3, atol=1e-4)


def test_dae_is_what_denoising_takes_away():
    class Halves:
        def denoise(self, x):
            return 0.5 * x

    image, foreground = scans()
    np.testing.assert_allclose(get("dae")(Inputs(image, foreground, (Halves(),)), {}), 0.5 * image[:, 0])


def test_the_kl_gradient_agrees_with_finite_differences():
    image, _ = scans(1)
    model = vae()
    gradient = kl_input_gradient(model, image)

    def kl(x):
        with torch.no_grad():
            return losses.kl_standard_normal(*model.encode(x)).double().sum().item()

    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        direction = torch.randn(image.shape, generator=generator) * 0.05 + 0.05 * gradient.sign()
        slope = (kl(image + 0.1 * direction) - kl(image - 0.1 * direction)) / 0.2
        assert (gradient * direction).sum().item() == pytest.approx(slope, rel=0.02)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_kl_gradient_has_its_closed_form_and_the_score_is_the_product():
    image, foreground = scans(1)
    toy = Toy(template=0.2)
    # KL = mean(x)² / 2 + constant.
    expected = image.mean() / image.numel()
    torch.testing.assert_close(kl_input_gradient(toy, image), expected.expand_as(image))
    model = vae()
    found = get("kl_gradient")(Inputs(image, foreground, (model,)), {})[0]
    slope = smooth(kl_input_gradient(model, image)[0, 0].abs().numpy(), foreground[0, 0].numpy(), 1.0)
    residual = (image - model.reconstruct(image))[0, 0].abs().numpy()
    np.testing.assert_allclose(found, slope * residual, rtol=1e-4, atol=1e-7)


def test_the_kl_gradient_takes_a_cevae_wherever_it_stands():
    image, foreground = scans(1)
    one, other = vae("vaegan", discriminator_widths=[16, 16]), vae(latent=6)
    alone = get("kl_gradient")(Inputs(image, foreground, (other,)), {})
    np.testing.assert_array_equal(get("kl_gradient")(Inputs(image, foreground, (one, other)), {}), alone)
    assert not np.array_equal(get("kl_gradient")(Inputs(image, foreground, (one,)), {}), alone)


def test_the_restoration_objective_is_the_bound_plus_total_variation():
    image, foreground = scans(1)
    model = vae()
    problem = RestorationObjective(model, image, foreground)
    edit = 0.2 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0)) * foreground
    with torch.no_grad():
        y = image + edit
        mean, logvar = model.encode(y)
        decoded = model.decode(mean)
        nll = -torch.distributions.Normal(decoded.mean, (0.5 * decoded.logvar).exp()).log_prob(y)[foreground].sum()
        kl = losses.kl_standard_normal(mean, logvar).sum()
        value = problem(edit).item()
    around = np.pad(edit[0, 0].double().numpy(), 1)
    steps = [np.diff(around, axis=axis)[tuple(slice(0, n + 1) for n in SHAPE)] for axis in range(3)]
    variation = (np.sqrt(sum(step**2 for step in steps) + problem.corner**2) - problem.corner).sum()
    assert problem.variation(edit).item() == pytest.approx(variation, rel=1e-5)
    assert value == pytest.approx(nll.item() + kl.item() + 0.5 / problem.sd * variation, rel=1e-4)


def test_restoration_lowers_its_objective_more_with_more_steps():
    image, foreground = scans(1)
    problem = RestorationObjective(vae(), image, foreground)
    with torch.no_grad():
        values = [problem(problem.solve(steps)).item() for steps in (1, 5, 25)]
        start = problem(torch.zeros_like(image)).item()
    assert start > values[0] > values[1] > values[2]


def test_a_huge_weight_returns_the_scan_and_none_the_decoders_mean():
    image, foreground = scans(1)
    assert RestorationObjective(Toy(0.5), image, foreground, weight=1e4).solve(30).abs().max() < 1e-3
    free = RestorationObjective(Toy(0.5), image, foreground, weight=0.0).solve(30)
    inside = foreground.bool()
    # The code's own term, mean² / 2, moves it by far less than the tolerance.
    torch.testing.assert_close((image + free)[inside], torch.full_like(image[inside], 0.5), atol=1e-3, rtol=0)
    assert (free[~inside] == 0).all()


def test_restoration_removes_lesions_and_leaves_lone_voxels():
    image = torch.full((1, 1, *SHAPE), 0.5)
    foreground = torch.ones_like(image, dtype=torch.bool)
    image[0, 0, 2, 2, 2] += 0.2
    image[0, 0, 5:10, 6:11, 3:8] += 0.3
    edit = RestorationObjective(Toy(0.5, sd=0.1), image, foreground).solve(60)[0, 0]
    assert edit[2, 2, 2].abs() < 0.05
    # Soft threshold: C - 3σ/n with C = 3σ and n = 5, a little more where corners are round.
    assert edit[5:10, 6:11, 3:8].mean().item() == pytest.approx(-0.24, abs=0.03)
    assert edit[10:, :4].abs().max() < 0.02


def multi(models, image, foreground, training, samples=16):
    entry = get("multireconstruction")
    state = entry.fit(Inputs(training, foreground.expand(len(training), -1, -1, -1, -1), models))
    return entry(Inputs(image, foreground[: len(image)], models, {"likelihood_samples": samples}), state), state


def test_multireconstruction_of_a_deterministic_decoder_is_residual_over_variance():
    image, foreground = scans(2)
    training, _ = scans(5, seed=1)
    found, state = multi((Toy(0.4),), image, foreground[:1], training)
    variance = (training - 0.4)[foreground[:1].expand_as(training)].square().mean()
    np.testing.assert_allclose(state["variance"], [variance], rtol=1e-5)
    np.testing.assert_allclose(found, (image[:, 0] - 0.4).square() / variance, rtol=1e-4)


def test_multireconstruction_pools_samples_and_models():
    image, foreground = scans(1)
    training, _ = scans(5, seed=1)
    models = (Toy(0.3, loading=0.5), Toy(0.6))
    found, state = multi(models, image, foreground, training)
    noise = torch.randn(16, 2, generator=torch_rng(0, "multireconstruction", 0)).numpy()
    first = 0.3 + 0.5 * (image.mean().item() + 0.5 * noise[:, 0])
    guesses = np.concatenate([first, np.full(16, 0.6)])
    expected = (image[0, 0].numpy() - guesses.mean()) ** 2 / (guesses.var() + state["variance"])
    np.testing.assert_allclose(found[0], expected, rtol=1e-3, atol=1e-6)
    few, _ = multi(models, image, foreground, training, samples=2)
    assert not np.allclose(few, found)
    many, _ = multi(models, image, foreground, training, samples=100)
    np.testing.assert_array_equal(many, found)


@pytest.mark.parametrize("shape", [(16, 16, 16), (13, 16, 10)])
def test_fanogan_is_residual_plus_feature_distance(shape, monkeypatch):
    settings = {"family": "vaegan", "widths": [16], "latent": 4, "narrow": 4, "discriminator_widths": [16, 32]}
    model = build({**settings, "shape": shape}, seed=0).eval()
    image = torch.rand((2, 1, *shape), generator=torch.Generator().manual_seed(0))
    inputs = Inputs(image, torch.ones_like(image, dtype=torch.bool), (model,))
    guess = model.reconstruct(image)
    residual = (image - guess).square()[:, 0].numpy()
    found = get("fanogan")(inputs, {})
    monkeypatch.setattr(fanogan, "_KAPPA", 0.0)
    np.testing.assert_allclose(get("fanogan")(inputs, {}), residual, rtol=1e-5, atol=1e-7)

    before = [-size % 4 // 2 for size in shape]
    pad = [(0, 0), (0, 0), *((b, -size % 4 - b) for b, size in zip(before, shape, strict=True))]
    padded = [torch.from_numpy(np.pad(v.numpy(), pad, mode="edge")) for v in (image, guess)]
    with torch.no_grad():
        (_, one), (_, two) = (model.discriminator(v) for v in padded)
    distance = np.zeros(image[:, 0].shape)
    for a, b in zip(one, two, strict=True):
        coarse = (a - b).square().mean(1).numpy()
        factor = padded[0].shape[2] // coarse.shape[1]
        # Linear interpolation between the centres of coarse voxels.
        places = [(np.arange(size) + offset + 0.5) / factor - 0.5 for size, offset in zip(shape, before, strict=True)]
        grid = np.stack(np.meshgrid(*places, indexing="ij"))
        distance += [ndimage.map_coordinates(v, grid, order=1, mode="nearest") / len(one) for v in coarse]
    assert distance.mean() > 0
    np.testing.assert_allclose(found, residual + distance, rtol=1e-3, atol=1e-6)
