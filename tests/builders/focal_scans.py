"""Made-up scans with one focal lesion each."""

from __future__ import annotations

import numpy as np
import torch

from medgen.preprocessing.dataset import Dataset
from medgen.seeds import numpy_rng

FOCAL_SHAPE = (32, 28, 24)


def focal_scans(n: int, prefix: str, channels: int = 1) -> Dataset:
    """An organ (label 1, grey) with one dark lesion (label 2) on its left side."""
    axes = np.stack(np.meshgrid(*[np.arange(s) for s in FOCAL_SHAPE], indexing="ij")).astype(float)
    images, labels = [], []
    for number in range(n):
        rng = numpy_rng(5, prefix, number)
        body = (((axes.T - [16, 14, 12]) / [13, 11, 9]) ** 2).sum(-1).T < 1
        centre = np.array([10, 14, 12]) + rng.uniform(-4, 4, 3)
        lesion = rng.uniform(2, 3.5) > np.sqrt(((axes.T - centre) ** 2).sum(-1)).T
        image = np.where(body, 0.8, 0) + 0.02 * rng.standard_normal(FOCAL_SHAPE) * body
        image = np.where(lesion, 0.3 + 0.05 * rng.standard_normal(), image)
        images.append(np.stack([image * (1 + c) for c in range(channels)]))
        labels.append(np.where(lesion, 2, body).astype(np.uint8)[None])
    names = tuple(f"{prefix}-{number}" for number in range(n))
    foreground = torch.from_numpy(np.stack(labels)) > 0
    return Dataset(
        names,
        names,
        torch.from_numpy(np.stack(images).astype(np.float32)),
        foreground,
        torch.from_numpy(np.stack(labels)),
    )
