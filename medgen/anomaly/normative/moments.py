"""Sums over healthy scans from which mean, variance and slopes follow; leaving scans out is a subtraction.

For a score s of a scan and z = (1, x₁, ..., x_d), 1 and what is known of the person (see
:mod:`medgen.anomaly.normative.covariates`), least squares at a voxel need Σ z zᵀ, Σ z s and Σ s² alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over healthy scans at every voxel; they add and subtract, which makes leaving a fold out free.

    Attributes:
        products: (p, i, j, k) float64, Σ z_a z_b for a ≤ b in the order of ``numpy.triu_indices(d + 1)``; the first is
            the number of scans with a value.
        totals: (d + 1, i, j, k), Σ z_a s; the first is Σ s.
        square: (i, j, k), Σ s².
    """

    products: NDArray[np.float64]
    totals: NDArray[np.float64]
    square: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        maps: Iterable[NDArray[Any]],
        masks: Iterable[NDArray[np.bool_]],
        shape: tuple[int, ...],
        people: NDArray[np.float64] | None = None,
    ) -> Moments:
        """Sums over score maps.

        Args:
            maps: The values of each scan inside its mask, (v,).
            masks: (i, j, k) boolean, where each scan has a value.
            shape: The grid.
            people: (n, d), what is known of each scan's person, 0 where nothing is; None: d is 0.
        """
        d = 0 if people is None else people.shape[1]
        first, second = np.triu_indices(d + 1)
        products = np.zeros((first.size, *shape))
        totals, square = np.zeros((d + 1, *shape)), np.zeros(shape)
        for number, (values, mask) in enumerate(zip(maps, masks, strict=True)):
            z = np.ones(1) if people is None else np.concatenate([[1.0], people[number]])
            inside = values.astype(np.float64)
            for into, factor in zip(products, z[first] * z[second], strict=True):
                into[mask] += factor
            for into, factor in zip(totals, z, strict=True):
                into[mask] += factor * inside
            square[mask] += inside**2
        return cls(products, totals, square)

    @property
    def count(self) -> NDArray[np.float64]:
        """(i, j, k), number of scans with a value."""
        return self.products[0]

    @property
    def columns(self) -> int:
        """d, the number of columns that describe a person."""
        return len(self.totals) - 1

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.products + other.products, self.totals + other.totals, self.square + other.square)

    def __sub__(self, other: Moments) -> Moments:
        return Moments(self.products - other.products, self.totals - other.totals, self.square - other.square)
