"""Likelihood and latent scores where the answer is known: a linear-Gaussian model, SciPy and scikit-learn.

The model is the family ``cevae`` (one code of the whole scan) with its networks silenced, which leaves the linear part
x | z ~ N(μ + B z, σ² I), z ~ N(0, I), and so log p(x) = log N(x; μ, B Bᵀ + σ² I). The columns of B are
orthogonal: the posterior is diagonal.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.covariance import LedoitWolf
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors

from medgen.anomaly.config import AnomalyConfig
from medgen.anomaly.ensemble import supported
from medgen.anomaly.scores.base import Inputs
from medgen.anomaly.scores.catalogue import registered
from medgen.models.catalogue import build
from medgen.models.latent import LOGVAR_RANGE

SHAPE = (8, 8, 8)
SIGMA = 0.5
LENGTHS = np.array([3.0, 2.0, 1.0])
VOXELS = 512


class LinearGaussian:
    """The silenced model, its exact likelihood, and an encoder that is exact or wrong by a known amount."""

    def __init__(self, shift=0.0, widen=0.0):
        """``shift`` in posterior standard deviations, ``widen`` added to the log-variance, of every code dimension."""
        rng = np.random.default_rng(0)
        self.mean = rng.normal(0.7, 0.1, VOXELS)
        self.basis = np.linalg.qr(rng.normal(size=(VOXELS, 3)))[0] * LENGTHS
        self.posterior_variance = SIGMA**2 / (SIGMA**2 + LENGTHS**2)
        settings = {"family": "cevae", "shape": SHAPE, "widths": [16], "latent": 3, "components": 3, "narrow": 4}
        self.model = build(settings, seed=0).eval()
        low, high = LOGVAR_RANGE
        level = (2 * math.log(SIGMA) - low) / (high - low)
        linear = self.model.linear
        with torch.no_grad():
            for layer in (self.model.decoder.head, self.model.encoder.vector):
                layer.weight.zero_()
                layer.bias.zero_()
            linear.mean.copy_(torch.from_numpy(self.mean).view(1, *SHAPE))
            linear.basis.copy_(torch.from_numpy(self.basis.T.copy()).view(3, 1, *SHAPE))
            linear.spread.fill_(math.log(level / (1 - level)))
            linear.weight.fill_(1)
            linear.precision.copy_(torch.from_numpy(1 / (SIGMA**2 + LENGTHS**2)))
            self.model.encoder.vector.bias[:3] = torch.from_numpy(shift * np.sqrt(self.posterior_variance))
            self.model.encoder.vector.bias[3:] = torch.from_numpy(np.log(self.posterior_variance) + widen)

    def draw(self, n, seed=1):
        rng = np.random.default_rng(seed)
        x = self.mean + rng.normal(size=(n, 3)) @ self.basis.T + SIGMA * rng.normal(size=(n, VOXELS))
        return torch.from_numpy(x).float().view(n, 1, *SHAPE)

    def exact(self, x):
        """log p(x) in nats."""
        covariance = self.basis @ self.basis.T + SIGMA**2 * np.eye(VOXELS)
        return multivariate_normal(self.mean, covariance).logpdf(x.flatten(1).double().numpy())

    def inputs(self, x, **settings):
        return Inputs(x, torch.ones((len(x), 1, *SHAPE), dtype=torch.bool), (self.model,), settings)


def divergence(shift, widen):
    """KL of a Gaussian that is wrong by so much in each of three dimensions from the exact posterior, in nats."""
    return 3 * 0.5 * (shift**2 + math.exp(widen) - 1 - widen)


def test_with_the_exact_posterior_every_bound_is_the_likelihood():
    linear = LinearGaussian()
    x = linear.draw(6)
    exact = linear.exact(x)
    scores = registered()["iwae"](linear.inputs(x, likelihood_samples=1), {})
    np.testing.assert_allclose(-scores * VOXELS, exact, rtol=1e-4)
    scores = registered()["iwae"](linear.inputs(x, likelihood_samples=5), {})
    np.testing.assert_allclose(-scores * VOXELS, exact, rtol=1e-4)
    # Not exact for every draw, since its KL is in closed form; so on average, with 3 / 2 nats² of variance per draw.
    elbo = linear.model.elbo(x, samples=2000, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(elbo, exact, atol=4 * math.sqrt(1.5 / 2000))


def test_the_elbo_of_a_wrong_posterior_is_low_by_its_divergence():
    linear = LinearGaussian(shift=1.0, widen=0.5)
    x = linear.draw(4)
    elbo = linear.model.elbo(x, samples=4000, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(linear.exact(x) - elbo.numpy(), divergence(1.0, 0.5), atol=0.2)


def test_the_importance_weighted_bound_rises_to_the_exact_likelihood():
    linear = LinearGaussian(shift=1.0, widen=0.5)
    x = linear.draw(60)
    generator = torch.Generator().manual_seed(0)
    gaps = [
        np.mean(linear.exact(x) - linear.model.log_likelihood(x, samples=samples, generator=generator).numpy())
        for samples in (1, 8, 64, 512)
    ]
    assert gaps[0] > gaps[1] > gaps[2] > gaps[3]
    assert gaps[0] == pytest.approx(divergence(1.0, 0.5), abs=0.9)
    assert gaps[2] > 0
    assert gaps[3] == pytest.approx(0, abs=0.05)


def test_no_regret_with_the_exact_posterior():
    linear = LinearGaussian()
    scores = registered()["regret"](linear.inputs(linear.draw(3), restoration_steps=30), {})
    assert (scores >= 0).all()
    assert (scores < 0.01).all()


@pytest.mark.parametrize(("shift", "widen"), [(2.0, 0.0), (0.0, 1.5), (3.0, -1.0)])
def test_regret_is_the_divergence_of_the_encoder_from_the_exact_posterior(shift, widen):
    linear = LinearGaussian(shift, widen)
    scores = registered()["regret"](linear.inputs(linear.draw(2), restoration_steps=60), {})
    np.testing.assert_allclose(scores, divergence(shift, widen), rtol=0.03)


def test_regret_grows_with_the_steps_and_leaves_the_model_as_it_was():
    linear = LinearGaussian(shift=5.0)
    before = {name: value.clone() for name, value in linear.model.state_dict().items()}
    x = linear.draw(1)
    few, more = (registered()["regret"](linear.inputs(x, restoration_steps=steps), {})[0] for steps in (2, 60))
    assert 0 < few < more <= divergence(5.0, 0.0) * 1.001
    assert all(torch.equal(value, before[name]) for name, value in linear.model.state_dict().items())
    assert all(parameter.grad is None for parameter in linear.model.parameters())


def test_regret_and_likelihood_see_the_foreground_alone():
    linear = LinearGaussian()
    x = linear.draw(1)
    mask = torch.zeros((1, 1, *SHAPE), dtype=torch.bool)
    mask[:, :, :4] = True
    inputs = Inputs(x, mask, (linear.model,), {"restoration_steps": 150, "likelihood_samples": 2000})
    seen = mask.flatten().numpy()
    covariance = (linear.basis @ linear.basis.T + SIGMA**2 * np.eye(VOXELS))[np.ix_(seen, seen)]
    exact = multivariate_normal(linear.mean[seen], covariance).logpdf(x.flatten().double().numpy()[seen])
    assert -registered()["iwae"](inputs, {})[0] * seen.sum() == pytest.approx(exact, abs=0.2)
    # The encoder, told of the whole scan, is wrong about the half; its bound is at most the half's likelihood.
    start = linear.model.elbo(x, mask.float(), samples=4000, generator=torch.Generator().manual_seed(0)).item()
    assert 0 < registered()["regret"](inputs, {})[0] < exact - start + 0.1


def test_costly_scores_are_computed_only_where_they_are_named():
    model = LinearGaussian().model
    assert "regret" not in supported([model], AnomalyConfig(), None)
    assert "regret" in supported([model], AnomalyConfig(scores=("regret",)), None)


class Codes:
    """Codes (n, d) in place of a model and its scans."""

    def __init__(self, n, d, seed=0, clusters=1):
        self.learned = {}
        rng = np.random.default_rng(seed)
        centres = 4 * np.random.default_rng(7).normal(size=(clusters, d))
        mixing = np.random.default_rng(8).normal(size=(d, d)) / math.sqrt(d)
        self.latent = centres[np.arange(n) % clusters] + 0.3 * rng.normal(size=(n, d)) @ mixing

    def __len__(self):
        return len(self.latent)


def fitted(name, training):
    entry = registered()[name]
    return entry, entry.fit(training)


@pytest.mark.parametrize(("n", "d"), [(40, 6), (15, 48)])
def test_mahalanobis_is_that_of_scikit_learn(n, d):
    training, new = Codes(n, d), Codes(5, d, seed=1)
    entry, state = fitted("mahalanobis", training)
    expected = np.sqrt(LedoitWolf().fit(training.latent).mahalanobis(new.latent))
    np.testing.assert_allclose(entry(new, state), expected, rtol=1e-5)


@pytest.mark.parametrize(("n", "k"), [(15, 3), (2, 2)])
def test_neighbours_are_those_of_scikit_learn(n, k):
    training, new = Codes(n, 32), Codes(6, 32, seed=1)
    entry, state = fitted("latent_knn", training)
    distances, _ = NearestNeighbors(n_neighbors=k).fit(training.latent).kneighbors(new.latent)
    np.testing.assert_allclose(entry(new, state), distances[:, -1], rtol=1e-5)


def reference(state):
    """The same density as scikit-learn's mixture with full covariances over all dimensions of the code."""
    axes, rest = state["axes"], state["rest"][0]
    lengths = np.linalg.norm(axes, axis=1)
    unit = axes / lengths[:, None]
    mixture = GaussianMixture(len(state["weights"]), covariance_type="full")
    mixture.weights_ = state["weights"]
    mixture.means_ = state["origin"] + (state["means"] / lengths) @ unit
    spread = np.stack([unit.T @ np.diag(own / lengths**2) @ unit for own in state["variances"]])
    mixture.covariances_ = spread + rest * (np.eye(axes.shape[1]) - unit.T @ unit)
    mixture.precisions_cholesky_ = np.linalg.cholesky(np.linalg.inv(mixture.covariances_))
    return mixture


