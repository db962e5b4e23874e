"""How alike the scans of a set are among themselves, by multi-scale structural similarity."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medgen.errors import DataError
from medgen.metrics.interval import subject_weights
from medgen.metrics.mmd import different
from medgen.progress import Progress

# The first weights of Wang et al. 2003; as many as there are levels are used, rescaled to a sum of 1.
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
# Wang's window has 11 voxels for a Gaussian of 1.5; 7 (± 2 standard deviations) leave a small scan one level more.
WINDOW, SIGMA = 7, 1.5


def window_and_levels(shape: Sequence[int]) -> tuple[int, int]:
    """Side of the window, and how many levels of half the resolution each (at most five) it still fits into.

    A scan with fewer voxels along an axis gets the largest odd window that fits. MONAI asks for more room than halving
    needs at four levels (a ninth of the side must hold the window, not an eighth), which counts here as well.

    Raises:
        DataError: If a side has fewer than three voxels.

    >>> window_and_levels((40, 56, 40)), window_and_levels((160, 192, 160)), window_and_levels((64, 64, 6))
    ((7, 3), (7, 5), (5, 1))
    """
    smallest, levels = min(shape), 0
    if smallest < 3:
        raise DataError(f"MS-SSIM needs three voxels along each axis, found shape {tuple(shape)}")
    window = min(WINDOW, smallest - 1 + smallest % 2)
    while levels < len(WEIGHTS) and smallest // _divisor(levels + 1) >= window:
        levels += 1
    return window, levels


def _divisor(levels: int) -> int:
    """What a side is divided by before the window has to fit: by halving, and by MONAI's own check."""
    return int(max(2 ** (levels - 1), (levels - 1) ** 2))


def pairwise_ms_ssim(
    images: Tensor,
    data_range: float,
    *,
    batch: int = 8,
    progress: Progress | None = None,
) -> NDArray[np.float64]:
    """MS-SSIM of all pairs of scans (Wang, Simoncelli and Bovik, "Multiscale structural similarity", 2003).

    As MONAI's ``compute_ms_ssim``, to a few millionths: but what concerns one scan alone (its local means and
    variances) is computed once and not for every pair, and the window, a product of three Gaussians, passes along one
    axis after the other.

    Args:
        images: (n, c, i, j, k).
        data_range: Largest minus smallest value that intensities can have; the same for sets to be compared.
        batch: Pairs at a time.
        progress: Called with (pairs done, pairs in all).

    Returns:
        (n, n) in [0, 1], symmetric, 1 on the diagonal. Window and number of levels are chosen for small scans
        (:func:`window_and_levels`), so values compare within a grid only, not with published ones.

    Raises:
        DataError: If a side has fewer than three voxels.
    """
    window, levels = window_and_levels(images.shape[2:])
    weights = [weight / sum(WEIGHTS[:levels]) for weight in WEIGHTS[:levels]]
    n, result = len(images), np.ones((len(images), len(images)))
    total, done = levels * math.comb(n, 2), 0
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    scans = images.float()
    for level, weight in enumerate(weights):
        blur = _Window(scans.shape[2:], window, scans)
        # Scan by scan: their squares are as large as they are.
        mean = torch.cat([blur(scan) for scan in scans.split(1)])
        variance = torch.cat([blur(scan * scan) for scan in scans.split(1)]) - mean * mean
        for row in range(n - 1):
            for columns in torch.arange(row + 1, n).split(batch):
                both = blur(scans[row] * scans[columns]) - mean[row] * mean[columns]
                value = (2 * both + c2) / (variance[row] + variance[columns] + c2)
                if level == levels - 1:
                    first, second = mean[row], mean[columns]
                    value = value * ((2 * first * second + c1) / (first.square() + second.square() + c1))
                share = value.flatten(1).mean(1).clamp_min(0).double().cpu().numpy() ** weight
                result[row, columns.numpy()] *= share
                done += len(columns)
                if progress is not None:
                    progress(done // levels, total // levels)
        scans = functional.avg_pool3d(scans, 2) if level < levels - 1 else scans
    lower = np.tril_indices(n, -1)
    result[lower] = result.T[lower]
    return result


class _Window:
    """Gaussian averages over a window of voxels, where it fits into the scan.

    Args:
        shape: (i, j, k) of the scans.
        window: Side of the window.
        like: A tensor of their type and device.
    """

    def __init__(self, shape: Sequence[int], window: int, like: Tensor) -> None:
        taps = torch.exp(-((torch.arange(window, dtype=torch.float64) - window // 2) ** 2) / (2 * SIGMA**2))
        taps /= taps.sum()
        self._bands = []
        for side in shape:
            band = torch.zeros(side - window + 1, side, dtype=torch.float64)
            for number, tap in enumerate(taps):
                band.diagonal(number).fill_(float(tap))
            self._bands.append(band.to(like))

    def __call__(self, images: Tensor) -> Tensor:
        """(n, c, i, j, k) to (n, c, i − w + 1, j − w + 1, k − w + 1)."""
        first, second, third = self._bands
        b, c, i, j, k = images.shape
        along_k = images.reshape(-1, k) @ third.T
        along_j = torch.matmul(second, along_k.view(b * c * i, j, -1))
        along_i = torch.matmul(first, along_j.reshape(b * c, i, -1))
        return along_i.view(b, c, len(first), len(second), len(third))


def likeness_draws(
    similarity: NDArray[np.float64], groups: Sequence[str], n: int = 2000, seed: int = 0, stream: str = "likeness"
) -> tuple[float, NDArray[np.float64]]:
    """Mean similarity of scans of different subjects, and its bootstrap distribution.

    Subjects are drawn again; a subject drawn twice is not compared with itself, which would raise the mean.

    Args:
        similarity: (n, n) as from :func:`pairwise_ms_ssim`.
        groups: Subject of each scan.
        n: Resamples.
        seed: Seed of the random resampling; equal seeds give equal results.
        stream: Name of the draws: two sets are drawn independently by different names.

    Returns:
        The mean, and (n,) means of the resamples; NaN if there is one subject only.
    """
    names = list(dict.fromkeys(groups))
    member = np.array([[group == name for name in names] for group in groups], dtype=np.float64)
    apart = different(groups).astype(np.float64)
    # Sums and numbers of pairs between subjects, so that a resample is one quadratic form.
    sums, counts = member.T @ (similarity * apart) @ member, member.T @ apart @ member
    total = float(counts.sum())
    weights = subject_weights(len(names), n, seed, stream)
    drawn = ((weights @ counts) * weights).sum(axis=1)
    draws = np.divide(((weights @ sums) * weights).sum(axis=1), drawn, out=np.full(n, np.nan), where=drawn > 0)
    return (float(sums.sum()) / total if total else math.nan), draws
