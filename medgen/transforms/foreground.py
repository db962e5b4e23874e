"""Where a scan shows the patient: for skull-stripped brains, whole heads in noisy air, and crops inside the body."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medgen.errors import DataError
from medgen.io.hounsfield import AIR, EMPTY, TISSUE, is_hounsfield
from medgen.metrics.robust import robust_spread

# Air is darker than this share of the scan's bright end (98th percentile), in MR as in CT.
_DARK = 0.15
# How many voxels deep the outer layer is in which air is looked for: deeper than a resampled mask's feathered edge.
_LAYER = 3
# A tomogram with air on less of its border is a crop inside the body.
_OUTSIDE = 0.05


def foreground_mask(data: NDArray[Any]) -> NDArray[np.bool_]:
    """Voxels that belong to the patient, without knowing how the scan was made.

    Three situations are told apart by the data alone:

    1. *Constant background* (skull-stripped, padded): every voxel that the constant border value does not reach from
       outside is foreground, so dark ventricles stay in.
    2. *Noisy air* (whole head): what remains after 1 is mostly dark in its outer layer; that layer gives the level
       and spread of air, and what is brighter (at most Otsu's threshold, IEEE SMC 1979), closed and filled, is kept.
    3. *Crop inside the body* (organ of interest): no constant border and no dark layer; everything is foreground.

    In the first two the largest connected component is kept. Where a channel holds Hounsfield units, these decide by
    themselves, whatever the image is padded with: air at the border is outside, and what is denser than lung, closed
    and filled, is the body; without air at the border everything is.

    Args:
        data: (c, i, j, k) or (i, j, k), any scale. A non-finite voxel counts as background.

    Returns:
        Boolean array (i, j, k) with at least one True voxel.

    Raises:
        DataError: If the array has another rank or one constant value only.
    """
    data = np.asarray(data)
    if data.ndim not in (3, 4):
        raise DataError(f"expected an image of shape (i, j, k) or (channel, i, j, k), found {data.shape}")
    channels = data[None] if data.ndim == 3 else data
    if (tomogram := next((channel for channel in channels if is_hounsfield(channel)), None)) is not None:
        return _body(tomogram)
    normal, paddings = zip(*(_normalise(channel) for channel in channels), strict=True)
    image: NDArray[np.float32] = np.stack(normal).mean(axis=0)
    body = ~_reached_from_border(np.logical_and.reduce(paddings))
    if not body.any():
        raise DataError("the image has no foreground: every voxel has the border's value; check that it is not empty")
    body = _largest(body)
    # A floor: one-voxel-thick images have nothing left after erosion.
    layer = body & ~_eroded(body, _LAYER)
    air = image[layer & (image < _DARK)]
    return _without_air(image, body, air) if air.size >= 0.5 * layer.sum() else body


def _normalise(channel: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Channel scaled to [0, 1] between its dark and bright end, and its voxels of the constant border value."""
    values = np.asarray(channel, dtype=np.float32)
    finite = np.isfinite(values)
    if not finite.any():
        raise DataError("the image has no finite voxel; read it again or leave it out")
    padding = ~finite
    border = values[_border(values.shape) & finite]
    levels, counts = np.unique(border, return_counts=True) if border.size else (np.zeros(1), np.zeros(1))
    common = levels[counts.argmax()]
    # Even coarse 8-bit crops have no level on one voxel in ten of their border; constant padding has.
    padded = counts.max() >= 0.1 * max(border.size, 1)
    if padded:
        padding |= values == common
    inside = values[~padding]
    if inside.size == 0 or inside.min() == inside.max():
        raise DataError("the image has one constant value; there is nothing to find in it")
    low = float(common) if padded else float(np.percentile(inside, 1))
    high = float(np.percentile(inside, 98))
    if high <= low:  # background brighter than the patient: measure from the dark end of the inside
        low, high = float(inside.min()), float(inside.max())
    scaled = np.where(finite, (values - np.float32(low)) / np.float32(high - low), np.float32(0))
    return np.clip(scaled, 0, 1), padding


def _body(channel: NDArray[Any]) -> NDArray[np.bool_]:
    """The body in an image of Hounsfield units, which has tissue and values as low as air."""
    values = np.where(np.isfinite(channel), channel, AIR).astype(np.float32)
    smooth = ndimage.median_filter(np.maximum(values, AIR), 3) if min(values.shape) >= 3 else values
    border = _border(values.shape)
    if np.mean(smooth[border] < EMPTY) < _OUTSIDE:
        return np.ones(values.shape, dtype=bool)
    # Thin things that touch the body, such as blankets and the table's edge, come off by an opening.
    dense = smooth > TISSUE
    opened = ndimage.binary_opening(dense)
    body = _filled(_largest(opened if opened.any() else dense), smooth >= EMPTY)
    # Lungs alone, cut out of a scan, are not denser than lung: then what air does not reach from outside is the body.
    enclosed = _largest(~_reached_from_border(smooth < EMPTY))
    return body if 2 * body.sum() >= enclosed.sum() else enclosed


def _border(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    border = np.ones(shape, dtype=bool)
    border[1:-1, 1:-1, 1:-1] = False
    return border


def _eroded(mask: NDArray[np.bool_], iterations: int) -> NDArray[np.bool_]:
    """As SciPy's binary erosion with its usual cross, outside of the grid all False, in a tenth of its time."""
    for _ in range(iterations):
        kept = mask.copy()
        for axis in range(mask.ndim):
            own, before = np.moveaxis(kept, axis, 0), np.moveaxis(mask, axis, 0)
            own[1:] &= before[:-1]
            own[:-1] &= before[1:]
            own[0] = own[-1] = False
        mask = kept
    return mask


def _reached_from_border(padding: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The connected parts of ``padding`` that touch the border and are more than a few stray voxels."""
    labels, count = ndimage.label(padding)
    if count == 0:
        return np.zeros_like(padding)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    outside = np.zeros(count + 1, dtype=bool)
    outside[np.unique(labels[_border(padding.shape) & padding])] = True
    outside &= sizes >= max(8, padding.size // 500)
    outside[0] = False
    return outside[labels]


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    labels, count = ndimage.label(mask)
    if count <= 1:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    largest: NDArray[np.bool_] = labels == sizes.argmax()
    return largest


def _without_air(image: NDArray[np.float32], body: NDArray[np.bool_], air: NDArray[np.float32]) -> NDArray[np.bool_]:
    # Otsu alone cuts between fat or brain and everything darker, scalp and muscle included: it is only the upper limit.
    level = float(np.median(air))
    threshold = min(max(level + 4 * robust_spread(air), 0.05), otsu_threshold(image[body]))
    smooth = ndimage.median_filter(image, 3) if min(image.shape) >= 3 else image
    mask = body & (smooth > threshold)
    if not mask.any():
        return body
    return _filled(mask, body) & body


def _filled(mask: NDArray[np.bool_], closable: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask's shell closed where it may be, then filled in 3D and in every plane of each axis.

    Skull, sinuses, ears and lungs are dark, and open to the outside by a few voxels.
    """
    reach = max(1, min(4, min(mask.shape) // 16))
    closed = ndimage.binary_closing(np.pad(mask, reach), iterations=reach)[reach:-reach, reach:-reach, reach:-reach]
    mask = _largest(ndimage.binary_fill_holes(mask | (closed & closable)))
    for axis in range(3):
        planes = np.moveaxis(mask, axis, 0)
        filled = np.stack([ndimage.binary_fill_holes(plane) for plane in planes])
        mask = np.moveaxis(filled, 0, axis)
    return mask


def otsu_threshold(values: NDArray[Any], bins: int = 256) -> float:
    """The threshold that maximises the variance between the two classes it makes (Otsu, IEEE SMC 1979, eq. 18).

    Args:
        values: Any shape, finite, at least two different values.
        bins: Histogram bins between minimum and maximum.

    Returns:
        Centre of the last bin of the lower class; values above it are the upper class.

    >>> float(round(otsu_threshold(np.array([0.0, 0.1, 0.1, 0.9, 1.0])), 1))
    0.1
    """
    counts, edges = np.histogram(values, bins=bins)
    centres = (edges[:-1] + edges[1:]) / 2
    lower = np.cumsum(counts).astype(np.float64)
    upper = lower[-1] - lower
    mass = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = lower * upper * (mass / lower - (mass[-1] - mass) / upper) ** 2
    between[~np.isfinite(between)] = -1
    return float(centres[between.argmax()])


def foreground_box(foreground: NDArray[np.bool_]) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """First and last voxel of the foreground along each axis; of the whole grid if there is none."""
    where = np.argwhere(foreground)
    if not len(where):
        return np.zeros(3, dtype=int), np.array(foreground.shape) - 1
    return where.min(axis=0), where.max(axis=0)
