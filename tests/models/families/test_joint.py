import pytest
import torch

from medgen.errors import TrainingError
from medgen.models.catalogue import build
from medgen.preprocessing.dataset import Batch, Dataset
from medgen.training.trainer import TrainingConfig, fit

SHAPE = (16, 16, 16)
TINY = {"widths": [16, 32], "latent": 4, "narrow": 4, "discriminator_widths": [16, 16], "n_labels": 2}


def blobs(n=8):
    """Two touching boxes whose place and brightness differ between cases."""
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.zeros(n, 1, *SHAPE), torch.zeros(n, 1, *SHAPE, dtype=torch.uint8)
    for case in range(n):
        start = 3 + int(torch.randint(0, 3, (), generator=generator))
        labels[case, 0, start : start + 5, 4:12, 4:12] = 1
        labels[case, 0, start + 5 : start + 8, 4:12, 4:12] = 2
        images[case] = 0.2 + 0.3 * labels[case]
    names = tuple(f"c{k}" for k in range(n))
    return Dataset(names, names, images, torch.ones_like(images, dtype=torch.bool), labels)


def test_samples_are_labelled_and_fit_their_image():
    data = blobs()
    model = build({"family": "joint", "shape": SHAPE, **TINY}, seed=0)
    fit(model, data, TrainingConfig(steps=60, batch_size=4, precision="32", ema=0.9), seed=0, device="cpu")
    image, labels = model.sample_labelled(4, torch.Generator().manual_seed(0))
    assert image.shape == (4, 1, *SHAPE)
    assert labels.shape == (4, *SHAPE)
    assert labels.dtype == torch.int64
    assert set(labels.unique().tolist()) <= {0, 1, 2}
    for label in (1, 2):
        volume, real = (labels == label).float().sum() / 4, (data.labels == label).float().sum() / len(data)
        assert 0.5 < volume / real < 2.0
    assert image[:, 0][labels == 2].mean() > image[:, 0][labels == 1].mean() > image[:, 0][labels == 0].mean()


def test_scans_without_labels_are_refused_in_one_line():
    model = build({"family": "joint", "shape": SHAPE, **TINY}, seed=0)
    with pytest.raises(TrainingError, match="labelled"):
        model.loss("generator", Batch(torch.zeros(1, 1, *SHAPE), torch.ones(1, 1, *SHAPE)))
