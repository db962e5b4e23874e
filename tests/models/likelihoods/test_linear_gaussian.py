import numpy as np
import torch
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA

from medgen.models.likelihoods.linear_gaussian import LinearGaussian
from medgen.preprocessing.dataset import Dataset

SHAPE = (8, 8, 8)


def cohort(n=20):
    generator = torch.Generator().manual_seed(0)
    names = tuple(str(number) for number in range(n))
    images = torch.randn(n, 3, generator=generator) @ torch.randn(3, 512, generator=generator)
    images = (images + 0.3 * torch.randn(n, 512, generator=generator)).view(n, 1, *SHAPE)
    return Dataset(names, names, images, torch.ones((n, 1, *SHAPE), dtype=torch.bool))


def test_the_likelihood_is_that_of_the_gaussian_written_out():
    data = cohort()
    model = LinearGaussian.fit(data, 3)
    basis = model.linear.basis.flatten(1).double().numpy()
    covariance = basis.T @ basis + np.diag(model.variance.flatten().double().numpy())
    mask = torch.zeros(2, 1, *SHAPE)
    mask[0, :, :3], mask[1] = 1, 1
    found = model.log_likelihood(data.images[:2], mask)
    for row in range(2):
        seen = mask[row].flatten().bool().numpy()
        known = multivariate_normal(model.linear.mean.flatten().numpy()[seen], covariance[np.ix_(seen, seen)])
        expected = known.logpdf(data.images[row].flatten().double().numpy()[seen])
        np.testing.assert_allclose(found[row], expected, rtol=1e-4)


def test_reconstructions_are_those_of_scikit_learn_and_the_variance_is_not_that_of_memory():
    data = cohort()
    model = LinearGaussian.fit(data, 3)
    flat = data.images.flatten(1).numpy()
    pca = PCA(3).fit(flat)
    expected = pca.inverse_transform(pca.transform(flat))
    np.testing.assert_allclose(model.reconstruct(data.images).flatten(1), expected, atol=1e-3)
    # Noise of variance 0.09, and the tenth that is added.
    np.testing.assert_allclose(model.variance.mean(), 1.1 * 0.09, rtol=0.1)
    assert len(LinearGaussian.fit(data, 64).linear.basis) == 18