@pytest.mark.parametrize(("n", "d", "clusters"), [(15, 32, 1), (15, 64, 2), (60, 6, 3), (40, 4, 2)])
def test_the_mixture_has_the_density_of_scikit_learn(n, d, clusters):
    training, new = Codes(n, d, clusters=clusters), Codes(7, d, seed=1, clusters=clusters)
    entry, state = fitted("latent_gmm", training)
    np.testing.assert_allclose(entry(new, state), -reference(state).score_samples(new.latent), rtol=1e-4)


def test_bic_finds_the_clusters_of_the_codes():
    counts = [len(fitted("latent_gmm", Codes(60, 6, clusters=clusters))[1]["weights"]) for clusters in (1, 2, 3)]
    # Two clusters that are not aligned with the axes may take three components with diagonal covariances.
    assert counts[0] == 1
    assert counts[1] >= 2
    assert counts[2] == 3
    # A place between two clusters is near the mean of all codes and yet far from every one of them.
    training = Codes(60, 6, clusters=2)
    middle = Codes(1, 6)
    middle.latent = training.latent.mean(0, keepdims=True)
    entry, state = fitted("latent_gmm", training)
    assert entry(middle, state)[0] > np.quantile(entry(training, state), 0.9)
    other, moments = fitted("mahalanobis", training)
    assert other(middle, moments)[0] < other(training, moments).min()


@pytest.mark.parametrize("d", [32, 64])
def test_fifteen_scans_are_enough_for_a_stable_mixture(d):
    """New healthy codes are not far less likely than the training codes, and far codes are."""
    training, new, far = Codes(15, d), Codes(200, d, seed=1), Codes(20, d, seed=2)
    far.latent = far.latent + 3
    entry, state = fitted("latent_gmm", training)
    assert len(state["weights"]) <= 3
    own, healthy, unusual = (entry(codes, state) for codes in (training, new, far))
    assert np.isfinite(healthy).all()
    assert (healthy.mean() - own.mean()) / d < 1
    assert unusual.min() > healthy.max()


def test_codes_that_do_not_vary_have_a_finite_density():
    training = Codes(8, 5)
    training.latent = np.zeros((8, 5))
    entry, state = fitted("latent_gmm", training)
    assert len(state["weights"]) == 1
    assert np.isfinite(entry(Codes(3, 5), state)).all()
