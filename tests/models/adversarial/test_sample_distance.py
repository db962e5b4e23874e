"""What validation of GANs looks at: against closed forms, and that it sees blur, collapse and labels out of place."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.spatial.distance import cdist
from torch import Tensor
from torch.nn import functional

from medgen.models.adversarial.sample_distance import band_features, energy_distance, label_features, sample_distance
from medgen.models.networks.discriminator import fine_detail

SHAPE = (16, 16, 12)


def scans(n: int, seed: int = 0) -> Tensor:
    """A bright box of a size that differs between scans, under noise, (n, 1, i, j, k)."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.4 + 0.1 * torch.randn((n, 1, *SHAPE), generator=generator)
    for row in range(n):
        side = 5 + int(torch.randint(0, 4, (), generator=generator))
        images[row, :, 3 : 3 + side, 3 : 3 + side, 2:9] += 0.3
    return images


def test_the_energy_distance_is_that_of_two_gaussians_whatever_the_batch() -> None:
    """In one dimension E|x - y| = sqrt(2 (s^2 + t^2) / pi) for means alike."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn((20000, 1), generator=generator), 2 * torch.randn((20000, 1), generator=generator)
    expected = (2 * math.sqrt(2 * 5) - math.sqrt(2 * 2) - math.sqrt(2 * 8)) / math.sqrt(math.pi)
    for size in (2, 5):
        found = [energy_distance(a, b) for a, b in zip(x.split(size), y.split(size), strict=True)]
        assert float(torch.stack(found).mean()) == pytest.approx(expected, abs=0.03)


def test_a_sample_may_be_made_for_its_scan() -> None:
    x, y = torch.randn(6, 3), torch.randn(6, 3)
    across, own, others = (cdist(a, b) / math.sqrt(3) for a, b in ((x, y), (x, x), (y, y)))
    apart = [(n, m) for n in range(6) for m in range(6) if n != m]
    expected = sum(2 * across[pair] - own[pair] - others[pair] for pair in apart) / len(apart)
    assert float(energy_distance(x, y)) == pytest.approx(expected, rel=1e-4)
    # Copies of the scans are no nearer than other scans of their kind would be.
    assert float(energy_distance(y, y)) == pytest.approx(0, abs=1e-6)
    assert float(energy_distance(x[:1], y[:1])) == pytest.approx(2 * across[0, 0], rel=1e-4)


def test_bands_hold_what_scans_are_made_of() -> None:
    noise = 0.2 * torch.randn((4, 1, 16, 16, 16), generator=torch.Generator().manual_seed(0))
    *details, coarse = band_features(0.7 + noise)
    # White noise is as strong in every orthonormal band, and a mean over 2³ voxels is weaker by √8.
    for level, detail in enumerate(details):
        assert float(detail.mean()) == pytest.approx(0.2 / 8 ** (level / 2), rel=0.15)
    torch.testing.assert_close(coarse, functional.avg_pool3d(0.7 + noise, 8).flatten(1))


def test_a_blurred_scan_is_far_though_it_is_nearest_by_voxels() -> None:
    real, others = scans(8), scans(8, seed=1)
    blurred = functional.avg_pool3d(real, 3, 1, 1)
    assert float((blurred - real).abs().mean()) < float((others - real).abs().mean())
    assert float(sample_distance(others, real)) < 0.02
    assert float(sample_distance(blurred, real)) > 10 * abs(float(sample_distance(others, real)))
    grain = real + fine_detail(real) * torch.randn(real.shape, generator=torch.Generator().manual_seed(2))
    assert float(sample_distance(grain, real)) > 10 * abs(float(sample_distance(others, real)))


def test_one_scan_for_all_is_far() -> None:
    real, one = scans(8), scans(1, seed=1).expand(8, -1, -1, -1, -1)
    assert float(sample_distance(one, real)) > float(sample_distance(scans(8, seed=1), real)) + 0.005


def test_images_have_to_fit_their_labels() -> None:
    real = scans(8)
    labels = (functional.avg_pool3d(real, 5, 1, 2) > 0.55).long()
    moved = labels.roll(6, 2)
    fit, misfit = (float(sample_distance(real, real, (made, labels), 1)) for made in (labels, moved))
    assert fit == pytest.approx(0, abs=1e-6)
    assert misfit > 0.01
    found = label_features(real, labels, 1)[0]
    inside = real[0][labels[0] == 1]
    assert found[2:].tolist() == pytest.approx([float(inside.mean()), float(inside.std(correction=0))], rel=1e-3)
