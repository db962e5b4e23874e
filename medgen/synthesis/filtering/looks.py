"""Whether a scan looks like one of the cohort: its distance to the nearest real scan, as segmenters see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medgen.segmentation.segmenter import Segmenter


@dataclass(frozen=True, eq=False)
class Looks:
    """Features of real scans, and how far a real scan may be from all others.

    Attributes:
        segmenters: Whose channel statistics are the features, see
            :meth:`medgen.segmentation.segmenter.Segmenter.features`.
        mean: Mean of each feature over the real scans, (d,).
        spread: Standard deviation of each feature over the real scans, (d,).
        features: Features of the real scans, standardised by these two, (n, d).
        bound: Percentile over real scans of the distance to the nearest scan of another subject.
    """

    segmenters: tuple[Segmenter, ...]
    mean: Tensor
    spread: Tensor
    features: Tensor
    bound: float

    @classmethod
    def fit(cls, segmenters: Sequence[Segmenter], images: Tensor, subjects: Sequence[str], percentile: float) -> Looks:
        """Measure real scans.

        Args:
            segmenters: Trained on real scans only.
            images: (n, c, i, j, k), of at least two subjects.
            subjects: Subject of each image.
            percentile: Which percentile of the leave-one-subject-out distances becomes ``bound``, 0 to 100.
        """
        raw = channel_statistics(segmenters, images)
        mean, spread = raw.mean(dim=0), raw.std(dim=0, correction=0).clamp_min(1e-6)
        features = (raw - mean) / spread
        distances: NDArray[np.float64] = torch.cdist(features, features).double().numpy()
        owner = np.array(subjects)
        distances[owner[:, None] == owner[None]] = np.inf
        return cls(tuple(segmenters), mean, spread, features, float(np.percentile(distances.min(axis=1), percentile)))

    def distance(self, image: Tensor) -> float:
        """Euclidean distance of one image (c, i, j, k) to the nearest real scan, in standardised features."""
        own = (channel_statistics(self.segmenters, image[None]) - self.mean) / self.spread
        return float(torch.cdist(own, self.features).min())


def channel_statistics(segmenters: Sequence[Segmenter], images: Tensor, batch: int = 4) -> Tensor:
    """Features of :meth:`medgen.segmentation.segmenter.Segmenter.features`, of all segmenters side by side, (n, d)."""
    return torch.cat([segmenter.features(images, batch) for segmenter in segmenters], dim=1)
