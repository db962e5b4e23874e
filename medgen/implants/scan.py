"""Implants: anomalies put into a healthy image, with the voxels they really changed as ground truth.

``contrast`` is the strength of every kind, and 0 always means the untouched image:

============== =====================================================================================================
kind           what ``contrast`` c is
============== =====================================================================================================
uniform, noise added value, or its standard deviation, in robust standard deviations (sd) of the foreground
hypointense    mean darkening in sd, at most down to the foreground's 1st percentile
hyperintense   mean brightening in sd
lesion         as hypointense or hyperintense, at random, in the form of a real lesion mask
multifocal     as lesion, in three to six small blobs
sink, source   exponent of the radial map: rho -> rho^(1/(1+c)) pulls outer tissue in, rho^(1+c) pushes inner out
shift          length of the shift in radii
blur           Gaussian sigma in thirds of the radius
reflection     mixing weight α = min(c, 1) of the mirrored image
shuffle        mixing weight α = min(c, 1) of the shuffled voxels
foreign        mixing weight α = min(c, 1) of the other scan
poisson        mixing weight α = min(c, 1) of the other scan's gradients
twist          turn at the centre in radians
sharpen        detail added, in multiples of the detail there is
fade           deviations from the region's mean are divided by 1 + c
ramp           change from −c to c sd across the region
============== =====================================================================================================
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.errors import ConfigError, DataError
from medgen.implants import kinds
from medgen.implants.regions import Region, merge, place, random_blob, shape_of_mask

Image = NDArray[np.float32]

# Changes below this share of the foreground's sd are rounding, not an anomaly.
_VISIBLE = 1e-3


@dataclass(frozen=True, eq=False)
class Implanted:
    """An image with an implant.

    Attributes:
        image: (i, j, k) float32; equal to the original outside ``mask``.
        mask: (i, j, k), the voxels that changed; inside the foreground; empty if ``contrast`` is 0.
        kind: Name in :data:`IMPLANTS`.
        radius_mm: Radius of the ball of about the region's volume.
        contrast: Strength; see the module's table.
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
        kind: Name in :data:`IMPLANTS`.
        rng: Source of randomness.
        radius_mm: Radius of the ball of about the region's volume.
        spacing: Voxel sizes (mm).
        contrast: Strength, at least 0; 0 returns the image unchanged with an empty mask. See the module's table.
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
    region = _region(kind, foreground, rng, radius_mm, step, shape, where)
    sd = kinds.robust_sd(original, foreground)
    # Values outside the foreground may be missing; interpolation next to its edge must not meet NaN.
    healthy = np.nan_to_num(original, nan=0.0, posinf=0.0, neginf=0.0)
    changed = IMPLANTS[kind](kinds.Site(healthy, foreground, region, rng, contrast, sd, other))
    # No implant is darker than the darkest healthy voxel: MR magnitudes do not turn negative, brains do not turn 0.
    changed = np.maximum(changed, original[foreground].min())
    difference = np.abs(changed[region.box] - healthy[region.box])
    mask = np.zeros(original.shape, dtype=bool)
    mask[region.box] = (region.weight > 0) & foreground[region.box] & (difference > _VISIBLE * sd)
    return Implanted(np.where(mask, changed, original), mask, kind, radius_mm, contrast)


IMPLANTS: Mapping[str, Callable[[kinds.Site], Image]] = MappingProxyType(
    {
        "uniform": kinds.uniform,
        "noise": kinds.noise,
        "sink": kinds.sink,
        "source": kinds.source,
        "shift": kinds.shift,
        "reflection": kinds.reflection,
        "blur": kinds.blur,
        "shuffle": kinds.shuffle,
        "foreign": kinds.foreign_patch,
        "poisson": kinds.poisson,
        "hypointense": kinds.hypointense,
        "hyperintense": kinds.hyperintense,
        "multifocal": kinds.lesion,
        "lesion": kinds.lesion,
        "twist": kinds.twist,
        "sharpen": kinds.sharpen,
        "fade": kinds.fade,
        "ramp": kinds.ramp,
    }
)
# Kinds that channels are chosen on, never tested on.
VALIDATION_KINDS = ("twist", "sharpen", "fade", "ramp")
# The set that needs nothing but the image.
TOY_KINDS = (
    "uniform",
    "noise",
    "sink",
    "source",
    "shift",
    "reflection",
    "blur",
    "shuffle",
    "hypointense",
    "hyperintense",
)
NEEDS_FOREIGN = frozenset({"foreign", "poisson"})
NEEDS_SHAPE = frozenset({"lesion"})


def _region(
    kind: str,
    foreground: NDArray[np.bool_],
    rng: np.random.Generator,
    radius_mm: float,
    spacing: tuple[float, float, float],
    shape: NDArray[Any] | None,
    where: NDArray[np.bool_] | None,
) -> Region:
    if kind == "multifocal":
        radii = radius_mm * rng.uniform(0.35, 0.6, size=rng.integers(3, 7))
        return merge([place(random_blob(rng, r, spacing), foreground, rng, radius_mm, spacing, where) for r in radii])
    if shape is not None:
        form = shape_of_mask(np.asarray(shape) > 0, rng, radius_mm, spacing)
    else:
        form = random_blob(rng, radius_mm, spacing)
    return place(form, foreground, rng, radius_mm, spacing, where)


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
    if kind in NEEDS_FOREIGN and foreign is None:
        raise ConfigError(f"implant kind {kind!r} mixes in another scan; pass it as foreign=, on the same grid")
    if foreign is not None and foreign.shape != image.shape:
        raise DataError(f"expected a foreign scan of shape {image.shape}, found {foreign.shape}; resample it first")
    if kind in NEEDS_SHAPE and shape is None:
        raise ConfigError(f"implant kind {kind!r} takes its form from a real mask; pass it as shape=")


def check_kinds(names: Sequence[str]) -> None:
    """Raise ConfigError, with the nearest known name, if a kind is not in :data:`IMPLANTS`."""
    for kind in names:
        if kind not in IMPLANTS:
            near = difflib.get_close_matches(kind, IMPLANTS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known kinds: {', '.join(IMPLANTS)}"
            raise ConfigError(f"unknown implant kind {kind!r}; {hint}")
