"""The intensity scale of another scan: synthetic scans have the recipe's, about 0 to 1 inside the foreground."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medgen.errors import DataError
from medgen.transforms.foreground import foreground_mask


def match_intensities(
    image: NDArray[Any], reference: NDArray[Any], percentiles: tuple[float, float] = (1.0, 99.0)
) -> NDArray[np.float32]:
    """Scale a scan linearly, per channel, so that two percentiles inside its foreground are those of another scan.

    Voxels without a value (0 in every channel outside of the foreground) take the median of the other scan's
    background, or its smallest value if it has none. Contrast within the scan is not changed.

    Args:
        image: (c, i, j, k).
        reference: (c, i', j', k') on any grid.
        percentiles: Lower and upper percentile, 0 to 100.

    Returns:
        (c, i, j, k) in the units of the reference.

    Raises:
        DataError: If the numbers of channels differ, or a scan has no contrast.
    """
    image, reference = np.asarray(image, dtype=np.float32), np.asarray(reference, dtype=np.float32)
    if image.ndim != 4 or reference.ndim != 4 or len(image) != len(reference):
        raise DataError(
            f"intensities of a scan of shape {image.shape} cannot be matched to one of shape {reference.shape}; "
            "expected (c, i, j, k) with equal numbers of channels"
        )
    inside, other = foreground_mask(image), foreground_mask(reference)
    empty = ~inside & (image == 0).all(axis=0)
    result = np.empty_like(image)
    for channel, target, values in zip(image, result, reference, strict=True):
        low, high = np.percentile(channel[inside], percentiles)
        wanted_low, wanted_high = np.percentile(values[other], percentiles)
        if not high > low:
            raise DataError(f"the scan has one intensity only ({low:g}); expected an image with contrast")
        target[:] = (channel - low) * ((wanted_high - wanted_low) / (high - low)) + wanted_low
        target[empty] = values.min() if other.all() else np.median(values[~other])
    return result


# Fewer voxels say too little of a label's contrast, and more than a doubling is no loss that interpolation explains.
_FEWEST, _MOST = 20, 2.0


def restore_contrast(moved: Tensor, moved_labels: Tensor, image: Tensor, labels: Tensor) -> Tensor:
    """Give back to every label of a moved scan the mean and spread that it had before it was moved.

    Interpolation mixes a voxel with its neighbours. Where a structure is a voxel or two thin it never shows its own
    intensity after that: moved cerebrospinal fluid at 4 mm was half again as bright as in any real scan, and a
    segmenter learns that from synthetic scans. Inside a label the loss is a straight line from the true intensities to
    the mixed ones in mean and spread, which is undone; what is no label is left as it is.

    Args:
        moved: The moved scan, (1, c, i, j, k).
        moved_labels: Labels on it, (1, 1, i, j, k), 0 is background.
        image: The scan before, (1, c, i, j, k).
        labels: Its labels, (1, 1, i, j, k).

    Returns:
        (1, c, i, j, k).
    """
    result = moved.clone()
    for value in torch.unique(moved_labels).tolist():
        now, before = moved_labels[0, 0] == value, labels[0, 0] == value
        if value == 0 or min(int(now.sum()), int(before.sum())) < _FEWEST:
            continue
        for channel in range(moved.shape[1]):
            mixed, pure = moved[0, channel][now], image[0, channel][before]
            if float(mixed.std()) > 0:
                gain = (pure.std() / mixed.std()).clamp(1 / _MOST, _MOST)
                result[0, channel][now] = pure.mean() + (mixed - mixed.mean()) * gain
    return result
