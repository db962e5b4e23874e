"""The score ``descriptors``: local intensity, contrast, texture and asymmetry, compared with what is usual at a place.

Fixed filters at several scales, so that few scans are enough to know what is usual: a descriptor's mean and standard
deviation over the training scans at that place turn it into a z. Amplitudes of texture enter as logarithms, since they
vary by factors. The scores ``texture`` and ``selfsup`` read the same z.

Source: Schmid and Mohr, "Local grayvalue invariants for image retrieval", IEEE PAMI 1997 (derivative jets); Bigun and
Granlund, "Optimal orientation detection of linear symmetry", ICCV 1987 (structure tensor).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medgen.anomaly.scores.base import Inputs, State, score
from medgen.separable import gaussian

Map = NDArray[np.float32]
NAMES = (
    "intensity", "smooth_1", "smooth_2", "smooth_4", "band_0_1", "band_1_2", "band_2_4",
    "fine_1", "fine_2", "fine_3", "detail_2", "coarse_2", "coarse_3", "sd_1", "sd_2", "sd_4", "range", "slope",
    "tensor_1", "tensor_2", "tensor_3", "asymmetry_1", "asymmetry_2", "asymmetry_fine",
)  # fmt: skip
# Added before a logarithm: amplitudes below it (in model intensities, about 0 to 1) are noise.
_FLOOR = 0.02
# A scan's worth of the average variance at every voxel, and the blur of the variances in voxels.
_PRIOR, _BLUR = 10.0, 1.5
# Voxels beyond the foreground that differences between neighbours look at.
_MARGIN = 2
# Voxels that are standardised at a time: what they take fits the cache.
_PART = 1 << 12
# A z beyond this says nothing more.
LIMIT = 8.0
Rows = NDArray[np.float32]


class Surroundings:
    """What averages inside a mask need, computed once for all images and all filters that have the mask.

    Args:
        mask: (i, j, k), the foreground; filters average over it alone, so its edge is no edge of the image.

    Attributes:
        box: The mask's bounding box with the margin that differences need; along the first axis alike on both sides.
        inside: The mask in the box.
        voxels: (n,) flat indices in the box of the mask's voxels.
        mirrored: (n,) flat indices in the box of the voxels across the middle of the first axis, which runs from left
            to right.
    """

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self.box = _box(mask)
        self.inside = mask[self.box]
        self.voxels = np.flatnonzero(self.inside)
        i, j, k = np.unravel_index(self.voxels, self.inside.shape)
        self.mirrored = np.ravel_multi_index((self.inside.shape[0] - 1 - i, j, k), self.inside.shape)
        self._weights: dict[float, Map] = {}

    def weight(self, sigma: float) -> Map:
        """What a Gaussian of the mask leaves in the box, at least 0.001."""
        if sigma not in self._weights:
            self._weights[sigma] = np.maximum(gaussian(self.inside.astype(np.float32), sigma), 1e-3)
        return self._weights[sigma]


def describe(channel: Map, mask: NDArray[np.bool_]) -> Map:
    """All descriptors of one image channel.

    Args:
        channel: (i, j, k) float32, model intensities.
        mask: (i, j, k), the foreground.

    Returns:
        (d, i, j, k) float32 in the order of ``NAMES``, 0 outside the mask.
    """
    result = np.zeros((len(NAMES), *mask.shape), dtype=np.float32)
    if mask.any():
        around = Surroundings(mask)
        for target, values in zip(result, _values(channel, around, np.arange(around.voxels.size)), strict=True):
            target[mask] = values
    return result


def _box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    own = ndimage.find_objects(mask.astype(np.uint8))[0]
    box = [slice(max(0, s.start - _MARGIN), min(n, s.stop + _MARGIN)) for s, n in zip(own, mask.shape, strict=True)]
    # Left and right are compared by turning the axis over.
    outside = min(box[0].start, mask.shape[0] - box[0].stop)
    return (slice(outside, mask.shape[0] - outside), *box[1:])


def _values(channel: Map, around: Surroundings, rows: NDArray[np.intp]) -> Iterator[Rows]:
    """The descriptors one by one, (m,) each, at some voxels of the foreground: all maps at once are gigabytes."""
    mask, at, across = around.inside, around.voxels[rows], around.mirrored[rows]
    x = channel[around.box] * mask

    def take(values: Map) -> Rows:
        return values.ravel()[at]

    def mean(values: Map, sigma: float) -> Map:
        return gaussian(values * mask, sigma) / around.weight(sigma)

    def mean_at(values: Map, sigma: float) -> Rows:
        """The same at the voxels alone: the filters run everywhere, what is made of them need not."""
        return take(gaussian(values * mask, sigma)) / take(around.weight(sigma))

    def log(values: Rows) -> Rows:
        return np.log(values + np.float32(_FLOOR))

    def asymmetry(values: Rows, mirrored: Rows) -> Rows:
        return np.where(mask.ravel()[across], values - mirrored, np.float32(0))

    g07, g1, g2, g4 = (mean(x, sigma) for sigma in (0.7, 1.0, 2.0, 4.0))
    x_at, g1_at, g2_at, g4_at = map(take, (x, g1, g2, g4))
    yield from (x_at, g1_at, g2_at, g4_at)
    yield from (x_at - g1_at, g1_at - g2_at, g2_at - g4_at)
    # Energy of the finest detail, and of the next band, averaged over growing neighbourhoods: sharpness and noise.
    fine, coarse = np.abs(x - g07), np.abs(g1 - g2)
    yield from (log(mean_at(fine, sigma)) for sigma in (1.0, 2.0, 3.0))
    yield log(mean_at(np.abs(x - g1), 2.0))
    yield from (log(mean_at(coarse, sigma)) for sigma in (2.0, 3.5))
    square = x * x
    for sigma, average in ((1.0, g1_at), (2.0, g2_at), (4.0, g4_at)):
        yield log(np.sqrt(np.maximum(mean_at(square, sigma) - average * average, 0)))
    yield log(take(ndimage.maximum_filter(x, 3)) - take(ndimage.minimum_filter(x, 3)))
    slopes = [ndimage.correlate1d(g07, [-0.5, 0, 0.5], axis=axis, mode="nearest") for axis in range(3)]
    yield log(np.sqrt(sum(slope * slope for slope in map(take, slopes))))
    tensor = [mean_at(slopes[a] * slopes[b], 1.5) for a, b in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))]
    yield from (log(np.sqrt(np.maximum(values, 0))) for values in _eigenvalues(*tensor))
    yield asymmetry(g1_at, g1.ravel()[across])
    yield asymmetry(g2_at, g2.ravel()[across])
    detail = gaussian(fine * mask, 1.5)
    both = (detail.ravel()[where] / around.weight(1.5).ravel()[where] for where in (at, across))
    yield asymmetry(*map(log, both))


def _eigenvalues(a: Map, b: Map, c: Map, d: Map, e: Map, f: Map) -> tuple[Map, Map, Map]:
    """Eigenvalues, largest first, of the symmetric matrices [[a, d, e], [d, b, f], [e, f, c]], in closed form.

    Source: Smith, "Eigenvalues of a symmetric 3 × 3 matrix", Communications of the ACM 1961.
    """
    q = (a + b + c) / 3
    p = np.sqrt(((a - q) ** 2 + (b - q) ** 2 + (c - q) ** 2 + 2 * (d * d + e * e + f * f)) / 6)
    safe = np.maximum(p, 1e-12)
    a, b, c, d, e, f = (a - q) / safe, (b - q) / safe, (c - q) / safe, d / safe, e / safe, f / safe
    half = np.clip((a * (b * c - f * f) - d * (d * c - f * e) + e * (d * f - b * e)) / 2, -1, 1)
    angle = np.arccos(half) / 3
    first = q + 2 * p * np.cos(angle)
    third = q + 2 * p * np.cos(angle + 2 * np.pi / 3)
    return first.astype(np.float32), (3 * q - first - third).astype(np.float32), third.astype(np.float32)


def descriptors_of(inputs: Inputs) -> list[NDArray[np.float16]]:
    """Per scan the descriptors of its foreground, (c · d, n) float16, from the memo where they are known."""
    result = []
    for scan, mask, memo in zip(inputs.voxels, inputs.mask, inputs.memo, strict=True):
        if "descriptors" not in memo:
            memo["descriptors"] = flat_descriptors(scan, mask)
        result.append(memo["descriptors"])
    return result


def flat_descriptors(
    scan: NDArray[np.float32],
    mask: NDArray[np.bool_],
    rows: NDArray[np.intp] | None = None,
    around: Surroundings | None = None,
) -> NDArray[np.float16]:
    """Descriptors of a scan in its foreground, (c · d, n) for n voxels.

    Args:
        scan: (c, i, j, k).
        mask: (i, j, k), the foreground.
        rows: Which of the foreground's voxels; by default all of them.
        around: What belongs to the mask, where it is known.
    """
    rows = np.arange(int(mask.sum())) if rows is None else rows
    result = np.empty((len(scan) * len(NAMES), rows.size), dtype=np.float16)
    if mask.any():
        around = around or Surroundings(mask)
        every = (values for channel in scan for values in _values(channel, around, rows))
        for target, values in zip(result, every, strict=True):
            target[:] = values
    return result


def fit_local(training: Inputs) -> dict[str, NDArray[Any]]:
    """Mean and standard deviation of every descriptor over the scans that show a voxel, the latter shrunk."""
    described, masks = descriptors_of(training), training.mask
    count = masks.sum(axis=0, dtype=np.float32)
    region = count > 1
    spare = np.maximum(count - 1, 0)
    weight = ndimage.gaussian_filter(spare, _BLUR)[region] + _PRIOR
    means, deviations = [], []
    for row in range(len(described[0])):
        maps = [_grid(values[row], mask) for values, mask in zip(described, masks, strict=True)]
        mean = np.sum(maps, axis=0) / np.maximum(count, 1)
        square = np.zeros(count.shape, dtype=np.float32)
        for values, mask in zip(maps, masks, strict=True):
            square[mask] += (values[mask] - mean[mask]) ** 2
        pooled = float(square[region].sum() / max(float(spare[region].sum()), 1.0))
        variance = (ndimage.gaussian_filter(square, _BLUR)[region] + _PRIOR * pooled) / weight
        means.append(mean[region])
        deviations.append(np.sqrt(variance))
    # Half precision: three digits of a z are plenty, and the artifact holds these maps for every fold.
    return {
        "region": region,
        "mean": np.array(means, dtype=np.float16),
        "sd": np.maximum(np.array(deviations), 1e-3).astype(np.float16),
    }


def _grid(values: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    result = np.zeros(mask.shape, dtype=np.float32)
    result[mask] = values
    return result


def standardised(values: NDArray[np.float16], mask: NDArray[np.bool_], state: State) -> tuple[Rows, NDArray[np.bool_]]:
    """Standardised descriptors (c · d, m) of the m voxels that are both in the scan and in the region, and where."""
    both = mask & state["region"]
    own, known = np.flatnonzero(both[mask]), np.flatnonzero(both[state["region"]])
    # The descriptors of a voxel lie side by side: that is the order in which scores add them up.
    z = np.empty((own.size, len(values)), dtype=np.float32)
    for start in range(0, own.size, _PART):
        part = slice(start, start + _PART)
        expected, spread = state["mean"][:, known[part]], state["sd"][:, known[part]]
        np.clip(((values[:, own[part]].astype(np.float32) - expected) / spread).T, -LIMIT, LIMIT, out=z[part])
    return z.T, both


def standardised_scans(inputs: Inputs, state: State) -> list[tuple[Rows, NDArray[np.bool_]]]:
    """What :func:`standardised` gives for every scan, made once for all scores of a fold."""
    key = f"standardised {id(state['mean'])}"
    if key not in inputs.shared:
        scans = zip(descriptors_of(inputs), inputs.mask, strict=True)
        # With the array whose number is the name, so that the number stays its own.
        inputs.shared[key] = [standardised(values, mask, state) for values, mask in scans], state["mean"]
    found: list[tuple[Rows, NDArray[np.bool_]]] = inputs.shared[key][0]
    return found


def standardised_without(
    values: NDArray[np.float16], own: NDArray[np.float16], count: Rows, mean: NDArray[Any], sd: NDArray[Any]
) -> Rows:
    """Standardised descriptors of a changed copy of a training scan, as if the scan had not been trained on.

    Args:
        values: (c · d, m), descriptors of the copy at m voxels.
        own: (c · d, m), those of the scan itself: they are taken out of the mean, since a new scan has no part in it.
        count: (m,), how many training scans show each voxel, 2 or more.
        mean: (c · d, m), over the training scans, the scan itself among them.
        sd: (c · d, m), the same.
    """
    without = (count * mean - own) / (count - 1)
    return np.clip((values - without) / sd, -LIMIT, LIMIT).astype(np.float32)


@score("descriptors", order=18, fit=fit_local)
def descriptors(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Root mean square z of the local descriptors: intensity, contrast, sharpness, texture, asymmetry.

    A density of local descriptors given the place, with independent Gaussian factors: with few scans a full covariance
    at every voxel is worse.

    Source: Defard et al., "PaDiM: a patch distribution modeling framework for anomaly detection and localization",
    ICPR 2021; Goncharov et al., "Screener: self-supervised pathology segmentation model for 3D medical images", 2025.
    """
    result = np.zeros(inputs.mask.shape, dtype=np.float32)
    for target, (z, both) in zip(result, standardised_scans(inputs, state), strict=True):
        target[both] = np.sqrt(np.mean(z * z, axis=0))
    return result
