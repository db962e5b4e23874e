"""Which intensities fluid, grey and white matter have in a T1 scan, and its bias field, by the registered template.

A mixture of three Gaussians whose priors are the template's tissue probabilities, with a smooth multiplicative field:
expectation maximisation as in Van Leemput et al., "Automated model-based bias field correction of MR images of the
brain", IEEE TMI 1999; the field is the kernel-smoothed log residual (Wells et al., IEEE TMI 1996).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medgen.errors import DataError

Floats = NDArray[np.float32]

_ROUNDS, _STEPS = 4, 5
# Standard deviation of the kernel of the bias field, mm; voxel size it is fitted at, mm.
_KERNEL, _COARSE = 25.0, 3.0


@dataclass(frozen=True, eq=False)
class TissueModel:
    """Intensities of the tissues after division by the field.

    Attributes:
        darkest: The 2nd percentile inside the brain; fluid, where there is some.
        means: Of fluid, grey and white matter, in the scan's units.
        deviations: Standard deviation of each.
        field: The multiplicative bias field, (i, j, k), mean 1 in the brain.
    """

    darkest: float
    means: tuple[float, float, float]
    deviations: tuple[float, float, float]
    field: Floats

    @property
    def fluid_below(self) -> float:
        """Half way between fluid and grey matter."""
        # The mean of the class is too bright: an affine template mixes fluid and cortex.
        return (self.darkest + self.means[1]) / 2

    @property
    def fat_above(self) -> float:
        """Brighter than white matter is."""
        return self.means[2] + max(4 * self.deviations[2], 0.35 * self.means[2])


def fit_tissues(image: Floats, priors: Floats, inside: NDArray[np.bool_], step: float) -> TissueModel:
    """Fit the mixture and the field.

    Args:
        image: (i, j, k), T1-weighted, cubic voxels; NaN outside the field of view.
        priors: (3, i, j, k), probabilities of fluid, grey and white matter.
        inside: (i, j, k), certainly brain.
        step: Voxel size in mm.

    Raises:
        DataError: If grey matter is not brighter than fluid and darker than white matter: the scan is not T1-like.
    """
    stride = max(1, round(_COARSE / step))
    pick = (slice(None, None, stride),) * 3
    values, weights, near = image[pick], priors[(slice(None), *pick)], inside[pick] & (image[pick] > 0)
    prior = np.maximum(weights[:, near], 0.02)
    prior = prior / prior.sum(axis=0)
    logs = np.log(values[near])
    bias = np.zeros_like(logs)
    top = np.median(logs[prior[2] > 0.7]) if (prior[2] > 0.7).sum() >= 50 else np.percentile(logs, 80)
    means = np.array([np.log(0.3), np.log(0.7), 0.0]) + top
    spread = np.full(3, 0.2)
    coarse = np.zeros(values.shape, dtype=np.float32)
    for _ in range(_ROUNDS):
        for _ in range(_STEPS):
            rest = (logs - bias)[None] - means[:, None]
            chance = prior * np.exp(-0.5 * (rest / spread[:, None]) ** 2) / spread[:, None] + 1e-12
            chance /= chance.sum(axis=0)
            mass = chance.sum(axis=1) + 1e-9
            means = (chance * (logs - bias)).sum(axis=1) / mass
            rest = (logs - bias)[None] - means[:, None]
            spread = np.clip(np.sqrt((chance * rest**2).sum(axis=1) / mass), 0.03, [0.6, 0.3, 0.2])
        precision = chance[1:] / spread[1:, None] ** 2
        coarse = _smoothed(near, (precision * (logs - means[1:, None])).sum(0), precision.sum(0), stride * step)
        bias = coarse[near] - coarse[near].mean()
        coarse -= coarse[near].mean()
    levels = np.exp(means)
    if not (levels[0] < 0.85 * levels[1] and levels[1] < 0.97 * levels[2]):
        raise DataError(
            f"fluid, grey and white matter have the intensities {levels[0]:.3g}, {levels[1]:.3g} and {levels[2]:.3g}; "
            "expected each brighter than the one before, as in T1-weighted scans; strip scans of other contrasts with "
            "a tool made for them and set preprocess.brain=keep"
        )
    zoom = np.array(image.shape) / np.array(values.shape)
    field = ndimage.affine_transform(np.exp(coarse), 1 / zoom, output_shape=image.shape, order=1, mode="nearest")
    fluid, grey, white = (float(level) for level in levels)
    a, b, c = (float(level * width) for level, width in zip(levels, spread, strict=True))
    darkest = float(np.exp(np.percentile(logs - bias, 2)))
    return TissueModel(darkest, (fluid, grey, white), (a, b, c), field.astype(np.float32))


def _smoothed(near: NDArray[np.bool_], values: Floats, weights: Floats, step: float) -> Floats:
    """Kernel regression of values that are already multiplied by their weights."""
    top, bottom = np.zeros(near.shape, dtype=np.float32), np.zeros(near.shape, dtype=np.float32)
    top[near], bottom[near] = values, weights
    sigma = _KERNEL / step
    bottom = ndimage.gaussian_filter(bottom, sigma, mode="constant")
    top = ndimage.gaussian_filter(top, sigma, mode="constant")
    # Far from the brain the nearest value that is known goes on.
    sound = bottom > 1e-3 * bottom.max()
    field = np.where(sound, top / np.maximum(bottom, 1e-12), 0)
    nearest = ndimage.distance_transform_edt(~sound, return_distances=False, return_indices=True)
    return np.asarray(field[tuple(nearest)], dtype=np.float32)
