"""Where a kind of implant does its work: a site in a healthy image, and the steps that several kinds share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medgen.errors import ConfigError, DataError
from medgen.implants.regions import Region
from medgen.metrics.robust import robust_spread

Image = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Site:
    """What a kind of implant gets.

    Attributes:
        image: Healthy image, (i, j, k) float32.
        foreground: (i, j, k) boolean.
        region: The part that may change.
        rng: Source of randomness.
        contrast: Strength, above 0; its unit depends on the kind, see its docstring in
            :mod:`medgen.implants.kinds`.
        sd: Robust standard deviation of the foreground's intensities.
        foreign: Another scan on the same grid, or None.
    """

    image: Image
    foreground: NDArray[np.bool_]
    region: Region
    rng: np.random.Generator
    contrast: float
    sd: float
    foreign: Image | None = None


def robust_sd(image: NDArray[Any], foreground: NDArray[np.bool_]) -> float:
    """Standard deviation of the foreground's intensities by their median absolute deviation (1.4826 MAD).

    Falls back on the plain one where more than half of the voxels are equal, and on 1 in a constant foreground.
    """
    values = np.asarray(image)[foreground].astype(np.float64)
    return robust_spread(values) or float(values.std()) or 1.0


def add(site: Site, change: NDArray[np.floating]) -> Image:
    """The image (i, j, k) with ``change``, of the shape of the region's box, added in the box."""
    result = site.image.copy()
    result[site.region.box] += change.astype(np.float32)
    return result


def blend(site: Site, value: NDArray[np.floating], known: NDArray[np.floating]) -> Image:
    """Mix ``value`` in with the region's weight, where it is ``known`` (0 to 1); both of the shape of the box."""
    here = site.image[site.region.box]
    return add(site, site.region.weight * known * np.where(known > 0, value - here, 0))


def moved(site: Site, points: NDArray[np.float64]) -> tuple[Image, Image]:
    """Image values at other voxel coordinates (3, *box), and 1 where these lie in the foreground, else 0."""
    value: Image = ndimage.map_coordinates(site.image, points, order=1, mode="nearest")
    known = ndimage.map_coordinates(site.foreground, points, order=0, mode="constant", cval=0)
    return value, known.astype(np.float32)


def radial(site: Site, exponent: float) -> Image:
    """Sample at rho^exponent along each ray from the centre: the surface rho = 1 stays where it is."""
    region = site.region
    centre = region.centre[:, None, None, None]
    stretch = np.clip(region.rho, 1e-3, 1) ** (exponent - 1)
    value, known = moved(site, centre + (region.voxels() - centre) * stretch)
    # Continuous at the surface by construction: the soft edge would only hide part of the deformation.
    return add(site, np.where((known > 0) & (region.weight > 0), value - site.image[region.box], 0))


def matched(site: Site) -> tuple[Image, Image]:
    """The foreign scan in the box, its median and sd in the foreground made this image's; and 1 where it is finite.

    Raises:
        ConfigError: If the site has no foreign scan.
        DataError: If it is finite nowhere in the foreground.
    """
    if site.foreign is None:
        raise ConfigError("this implant mixes in another scan; pass it as foreign=, on the same grid")
    common = site.foreground & np.isfinite(site.foreign)
    if not common.any():
        raise DataError("the foreign scan has no finite voxel in this scan's foreground; choose another one")
    gain = site.sd / robust_sd(site.foreign, common)
    value = (site.foreign[site.region.box] - np.median(site.foreign[common])) * gain
    value = value + np.median(site.image[site.foreground])
    return value.astype(np.float32), common[site.region.box].astype(np.float32)


def texture(site: Site) -> Image:
    """Smooth unevenness in the box around 1, within ±0.3, so that no lesion is one flat value."""
    sigma = np.maximum(site.region.radius_mm / 3 / np.array(site.region.spacing), 0.5)
    field = ndimage.gaussian_filter(site.rng.standard_normal(site.region.weight.shape), sigma, mode="wrap")
    result: Image = (1 + 0.3 * np.tanh(field / max(float(field.std()), 1e-6))).astype(np.float32)
    return result
