"""Affine maps of space, 4 × 4: products, inverses, exponentials and means whose last row is (0, 0, 0, 1) to the bit.

Matrix functions of SciPy know nothing of that row and leave rounding in it, as an inverse by elimination may. What is
rounding there is no map of space any more, so it is never made, instead of being forgiven where it is found.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg


def affine(linear: ArrayLike, shift: ArrayLike) -> NDArray[np.float64]:
    """The map x → linear · x + shift, of a (3, 3) and a (3,), as a 4 × 4 matrix."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = linear, shift
    return matrix


def product(first: NDArray[np.float64], *others: NDArray[np.float64]) -> NDArray[np.float64]:
    """``first @ ... @ last``: the last is applied first.

    >>> product(affine(2 * np.eye(3), [1, 0, 0]), affine(np.eye(3), [1, 1, 1]))[:3, 3].tolist()
    [3.0, 2.0, 2.0]
    """
    result = affine(first[:3, :3], first[:3, 3])
    for other in others:
        result = affine(result[:3, :3] @ other[:3, :3], result[:3, :3] @ other[:3, 3] + result[:3, 3])
    return result


def inverse(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The map back.

    >>> inverse(affine(2 * np.eye(3), [2, 4, 6]))[:3, 3].tolist()
    [-1.0, -2.0, -3.0]

    Raises:
        LinAlgError: If there is none.
    """
    back = np.linalg.inv(matrix[:3, :3])
    return affine(back, -back @ matrix[:3, 3])


def exponential(generator: NDArray[np.float64]) -> NDArray[np.float64]:
    """The map that a constant velocity x' = G x, with the last row of G zero, leads to after unit time."""
    matrix = linalg.expm(generator)
    return affine(matrix[:3, :3], matrix[:3, 3])


def log_mean(matrices: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """exp(mean(log A)): the affine that is the middle of several (Arsigny et al., "Log-Euclidean polyaffine", 2009)."""
    return exponential(np.mean([np.real(linalg.logm(matrix)) for matrix in matrices], axis=0))
