import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.distributions import Normal, kl_divergence

from medgen.models import losses


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_gaussian_nll_is_the_density_of_torch():
    x, mean, logvar = randn(50, seed=1).float(), randn(50, seed=2).float(), randn(50, seed=3).float()
    expected = -Normal(mean, (0.5 * logvar).exp()).log_prob(x)
    torch.testing.assert_close(losses.gaussian_nll(x, mean, logvar), expected)


def test_kl_is_that_of_torch():
    mean, logvar = randn(50, seed=1).float(), randn(50, seed=2).float()
    expected = kl_divergence(Normal(mean, (0.5 * logvar).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(losses.kl_standard_normal(mean, logvar), expected)


def test_free_bits_are_free():
    kl = torch.tensor([[0.1, 2.0], [0.3, 4.0]])
    assert losses.free_bits(kl, 0.0).item() == pytest.approx(3.2)
    assert losses.free_bits(kl, 0.5).item() == pytest.approx(3.5)


def test_weighted_mean_counts_voxels_and_channels():
    values, weight = torch.arange(16.0).reshape(1, 2, 2, 2, 2), torch.zeros(1, 1, 2, 2, 2)
    weight[..., 0, 0, 0] = 2.0
    assert losses.weighted_mean(values, weight).item() == pytest.approx((0 + 8) / 2)


class LinearGaussian:
    """z ~ N(0, I), x | z ~ N(W z + b, s² I): log p(x) = log N(x; b, W Wᵀ + s² I) is known exactly."""

    def __init__(self):
        self.weight, self.bias, self.sd = randn(6, 2, seed=4), randn(6, seed=5), 0.7
        covariance = self.weight @ self.weight.T + self.sd**2 * torch.eye(6, dtype=torch.float64)
        self.marginal = torch.distributions.MultivariateNormal(self.bias, covariance)
        # Exact posterior, then made too wide and shifted: the kind of q a trained encoder gives.
        precision = torch.eye(2, dtype=torch.float64) + self.weight.T @ self.weight / self.sd**2
        self.posterior_covariance = torch.linalg.inv(precision)

    def bound(self, x, samples, generator, exact=False):
        mean = (x - self.bias) @ self.weight @ self.posterior_covariance / self.sd**2
        if exact:
            q = torch.distributions.MultivariateNormal(mean, self.posterior_covariance)
            factor = torch.linalg.cholesky(self.posterior_covariance)
        else:
            factor = torch.diag(1.5 * self.posterior_covariance.diagonal().sqrt())
            mean = mean + 0.1
            q = torch.distributions.MultivariateNormal(mean, scale_tril=factor)
        z = mean + torch.randn((samples, *mean.shape), generator=generator, dtype=torch.float64) @ factor.T
        log_p_x = Normal(z @ self.weight.T + self.bias, self.sd).log_prob(x).sum(-1)
        return losses.iwae_bound(log_p_x, Normal(0.0, 1.0).log_prob(z).sum(-1), q.log_prob(z))


def test_iwae_is_exact_with_the_exact_posterior():
    model, generator = LinearGaussian(), torch.Generator().manual_seed(0)
    x = model.marginal.sample((20,))
    torch.testing.assert_close(model.bound(x, 3, generator, exact=True), model.marginal.log_prob(x))


def test_iwae_bounds_the_exact_likelihood_and_tightens():
    model, generator = LinearGaussian(), torch.Generator().manual_seed(0)
    torch.manual_seed(1)
    x = model.marginal.sample((400,))
    exact = model.marginal.log_prob(x).mean().item()
    one, eight, many = (model.bound(x, k, generator).mean().item() for k in (1, 8, 512))
    assert one < eight < exact + 0.01
    assert many == pytest.approx(exact, abs=0.02)


def test_hinge_terms_in_closed_form():
    real, fake = torch.tensor([2.0, 0.0]), torch.tensor([-3.0, 1.0])
    assert losses.hinge_discriminator(real, fake).item() == pytest.approx(0.5 * (0.5 + 1.0))
    assert losses.hinge_generator(fake).item() == pytest.approx(1.0)


def test_a_losing_generator_keeps_its_gradient():
    logit = torch.tensor([-5.0], requires_grad=True)
    losses.hinge_generator(logit).backward()
    assert logit.grad.item() == pytest.approx(-1.0)


def test_r1_of_a_quadratic():
    x = randn(3, 4).requires_grad_()
    # D(x) = ½ ‖x‖², so ∇D = x and the penalty is ½ E ‖x‖².
    penalty = losses.r1_penalty(0.5 * x.square().sum(1), x)
    assert penalty.item() == pytest.approx(0.5 * x.detach().square().sum(1).mean().item(), rel=1e-6)
    penalty.backward()
    torch.testing.assert_close(x.grad, x.detach() / 3)


def test_feature_matching_has_no_gradient_through_the_real_side():
    real, fake = torch.zeros(2, 3, requires_grad=True), torch.ones(2, 3, requires_grad=True)
    value = losses.feature_matching([real], [fake])
    value.backward()
    assert value.item() == 1.0
    assert real.grad is None
    assert fake.grad is not None


@pytest.mark.parametrize("truncation", [1, 5, 11])
def test_signed_distance_is_that_of_scipy(truncation):
    rng = np.random.default_rng(0)
    labels = np.zeros((2, 1, 14, 17, 11), dtype=np.int64)
    labels[0, 0, 3:9, 4:12, 2:8] = 1
    labels[0, 0, 9:12, 4:12, 2:8] = 2
    labels[1, 0] = rng.random((14, 17, 11)) > 0.98
    found = losses.signed_distance(torch.from_numpy(labels), 2, truncation).numpy()
    assert found.shape == (2, 2, 14, 17, 11)
    for case in range(2):
        for label in (1, 2):
            inside = labels[case, 0] == label
            if not inside.any():
                assert (found[case, label - 1] == -1).all()
                continue
            to_outside, to_inside = ndimage.distance_transform_edt(inside), ndimage.distance_transform_edt(~inside)
            expected = np.where(inside, to_outside - 0.5, 0.5 - to_inside) / truncation
            np.testing.assert_allclose(found[case, label - 1], np.clip(expected, -1, 1), atol=1e-6)


def test_labels_come_back_from_their_distances():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (2, 1, 9, 8, 7), generator=generator)
    distance = losses.signed_distance(labels, 3, 5)
    assert torch.equal(losses.labels_from_distance(distance), labels[:, 0])


def test_truncation_beyond_the_integers_is_refused():
    with pytest.raises(ValueError, match="1 to 11"):
        losses.signed_distance(torch.zeros(1, 1, 3, 3, 3, dtype=torch.long), 1, 12)


def test_log_2pi():
    assert pytest.approx(math.log(2 * math.pi)) == losses.LOG_2PI
