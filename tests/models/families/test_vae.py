"""The hierarchy of codes where the answer is known: with silent networks it is a Gaussian."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from medgen.errors import ConfigError
from medgen.models.catalogue import build
from medgen.models.hierarchical import LOGVAR_RANGE, means
from medgen.models.losses import gaussian_nll
from medgen.models.networks.code_grid import ORDER
from medgen.preprocessing.dataset import Dataset

SHAPE, SIDE, SIGMA = (8, 8, 8), 4, 0.5
VOXELS = 512


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def silent(near=0.0):
    """x = μ + B z₀ + block z₁ + σ ε; z₁ of eight positions, each a sum of those of earlier passes times ``near``."""
    settings = {"family": "vae", "shape": SHAPE, "widths": [16, 16], "latent": 2, "codes": [[SIDE, 1]], "typical": 0}
    model = build(settings, seed=0).eval()
    rng = np.random.default_rng(0)
    block = rng.normal(size=SIDE**3) * 0.2
    whole = np.zeros((VOXELS, 8))
    for place in range(8):
        i, j, k = place // 4 * 4, place // 2 % 2 * 4, place % 2 * 4
        # Voxels of a block in the order of the model's own, found by asking it.
        model.block_codes[0].basis.copy_(torch.from_numpy(block)[None])
        code = torch.zeros(1, 1, 2, 2, 2)
        code[0, 0, i // 4, j // 4, k // 4] = 1
        corner = model.block_codes[0](code)[0, 0].double().numpy()
        assert np.count_nonzero(corner[i : i + 4, j : j + 4, k : k + 4]) == SIDE**3
        whole[:, place] = corner.ravel()
    top = rng.normal(size=(VOXELS, 2))
    top -= whole @ np.linalg.lstsq(whole, top, rcond=None)[0]
    top = np.linalg.qr(top)[0] * np.array([3.0, 2.0])
    mean = rng.normal(0.7, 0.1, VOXELS)
    low, high = LOGVAR_RANGE
    level = (2 * math.log(SIGMA) - low) / (high - low)
    strength = float(block @ block)
    with torch.no_grad():
        for layer in (model.decoder.head, model.top):
            layer.weight.zero_()
            layer.bias.zero_()
        linear, own, grid = model.linear, model.block_codes[0], model.decoder.grids()[0]
        linear.mean.copy_(torch.from_numpy(mean).view(1, *SHAPE))
        linear.basis.copy_(torch.from_numpy(top.T.copy()).view(2, 1, *SHAPE))
        linear.spread.fill_(math.log(level / (1 - level)))
        linear.weight.fill_(1)
        squares = np.array([9.0, 4.0])
        linear.precision.copy_(torch.from_numpy(1 / (SIGMA**2 + squares)))
        model.top.bias[2:] = torch.from_numpy(np.log(SIGMA**2 / (SIGMA**2 + squares)))
        own.weights.copy_(own.basis / (strength + SIGMA**2))
        own.logvar.fill_(math.log(SIGMA**2 / (strength + SIGMA**2)))
        grid.neighbours.fill_(near)
    # Positions in the order of the passes: what each is given the earlier ones.
    order = [4 * a + 2 * b + c for a, b, c in ORDER]
    depends = np.zeros((8, 8))
    for late, place in enumerate(order):
        depends[place, order[:late]] = near
    mixing = np.linalg.inv(np.eye(8) - depends)
    covariance = whole @ mixing @ mixing.T @ whole.T + top @ top.T + SIGMA**2 * np.eye(VOXELS)
    return model, multivariate_normal(mean, covariance)


def drawn(known, n=3):
    x = known.rvs(n, random_state=1)
    return torch.from_numpy(x).float().view(n, 1, *SHAPE), known.logpdf(x)


def test_with_exact_posteriors_every_bound_is_the_likelihood_for_every_draw():
    model, known = silent()
    x, exact = drawn(known)
    np.testing.assert_allclose(model.log_likelihood(x, samples=1, generator=generator()), exact, rtol=1e-4)
    np.testing.assert_allclose(model.log_likelihood(x, samples=9, generator=generator()), exact, rtol=1e-4)
    elbo = model.elbo(x, samples=200, generator=generator())
    # Ten codes, half a squared nat of variance each.
    np.testing.assert_allclose(elbo, exact, atol=4 * math.sqrt(5 / 200))


def test_the_bound_rises_from_elbo_to_the_likelihood_where_the_prior_ties_neighbours():
    model, known = silent(near=0.4)
    x, exact = drawn(known, 2)
    # The posterior of blocks knows nothing of neighbours: a bound, and not a tight one.
    elbo = model.elbo(x, samples=100, generator=generator()).numpy()
    few = torch.stack([model.log_likelihood(x, samples=8, generator=generator(seed)) for seed in range(8)]).mean(0)
    many = model.log_likelihood(x, samples=2000, generator=generator()).numpy()
    assert (elbo < few.numpy()).all()
    assert (few.numpy() < exact).all()
    np.testing.assert_allclose(many, exact, atol=1.0)


def test_a_mask_counts_the_voxels_inside_alone():
    model, known = silent()
    x, _ = drawn(known, 1)
    mask = torch.zeros(1, 1, *SHAPE)
    mask[:, :, :4] = 1
    seen = mask.flatten().bool().numpy()
    covariance = known.cov_object.covariance[np.ix_(seen, seen)]
    exact = multivariate_normal(known.mean[seen], covariance).logpdf(x.flatten().double().numpy()[seen])
    # Posteriors of the whole scan, told more than the half: a bound below its likelihood.
    assert model.elbo(x, mask, samples=100, generator=generator()).item() < exact + 0.1
    assert exact - 6 < model.log_likelihood(x, mask, samples=300, generator=generator()).item() < exact


def test_decode_adds_the_variance_that_the_grids_hold():
    model, known = silent()
    n = 400
    x = torch.from_numpy(known.rvs(n, random_state=2)).float().view(n, 1, *SHAPE)
    names = tuple(str(number) for number in range(n))
    model.measure_grids(Dataset(names, names, x, torch.ones_like(x, dtype=torch.bool)))
    decoded = model.decode(torch.zeros(1, 2))
    block = model.block_codes[0](torch.ones(1, 1, 2, 2, 2)).square()
    # Sampled, and a tenth of the mean variance more.
    expected = SIGMA**2 + block + 0.1 * (SIGMA**2 + block.mean())
    assert (decoded.logvar.exp() / expected).mean().item() == pytest.approx(1, abs=0.05)
    assert (decoded.logvar.exp() / expected).std().item() < 0.15
    torch.testing.assert_close(decoded.mean[0], model.linear.mean)


def test_the_voxel_map_sums_to_the_bound_at_the_means():
    model, known = silent(near=0.4)
    x, _ = drawn(known, 2)
    features = model.features(x)
    decoded, (grid,) = model.infer(x, model.encode(x)[0], features, means)
    expected = gaussian_nll(x, decoded.mean, decoded.logvar).flatten(1).sum(1) + grid.kl().flatten(1).sum(1)
    torch.testing.assert_close(model.voxel_bound(x).flatten(1).sum(1), expected, rtol=1e-4, atol=1e-2)


def test_untypical_codes_are_drawn_back_to_their_prior():
    model, known = silent()
    x, _ = drawn(known, 1)
    x[0, 0, :4, :4, :4] += 20 * model.block_codes[0](torch.ones(1, 1, 2, 2, 2))[0, 0, :4, :4, :4]
    free = model.reconstruct(x)
    model.settings = model.settings.model_copy(update={"typical": 2.0})
    kept = model.reconstruct(x)
    assert (x - free)[..., :4, :4, :4].square().mean() < 0.3 * (x - kept)[..., :4, :4, :4].square().mean()
    _, (grid,) = model.infer(x, model.encode(x)[0], model.features(x), means, typical=2.0)
    assert (grid.code - grid.prior_mean).abs().max().item() == pytest.approx(2.0, abs=1e-4)


def cohort(n=8, shape=(16, 16, 16)):
    names = tuple(f"c{k}" for k in range(n))
    coarse = torch.rand((n, 1, 8, 8, 8), generator=generator())
    images = torch.nn.functional.interpolate(coarse, size=shape, mode="trilinear")
    return Dataset(names, names, images, torch.ones((n, 1, *shape), dtype=torch.bool))


def test_training_starts_far_better_than_components_of_whole_scans():
    data = cohort()
    settings = {"family": "vae", "shape": data.shape, "widths": [16, 16], "latent": 2, "codes": [[4, 8], [2, 2]]}
    model = build(settings, seed=0).eval()
    model.initialize(data)
    whole = model.linear(model.linear.scores(data.images))[0]
    error = (
        model.infer(data.images, model.encode(data.images)[0], model.features(data.images), means)[0].mean
    ) - data.images
    assert error.square().mean() < 0.2 * (whole - data.images).square().mean()


def test_a_level_that_holds_nothing_is_said_to_have_collapsed(caplog):
    data = cohort(4)
    settings = {"family": "vae", "shape": data.shape, "widths": [16, 16], "latent": 2, "codes": [[4, 2]]}
    model = build(settings, seed=0).eval()
    with caplog.at_level(logging.WARNING):
        model.initialize(data)
        model.finalize(data)
    assert not caplog.messages
    assert (model.level_nats > 1).all()
    model.block_codes[0].weights.zero_()
    model.block_codes[0].logvar.zero_()
    grid = model.decoder.grids()[0]
    with torch.no_grad():
        grid.neighbours.zero_()
        grid.left.zero_()
    with caplog.at_level(logging.WARNING):
        model.finalize(data)
    assert any("level 1 of the codes holds 0.00 nats" in message for message in caplog.messages)
    said = {fact.name: fact for fact in model.facts()}
    assert said["nats_level0"].value == pytest.approx(float(model.level_nats[0]))
    assert said["nats_level1"].text.endswith("holds 0.0 nats of a training scan.")
    assert said["likelihood"].value == "bound"


def test_no_weights_grow_with_the_scan():
    with torch.device("meta"):
        large, small = (build({"family": "vae", "shape": (size,) * 3, "latent": 4}) for size in (32, 256))
    assert large.parameter_count == small.parameter_count < 2_000_000


@pytest.mark.parametrize(
    ("codes", "words"), [([[16, 2]], "found .16."), ([[2, 4], [4, 4]], "coarse to fine"), ([[2, 8]], "1 to 7 numbers")]
)
def test_grids_that_do_not_fit_are_refused(codes, words):
    with pytest.raises(ConfigError, match=words):
        build({"family": "vae", "shape": SHAPE, "widths": [16, 16], "codes": codes})
