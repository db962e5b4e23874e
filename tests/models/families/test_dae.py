import numpy as np
import torch

from medgen.models.catalogue import build
from medgen.models.families.dae import coarse_noise
from medgen.preprocessing.dataset import Batch

SHAPE = (12, 10, 9)


def interpolated_variance(size, points):
    """Mean over the voxels of Σ w², w the two weights of linear interpolation between ``points`` grid points."""
    place = np.linspace(0, points - 1, size)
    share = place - np.floor(place)
    return np.mean(share**2 + (1 - share) ** 2)


def test_noise_has_the_variance_of_interpolated_noise_everywhere():
    torch.manual_seed(0)
    noise = torch.cat([coarse_noise(torch.zeros(500, 1, *SHAPE), 0.2, 4) for _ in range(20)])
    expected = 0.2**2 * np.prod([interpolated_variance(s, p) for s, p in zip(SHAPE, (3, 3, 3), strict=True)])
    assert abs(noise.mean().item()) < 0.003
    variance = noise.var(0)
    np.testing.assert_allclose(variance.mean(), expected, rtol=0.03)
    # The roll makes all places alike: 10,000 draws know a variance to 1.4 %, a little worse for mixtures.
    np.testing.assert_allclose(variance, expected, rtol=0.12)


def test_noise_is_coarse_and_scans_and_channels_have_their_own():
    torch.manual_seed(0)
    noise = coarse_noise(torch.zeros(300, 2, 32, 32, 32), 1.0, 8)
    middle = noise[..., 8:24, 8:24, 8:24]
    near = (middle[..., 1:] - middle[..., :-1]).square().mean()
    # Steps along one axis: 2 (3/31)² within a piece, and where the roll wraps, in one of 32, about that of two draws;
    # over the 2/3 that interpolation leaves of the variance, 0.03 + 0.08. Of white noise it would be 2.
    assert near < 0.15 * middle.square().mean()
    a, b = noise[:, 0].flatten(), noise[:, 1].flatten()
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.05
    assert not torch.equal(noise[0], noise[1])


def test_only_the_foreground_is_noisy_and_only_it_counts():
    model = build({"family": "dae", "shape": SHAPE, "widths": (16,), "coarseness": 4, "noise": 0.5}, seed=0)
    seen = []

    class Still(torch.nn.Module):
        def forward(self, x):
            seen.append(x)
            return torch.zeros_like(x)

    model.network = Still()
    image = torch.rand(4, 1, *SHAPE)
    foreground = torch.zeros(4, 1, *SHAPE)
    foreground[:, :, 3:9, 2:8, 2:7] = 1
    loss = model.loss("all", Batch(image, foreground))["loss"]
    noise = seen[0] - image
    assert (noise[foreground == 0] == 0).all()
    assert (noise[foreground == 1] != 0).float().mean() > 0.99
    # A network that removes nothing is off by the noise.
    torch.testing.assert_close(loss, noise[foreground == 1].square().mean())


def test_training_takes_coarse_noise_off_and_leaves_detail():
    from medgen.preprocessing.dataset import Dataset
    from medgen.training.trainer import TrainingConfig, fit

    stripes = 0.5 + 0.2 * (-1.0) ** torch.arange(16).view(1, 1, 16, 1, 1).expand(4, 1, 16, 16, 16)
    names = tuple("abcd")
    data = Dataset(names, names, stripes, torch.ones((4, 1, 16, 16, 16), dtype=torch.bool))
    model = build({"family": "dae", "shape": (16, 16, 16), "widths": (16, 16)}, seed=0)
    config = TrainingConfig(steps=200, batch_size=4, lr=3e-3, precision="32", ema=0.9)
    trained = fit(model, data, config, seed=0, device="cpu").model.eval()
    torch.manual_seed(1)
    noise = coarse_noise(stripes, 0.2, 8)
    after = (trained.denoise(stripes + noise) - stripes).square().mean()
    assert after < 0.3 * noise.square().mean()
    assert (trained.denoise(stripes) - stripes).square().mean() < 0.1 * noise.square().mean()
