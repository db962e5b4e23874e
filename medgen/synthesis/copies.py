"""How alike two scans are: normalised cross-correlation over small shifts, and the threshold for a copy."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

# Shifts in voxels at half resolution: copies moved by up to two voxels of the full grid are found.
_REACH = 1


class Gallery:
    """Real scans to compare with.

    Args:
        images: (n, c, i, j, k).
        ids: Case ids.
        subjects: Subject of each case.

    Attributes:
        subjects: As given.
    """

    def __init__(self, images: Tensor, ids: Sequence[str], subjects: Sequence[str]) -> None:
        self.subjects = tuple(subjects)
        self._ids = tuple(ids)
        self._half = _halve(images)
        self._vectors = _standardise(self._crop(self._half, (0, 0, 0)))

    def correlations(self, image: Tensor) -> Tensor:
        """Largest correlation over shifts with every scan of the gallery, (n,), for one image (c, i, j, k)."""
        return self._compare(_halve(image[None]))

    def between_subjects(self, quantile: float) -> float:
        """Quantile over real scans of the largest correlation with a scan of another subject.

        What two different people look like at their most alike: a synthetic scan above it is nearer to a training
        scan than people are to each other. NaN if all scans are of one subject.
        """
        largest = []
        for row, subject in enumerate(self.subjects):
            others = [index for index, other in enumerate(self.subjects) if other != subject]
            if others:
                largest.append(float(self._compare(self._half[row : row + 1])[others].max()))
        return float(torch.tensor(largest).quantile(quantile)) if largest else float("nan")

    def _compare(self, half: Tensor) -> Tensor:
        best = torch.full((len(self._ids),), -1.0)
        for shift in itertools.product(range(-_REACH, _REACH + 1), repeat=3):
            vector = _standardise(self._crop(half, shift))
            best = torch.maximum(best, (self._vectors @ vector.T)[:, 0])
        return best

    @staticmethod
    def _crop(half: Tensor, shift: Sequence[int]) -> Tensor:
        """The interior, displaced by a shift, so that all shifts compare the same number of voxels."""
        for axis, step in enumerate(shift, start=2):
            size = half.shape[axis]
            reach = _REACH if size > 2 * _REACH else 0
            half = half.narrow(axis, reach + (step if reach else 0), size - 2 * reach)
        return half


def _halve(image: Tensor) -> Tensor:
    i, j, k = (max(n // 2, 1) for n in image.shape[2:])
    return functional.adaptive_avg_pool3d(image.float().cpu(), (i, j, k))


def _standardise(image: Tensor) -> Tensor:
    """Zero mean and unit norm per scan, (n, voxels)."""
    flat = image.flatten(1)
    flat = flat - flat.mean(dim=1, keepdim=True)
    return functional.normalize(flat, dim=1, eps=1e-8)
