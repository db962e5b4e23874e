"""Agreement of two label maps: Dice, 95 % Hausdorff distance and normalised surface Dice.

Empty masks, here as in the tests: if a label is in neither map, the maps agree (Dice and NSD 1, HD95 0 mm). If it is in
one only, they do not agree at all (Dice and NSD 0), and HD95 is the length of the image's diagonal in mm: the worst
finite value, so that a missed structure counts in a mean instead of dropping out of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medgen.errors import DataError


def dice(pred: NDArray[Any], truth: NDArray[Any], label: int = 1) -> float:
    """2 |P ∩ T| / (|P| + |T|) (Dice, Ecology 1945).

    Args:
        pred: Label map of any shape; a boolean map has the label 1.
        truth: Label map of the same shape.
        label: The structure.

    Returns:
        In [0, 1]; see the module for empty masks.

    Raises:
        DataError: If the shapes differ.

    >>> dice(np.array([0, 1, 1, 2]), np.array([1, 1, 0, 2]), 1)
    0.5
    """
    p, t = _masks(pred, truth, label)
    size = int(p.sum()) + int(t.sum())
    return 2 * int((p & t).sum()) / size if size else 1.0


def mean_dice(pred: NDArray[Any], truth: NDArray[Any], labels: Iterable[int]) -> float:
    """Mean over labels of :func:`dice` of two label maps of the same shape."""
    return float(np.mean([dice(pred, truth, label) for label in labels]))


def hd95(pred: NDArray[Any], truth: NDArray[Any], label: int, spacing: Sequence[float]) -> float:
    """95 % Hausdorff distance: the larger of both directions' 95th percentiles of surface distance (Huttenlocher 1993).

    Surfaces are the mask voxels with a face neighbour outside; distances are between voxel centres.

    Args:
        pred: Label map, (i, j, k).
        truth: Label map, (i, j, k).
        label: The structure.
        spacing: Voxel size along i, j, k in mm.

    Returns:
        Millimetres, 0 or more; see the module for empty masks.

    Raises:
        DataError: If the shapes differ.
    """
    p, t = _masks(pred, truth, label)
    if not (p.any() and t.any()):
        diagonal = float(np.linalg.norm(np.array(p.shape) * np.asarray(spacing)))
        return diagonal if p.any() or t.any() else 0.0
    forth, back = surface_distances(p, t, spacing)
    return float(max(np.percentile(forth, 95), np.percentile(back, 95)))


def nsd(pred: NDArray[Any], truth: NDArray[Any], label: int, spacing: Sequence[float], tolerance_mm: float) -> float:
    """Normalised surface Dice: share of both surfaces within a tolerance of the other (Nikolov et al., JMIR 2021).

    Args:
        pred: Label map, (i, j, k).
        truth: Label map, (i, j, k).
        label: The structure.
        spacing: Voxel size along i, j, k in mm.
        tolerance_mm: Distance that counts as agreement.

    Returns:
        In [0, 1]; see the module for empty masks. Surface voxels are counted, not their areas.

    Raises:
        DataError: If the shapes differ.
    """
    p, t = _masks(pred, truth, label)
    if not (p.any() and t.any()):
        return 0.0 if p.any() or t.any() else 1.0
    forth, back = surface_distances(p, t, spacing)
    close = int((forth <= tolerance_mm).sum()) + int((back <= tolerance_mm).sum())
    return close / (forth.size + back.size)


def surface_distances(
    pred: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distances in mm from each surface voxel of ``pred`` to the surface of ``truth``, and back.

    Args:
        pred: Not empty, (i, j, k).
        truth: Not empty, same shape.
        spacing: Voxel size along i, j, k in mm.
    """
    # Both surfaces lie in the common bounding box, so distances inside it are the distances in the whole image.
    box = ndimage.find_objects((pred | truth).astype(np.uint8))[0]
    edges = [mask[box] & ~ndimage.binary_erosion(mask[box]) for mask in (pred, truth)]
    to_pred, to_truth = (ndimage.distance_transform_edt(~edge, sampling=tuple(spacing)) for edge in edges)
    return to_truth[edges[0]], to_pred[edges[1]]


def _masks(pred: NDArray[Any], truth: NDArray[Any], label: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    pred, truth = np.asarray(pred), np.asarray(truth)
    if pred.shape != truth.shape:
        raise DataError(f"expected two label maps of one shape, found {pred.shape} and {truth.shape}")
    return pred == label, truth == label
