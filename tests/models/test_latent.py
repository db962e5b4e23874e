import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from medgen.models.catalogue import build
from medgen.models.latent import LOGVAR_RANGE
from medgen.preprocessing.dataset import Dataset

SHAPE = (10, 13, 9)


@pytest.fixture
def vae():
    model = build({"family": "cevae", "shape": SHAPE, "widths": [16], "latent": 4, "narrow": 4}, seed=0).eval()
    with torch.no_grad():
        # Far enough from the start that the decoder depends on the code.
        model.decoder.head.weight.mul_(10)
        # And posteriors as wide as the prior, so that importance weights are tame.
        model.encoder.vector.bias[4:] += 4
    return model


def scans(n=3, seed=0):
    return torch.rand((n, 1, *SHAPE), generator=torch.Generator().manual_seed(seed))


def dataset(n=6):
    names = tuple(f"c{k}" for k in range(n))
    return Dataset(names, names, scans(n), torch.ones((n, 1, *SHAPE), dtype=torch.bool))


def test_any_shape_goes_in_and_comes_out(vae):
    x = scans()
    assert vae.reconstruct(x).shape == x.shape
    mean, logvar = vae.encode(x)
    assert mean.shape == logvar.shape == (3, 4)
    decoded = vae.decode(mean)
    assert decoded.logvar.min() > LOGVAR_RANGE[0]
    assert decoded.logvar.max() < LOGVAR_RANGE[1]


def test_the_bound_rises_from_elbo_to_iwae(vae):
    x = scans(2)
    generator = torch.Generator().manual_seed(0)
    elbo = torch.stack([vae.elbo(x, samples=16, generator=generator) for _ in range(4)]).mean(0)
    iwae = torch.stack([vae.log_likelihood(x, samples=64, generator=generator) for _ in range(4)]).mean(0)
    assert (iwae > elbo).all()


def test_elbo_is_iwae_with_one_sample_on_average(vae):
    x = scans(1)
    generator = torch.Generator().manual_seed(0)
    one = torch.stack([vae.log_likelihood(x, samples=1, generator=generator) for _ in range(200)])
    elbo = vae.elbo(x, samples=200, generator=generator)
    assert abs(one.mean() - elbo).item() < 4 * one.std().item() / 200**0.5 + 0.2


def test_an_empty_mask_leaves_the_prior_alone(vae):
    mask = torch.zeros(2, 1, *SHAPE)
    # log (1/K) Σ p(z)/q(z) estimates log 1.
    value = vae.log_likelihood(scans(2), mask, samples=2000, generator=torch.Generator().manual_seed(0))
    assert value.abs().max() < 0.3


def test_voxel_nll_sums_to_the_likelihood_at_the_posterior_mean(vae):
    x = scans(1)
    decoded = vae.decode(vae.encode(x)[0])
    expected = torch.distributions.Normal(decoded.mean, (0.5 * decoded.logvar).exp()).log_prob(x)
    torch.testing.assert_close(vae.voxel_nll(x), -expected)


def test_likelihood_of_a_scan_does_not_depend_on_its_batch(vae):
    x = scans(3)
    alone = vae.elbo(x[1:2], samples=500, generator=torch.Generator().manual_seed(0))
    together = vae.elbo(x, samples=500, generator=torch.Generator().manual_seed(1))[1:2]
    torch.testing.assert_close(alone, together, atol=2.0, rtol=0.01)


def small(**changes):
    settings = {"family": "cevae", "shape": SHAPE, "widths": [16], "latent": 4, "narrow": 4, **changes}
    model = build(settings, seed=0).eval()
    with torch.no_grad():
        # The linear part alone.
        model.decoder.head.weight.zero_()
        model.decoder.head.bias.zero_()
    return model


def test_training_starts_as_the_pca_of_scikit_learn():
    model, data = small(components=3), dataset(10)
    model.initialize(data)
    flat = data.images.flatten(1).numpy()
    pca = PCA(3, whiten=True).fit(flat)
    found = model.reconstruct(data.images).flatten(1)
    np.testing.assert_allclose(found, pca.inverse_transform(pca.transform(flat)), atol=1e-4)
    scores = model.encode(data.images)[0][:, :3].detach().numpy()
    expected = pca.transform(flat) * np.sqrt(10 / 9)  # scikit-learn divides by n - 1
    np.testing.assert_allclose(np.abs(scores), np.abs(expected), atol=1e-3)


def test_without_components_training_starts_at_the_weighted_mean():
    model, data = small(components=0), dataset(4)
    half = data.foregrounds.clone()
    half[0] = False
    model.initialize(Dataset(data.ids, data.subjects, data.images, half))
    weight = torch.tensor([0.1, 1, 1, 1]).view(4, 1, 1, 1, 1)
    expected = (weight * data.images).sum(0) / 3.1
    torch.testing.assert_close(model.reconstruct(data.images), expected.expand_as(data.images))


def test_more_components_than_scans_are_left_at_zero():
    model = small(components=4)
    model.initialize(dataset(3))
    assert (model.linear.precision > 0).tolist() == [True, True, False, False]
    assert torch.isfinite(model.reconstruct(dataset(3).images)).all()
    model.initialize(dataset(1))
    torch.testing.assert_close(model.reconstruct(dataset(1).images), dataset(1).images)


def test_finalize_fits_the_aggregated_posterior(vae):
    data = dataset(12)
    vae.finalize(data)
    mean, logvar = vae.encode(data.images)
    torch.testing.assert_close(vae.latent_mean, mean.mean(0), atol=1e-5, rtol=1e-4)
    covariance = vae.latent_factor @ vae.latent_factor.T
    # Shrinkage keeps the trace: total variance is that of the means plus the mean variance.
    total = mean.var(0, correction=0).sum() + logvar.exp().mean(0).sum()
    assert covariance.trace().item() == pytest.approx(total.item(), rel=1e-4)


def test_finalize_works_with_one_case(vae):
    vae.finalize(dataset(1))
    assert torch.isfinite(vae.sample(2, torch.Generator().manual_seed(0))).all()


def test_the_likelihood_of_a_linear_decoder_is_that_of_probabilistic_pca():
    """log N(x; m, W Wᵀ + σ² I) (Tipping and Bishop 1999, equation 3); with the exact posterior any draw gives it."""
    model, data = small(components=4), dataset(10)
    model.initialize(data)
    with torch.no_grad():
        model.linear.spread.fill_(0.3)
        decoded = model.decode(torch.zeros(1, 4))
        variance = float(decoded.logvar.exp().mean())
        mean = decoded.mean.flatten()
        weights = torch.stack([(model.decode(code[None]).mean.flatten() - mean) for code in torch.eye(4)])
        x = scans(3, seed=5)
        exact = torch.distributions.LowRankMultivariateNormal(
            mean.double(), weights.double().T, torch.full_like(mean, variance).double()
        ).log_prob(x.flatten(1).double())
        # Columns of W are orthogonal, so the posterior has no covariance between dimensions.
        precision = 1 + weights.square().sum(1) / variance
        posterior = (x.flatten(1) - mean) @ weights.T / variance / precision
        model.encode = lambda images: (posterior[: len(images)], -precision.log().expand(len(images), -1))
        for samples in (1, 16):
            found = model.log_likelihood(x, samples=samples, generator=torch.Generator().manual_seed(samples))
            torch.testing.assert_close(found.double(), exact, atol=0.1, rtol=0)
