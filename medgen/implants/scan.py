"""Implants: anomalies put into a healthy image, with the voxels they really changed as ground truth.

``contrast`` is the strength of every kind, and 0 always means the untouched image. Its unit is said by the docstring of
each kind in :mod:`medgen.implants.kinds`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.errors import ConfigError, DataError
from medgen.implants.catalogue import check_kinds, registered
from medgen.implants.site import Image, Site, robust_sd

# Changes below this share of the foreground's sd are rounding, not an anomaly.
_VISIBLE = 1e-3


@dataclass(frozen=True, eq=False)
class Implanted:
    """An image with an implant.

    Attributes:
        image: (i, j, k) float32; equal to the original outside ``mask``.
        mask: (i, j, k), the voxels that changed; inside the foreground; empty if ``contrast`` is 0.
        kind: Name of the kind.
        radius_mm: Radius of the ball of about the region's volume.
        contrast: Strength, in the unit of the kind.
    """

    image: Image
    mask: NDArray[np.bool_]
    kind: str
    radius_mm: float
    contrast: float


def implant(
    image: NDArray[Any],
    foreground: NDArray[np.bool_],
    kind: str,
    rng: np.random.Generator,
    *,
    radius_mm: float,
    spacing: Sequence[float],
    contrast: float = 1.0,
    foreign: NDArray[Any] | None = None,
    shape: NDArray[Any] | None = None,
    where: NDArray[np.bool_] | None = None,
) -> Implanted:
    """Put one anomaly at a random place of the foreground.

    Place and form are drawn before anything else from ``rng``, so the same generator state with another kind or
    contrast gives the same region (except for ``multifocal`` and ``lesion``).

    Args:
        image: (i, j, k) in native or model units; finite in the foreground.
        foreground: (i, j, k) boolean.
        kind: Name in :func:`medgen.implants.catalogue.registered`.
        rng: Source of randomness.
        radius_mm: Radius of the ball of about the region's volume.
        spacing: Voxel sizes (mm).
        contrast: Strength, at least 0; 0 returns the image unchanged with an empty mask.
        foreign: Another scan on the same grid, for ``foreign`` and ``poisson``; its intensities are matched by median
            and robust sd. Where it is not finite it is not used.
        shape: Mask of a real lesion with cubic voxels, needed by ``lesion`` and used by every kind if given.
        where: (i, j, k) boolean, the part of the foreground that the anomaly's centre may lie in; default: all of it.

    Raises:
        ConfigError: If the kind is unknown, the radius or contrast out of range, or ``foreign``/``shape`` is missing.
        DataError: If the arrays do not fit each other or the radius does not fit the foreground.
    """
    original = np.array(image, dtype=np.float32)
    foreground = np.asarray(foreground, dtype=bool)
    step = (float(spacing[0]), float(spacing[1]), float(spacing[2]))
    other = None if foreign is None else np.asarray(foreign, dtype=np.float32)
    _check(original, foreground, kind, radius_mm, contrast, other, shape, where)
    if contrast == 0:
        return Implanted(original, np.zeros(original.shape, dtype=bool), kind, radius_mm, contrast)
    about = registered()[kind]
    region = about.region(foreground, rng, radius_mm, step, shape, where)
    sd = robust_sd(original, foreground)
    # Values outside the foreground may be missing; interpolation next to its edge must not meet NaN.
    healthy = np.nan_to_num(original, nan=0.0, posinf=0.0, neginf=0.0)
    changed = about(Site(healthy, foreground, region, rng, contrast, sd, other))
    # No implant is darker than the darkest healthy voxel: MR magnitudes do not turn negative, brains do not turn 0.
    changed = np.maximum(changed, original[foreground].min())
    difference = np.abs(changed[region.box] - healthy[region.box])
    mask = np.zeros(original.shape, dtype=bool)
    mask[region.box] = (region.weight > 0) & foreground[region.box] & (difference > _VISIBLE * sd)
    return Implanted(np.where(mask, changed, original), mask, kind, radius_mm, contrast)


def _check(
    image: Image,
    foreground: NDArray[np.bool_],
    kind: str,
    radius_mm: float,
    contrast: float,
    foreign: Image | None,
    shape: NDArray[Any] | None,
    where: NDArray[np.bool_] | None,
) -> None:
    check_kinds([kind])
    if not radius_mm > 0 or not contrast >= 0:
        raise ConfigError(f"expected radius_mm > 0 and contrast >= 0, found {radius_mm:g} and {contrast:g}")
    if image.ndim != 3 or foreground.shape != image.shape:
        raise DataError(
            f"expected image and foreground of one shape (i, j, k), found {image.shape}, {foreground.shape}"
        )
    if where is not None and where.shape != image.shape:
        raise DataError(f"expected where of the image's shape {image.shape}, found {where.shape}")
    if not foreground.any() or not np.isfinite(image[foreground]).all():
        raise DataError("expected a foreground with finite voxels only; check the scan and its foreground mask")
    if registered()[kind].foreign and foreign is None:
        raise ConfigError(f"implant kind {kind!r} mixes in another scan; pass it as foreign=, on the same grid")
    if foreign is not None and foreign.shape != image.shape:
        raise DataError(f"expected a foreign scan of shape {image.shape}, found {foreign.shape}; resample it first")
    if registered()[kind].shape and shape is None:
        raise ConfigError(f"implant kind {kind!r} takes its form from a real mask; pass it as shape=")
