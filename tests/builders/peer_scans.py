"""Made-up scans that peers and refitted scores are tried on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medgen.anomaly.comparison.peers import catalogue
from medgen.preprocessing.dataset import Dataset

# Not a multiple of 8 along any axis.
SHAPE = (14, 17, 13)


def dataset(n=4, seed=0):
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.normal(1, 0.2, size=(n, 1, *SHAPE)).astype(np.float32))
    foregrounds = torch.zeros(n, 1, *SHAPE, dtype=torch.bool)
    foregrounds[:, :, 2:-2, 2:-2, 2:-2] = True
    names = tuple(f"case-{number}" for number in range(n))
    return Dataset(names, names, images, foregrounds)


def spotted(data):
    image, foreground = data.images[0].clone(), data.foregrounds[0]
    image[0, 6:9, 7:10, 5:8] += 5
    return image, foreground


def ready(name):
    if reason := catalogue.missing(name):
        pytest.skip(reason)
