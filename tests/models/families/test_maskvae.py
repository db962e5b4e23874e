"""The VAE of label maps: its shape model, its trust in labels, and where its samples lie."""

import numpy as np
import pytest
import torch

from medgen.errors import TrainingError
from medgen.models import losses
from medgen.models.catalogue import build
from medgen.preprocessing.dataset import Batch, Dataset
from medgen.training.trainer import TrainingConfig, fit

SHAPE = (16, 16, 16)
TINY = {"family": "maskvae", "shape": SHAPE, "widths": [16, 32], "latent": 6, "components": 3, "narrow": 4}


def balls(n=10):
    """Balls (label 1) with a core (label 2) whose radius differs between cases."""
    grid = torch.stack(torch.meshgrid(*[torch.arange(16.0)] * 3, indexing="ij"))
    distance = (grid - 7.5).norm(dim=0)
    radius = torch.linspace(4, 7, n)[:, None, None, None]
    labels = ((distance < radius).int() + (distance < 0.5 * radius).int()).to(torch.uint8)[:, None]
    names = tuple(f"c{k}" for k in range(n))
    return Dataset(names, names, torch.zeros(n, 1, *SHAPE), torch.ones(n, 1, *SHAPE, dtype=torch.bool), labels)


def test_it_starts_as_a_shape_model():
    data = balls()
    model = build({**TINY, "n_labels": 2}, seed=0)
    model.initialize(data)
    with torch.no_grad():
        found = model.labels_of(model.codes(data)[0])
    assert (found == data.labels).float().mean() > 0.99


def test_samples_lie_in_the_range_of_the_cohort():
    data = balls()
    model = build({**TINY, "n_labels": 2}, seed=0)
    fit(model, data, TrainingConfig(steps=20, batch_size=4, precision="32"), seed=0, device="cpu")
    drawn = model.sample_labels(30, torch.Generator().manual_seed(0))
    for label in (1, 2):
        real = (data.labels == label).flatten(1).sum(1).float()
        volume = (drawn == label).flatten(1).sum(1).float()
        assert 0.6 < volume.mean() / real.mean() < 1.6
        assert 0.3 < volume.std() / real.std() < 3


def test_a_thin_label_keeps_its_volume_in_drawn_anatomies():
    # A shell of one voxel around balls of many sizes and places, which the most probable labels get wrong.
    grid = torch.stack(torch.meshgrid(*[torch.arange(16.0)] * 3, indexing="ij"))
    generator = torch.Generator().manual_seed(3)
    labels = []
    for _ in range(24):
        centre = 7.5 + 1.5 * torch.randn(3, generator=generator)
        radius = 4.5 + 0.7 * torch.randn((), generator=generator)
        distance = (grid - centre[:, None, None, None]).norm(dim=0)
        labels.append((distance < radius).int() + ((distance >= radius) & (distance < radius + 1)).int() * 2)
    labels = torch.stack(labels).to(torch.uint8)[:, None]
    names = tuple(f"c{k}" for k in range(24))
    data = Dataset(names, names, torch.zeros(24, 1, *SHAPE), torch.ones(24, 1, *SHAPE, dtype=torch.bool), labels)
    model = build({**TINY, "n_labels": 2, "components": 2, "latent": 2}, seed=0)
    fit(model, data, TrainingConfig(steps=20, batch_size=4, precision="32"), seed=0, device="cpu")

    def volumes():
        drawn = model.sample_labels(60, torch.Generator().manual_seed(5))
        return [float((drawn == label).sum() / 60 / ((labels == label).sum() / 24)) for label in (1, 2)]

    ball, shell = volumes()
    assert 0.9 < ball < 1.1
    assert 0.85 < shell < 1.15
    model.balance.zero_()
    assert abs(volumes()[1] - 1) > 0.2


def test_voxels_of_no_confidence_do_not_count():
    data = balls()
    model = build({**TINY, "n_labels": 2}, seed=0)
    model.initialize(data)
    batch = data.batch([0, 9])
    trust = torch.ones(2, 1, *SHAPE)
    trust[:, :, :8] = 0

    def terms(labels, confidence):
        torch.manual_seed(0)
        model.encode_labels = lambda x: (torch.zeros(2, 6), torch.full((2, 6), -12.0))
        found = model.loss("all", Batch(batch.image, batch.foreground, labels, 0.0, confidence))
        return float(found["nll"]), float(found["dice"])

    changed = batch.labels.clone()
    changed[:, :, :8] = 2
    assert terms(changed, trust) == pytest.approx(terms(batch.labels, trust))
    assert terms(changed, None)[0] > terms(batch.labels, None)[0]


def test_soft_dice_of_hard_labels_is_the_mean_dice():
    from medgen.metrics.segmentation import dice

    generator = np.random.default_rng(0)
    one, two = generator.integers(0, 3, (2, 1, 8, 8, 8))
    hot = [losses.one_hot(torch.from_numpy(x)[None], 3) for x in (one, two)]
    found = losses.soft_dice(hot[0], hot[1], torch.ones(1, 1, 8, 8, 8))
    assert float(found) == pytest.approx(np.mean([dice(one, two, label) for label in (1, 2)]), abs=1e-4)


def test_unlabelled_scans_are_refused():
    model = build({**TINY, "n_labels": 2}, seed=0)
    with pytest.raises(TrainingError, match="no masks"):
        model.loss("all", Batch(torch.zeros(1, 1, *SHAPE), torch.ones(1, 1, *SHAPE)))
