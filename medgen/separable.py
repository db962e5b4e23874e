"""Linear interpolation along axes that two grids share, and Gaussians, axis after axis: a fraction of the work.

Where a target's axes run along the source's, in whatever order and direction, a voxel's eight neighbours and the blur
before them factor into one short row of weights for each axis. Three sparse products in the order of memory then take
the place of a search for every voxel. Weights are those that SciPy computes, in double precision; sums are single, so
results differ from SciPy's by rounding (some 1e-7 of the range). Grids that share their voxels are copied exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

# Gaussians end at three standard deviations, as in SciPy's filters with truncate=3.
_TRUNCATE = 3.0
# Voxels along an axis up to which a product of matrices is faster than a filter.
_LONGEST = 128


@dataclass(frozen=True)
class Axes:
    """How the axes of a target lie along those of a source.

    Attributes:
        source: For each target axis, the source's axis that it runs along.
        step: For each target axis, voxels of the source from one target voxel to the next; negative against it.
        offset: For each target axis, where its first voxel lies on that source axis.
    """

    source: tuple[int, int, int]
    step: tuple[float, float, float]
    offset: tuple[float, float, float]

    @classmethod
    def of(cls, mapping: NDArray[np.float64]) -> Axes | None:
        """The axes of a 4 × 4 map from target to source voxels; None where they are oblique to each other.

        >>> Axes.of(np.array([[0, 2.0, 0, 1], [-1, 0, 0, 9], [0, 0, 1, 0], [0, 0, 0, 1]]))
        Axes(source=(1, 0, 2), step=(-1.0, 2.0, 1.0), offset=(9.0, 1.0, 0.0))
        """
        linear = mapping[:3, :3]
        source = np.abs(linear).argmax(axis=0)
        rest = linear.copy()
        rest[source, range(3)] = 0
        if len(set(source.tolist())) < 3 or np.abs(rest).max() >= 1e-9:
            return None
        a, b, c = source.tolist()
        steps, offsets = linear[source, range(3)].tolist(), mapping[source, 3].tolist()
        return cls((a, b, c), (steps[0], steps[1], steps[2]), (offsets[0], offsets[1], offsets[2]))

    def positions(self, axis: int, n: int) -> NDArray[np.float64]:
        """Where ``n`` voxels of a target axis lie, in voxels of the source."""
        return np.arange(n, dtype=np.float64) * self.step[axis] + self.offset[axis]


def interpolate(
    data: NDArray[np.float32], axes: Axes, shape: tuple[int, int, int], sigma: NDArray[np.float64] | None
) -> NDArray[np.float32]:
    """Blur, then interpolate linearly; beyond the outermost voxels their values go on.

    Args:
        data: Source, (i, j, k), finite.
        axes: How the target lies in it.
        shape: Of the target.
        sigma: Standard deviations of the blur along the source's axes, in voxels; None for none.

    Returns:
        (*shape), possibly not in the order of memory that NumPy makes arrays in.
    """
    # From the source's last axis to its first, however it lies in memory: rounding must not depend on that. It is the
    # order of a scan that was read from NIfTI, which is then not copied.
    values = _turned(data)
    targets = [axes.source.index(axis) for axis in (2, 1, 0)]
    third, second, first = (
        _weights(
            axes.positions(target, shape[target]),
            data.shape[axes.source[target]],
            0.0 if sigma is None else float(sigma[axes.source[target]]),
        )
        for target in targets
    )
    values = (third @ values.reshape(len(values), -1)).reshape(-1, *values.shape[1:])
    between = np.empty((values.shape[0], second.shape[0], values.shape[2]), dtype=np.float32)
    for plane, out in zip(values, between, strict=True):
        out[...] = second @ plane
    # The axis that runs fastest becomes the slowest: this product, too, then goes along whole rows.
    turned = first @ between.reshape(-1, between.shape[2]).T
    result = turned.reshape(-1, *between.shape[:2])
    places = [targets[2], targets[0], targets[1]]
    return np.asarray(result.transpose([places.index(axis) for axis in range(3)]))


def gaussian(values: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Gaussian average of finite values with 0 around them, to three standard deviations.

    As SciPy's filter up to rounding (some 1e-7 of the range). Along axes of up to 128 voxels by products of matrices,
    which take a half to a fifth of its time though most of what they multiply is 0.

    Args:
        values: (i, j, k).
        sigma: Standard deviation in voxels.
    """
    if max(values.shape) > _LONGEST:
        return np.asarray(
            ndimage.gaussian_filter(values, sigma, mode="constant", truncate=_TRUNCATE, output=np.float32)
        )
    first, second, third = (_gaussian_rows(n, float(sigma)) for n in values.shape)
    values = np.ascontiguousarray(values, dtype=np.float32)
    made = np.matmul(second, (first @ values.reshape(len(first), -1)).reshape(values.shape))
    return (made.reshape(-1, len(third)) @ third.T).reshape(values.shape)


@lru_cache(maxsize=64)
def _gaussian_rows(n: int, sigma: float) -> NDArray[np.float32]:
    rows: NDArray[np.float32] = ndimage.gaussian_filter1d(
        np.eye(n), sigma, axis=0, mode="constant", truncate=_TRUNCATE
    ).astype(np.float32)
    return rows


def _turned(data: NDArray[np.float32]) -> NDArray[np.float32]:
    """(k, j, i) in the order of memory; plane by plane, since NumPy's own transposition strides twice as slowly."""
    if data.T.flags.c_contiguous:
        return data.T
    result = np.empty(data.shape[::-1], dtype=np.float32)
    for j in range(data.shape[1]):
        result[:, j] = data[:, j].T
    return result


def _weights(positions: NDArray[np.float64], n: int, sigma: float) -> Any:
    """Sparse rows that blur ``n`` voxels of an axis and interpolate them at positions, (positions, n) float32."""
    inside = np.clip(positions, 0, n - 1)
    below = np.minimum(np.floor(inside).astype(np.int64), max(n - 2, 0))
    above = np.minimum(below + 1, n - 1)
    share = inside - below
    row = np.arange(len(positions))
    linear = sparse.csr_array(
        (np.r_[1 - share, share], (np.r_[row, row], np.r_[below, above])), shape=(len(positions), n)
    )
    if sigma > 0:
        blur = ndimage.gaussian_filter1d(np.eye(n), sigma, axis=0, mode="nearest", truncate=_TRUNCATE)
        linear = linear @ sparse.csr_array(blur)
    linear.sum_duplicates()
    linear.eliminate_zeros()
    return linear.astype(np.float32)
