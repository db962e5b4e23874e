"""Gaussian smoothing inside a mask: normalised convolution, so values outside neither leak in nor pull edges down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medgen.separable import gaussian


@dataclass(frozen=True, eq=False)
class Smoother:
    """Masked Gaussian average G(v·m) / G(m) for one mask, whose part is computed once for all maps.

    Attributes:
        mask: (i, j, k) boolean.
        sigma: Standard deviation in voxels; 0 changes nothing inside the mask.
        box: The mask's bounding box; nothing outside takes part.
        weight: G(m) in the box, float32.

    Source: Knutsson and Westin, "Normalized and differential convolution", CVPR 1993.
    """

    mask: NDArray[np.bool_]
    sigma: float
    box: tuple[slice, ...]
    weight: NDArray[np.float32]

    @classmethod
    def of(cls, mask: NDArray[np.bool_], sigma: float) -> Smoother:
        """Compute once what smoothing inside a mask needs; the mask may be empty."""
        found = ndimage.find_objects(mask.astype(np.uint8))
        box = found[0] if found else tuple(slice(0, 0) for _ in range(mask.ndim))
        inside = mask[box].astype(np.float32)
        return cls(mask, sigma, box, inside if sigma <= 0 or not found else gaussian(inside, sigma))

    def __call__(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """The average of values (i, j, k) that are finite inside the mask; float32, 0 outside of it.

        A constant inside the mask stays that constant.
        """
        result = np.zeros(self.mask.shape, dtype=np.float32)
        inside = self.mask[self.box]
        part = np.where(inside, values[self.box], 0).astype(np.float32, copy=False)
        if self.sigma > 0 and part.size:
            # Inside the mask the weight is at least the kernel's centre; the floor only guards the division outside.
            part = np.where(inside, gaussian(part, self.sigma) / np.maximum(self.weight, 1e-6), np.float32(0))
        result[self.box] = part
        return result


def smooth(values: NDArray[Any], mask: NDArray[np.bool_], sigma: float) -> NDArray[np.float32]:
    """One map smoothed inside a mask, see :class:`Smoother`."""
    return Smoother.of(mask, sigma)(values)
