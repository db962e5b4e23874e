"""The kinds of implant: each a function from a site in a healthy image to the changed image.

The toy types (uniform, noise, sink, source, shift, reflection) are those of Tan et al., "Detecting Outliers with
Foreign Patch Interpolation", MELBA 2022, made for the MOOD challenge (Zimmerer et al., "MOOD 2020: A Public Benchmark
for Out-of-Distribution Detection and Localization on Medical Images", IEEE TMI 2022).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse import linalg

from medgen.errors import ConfigError, DataError
from medgen.implants.regions import Region
from medgen.metrics.robust import robust_spread

Image = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Site:
    """What an implant function gets.

    Attributes:
        image: Healthy image, (i, j, k) float32.
        foreground: (i, j, k) boolean.
        region: The part that may change.
        rng: Source of randomness.
        contrast: Strength, above 0; its unit depends on the kind, see :mod:`medgen.implants.scan`.
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


def uniform(site: Site) -> Image:
    """One value, positive or negative, added in the region (FPI/MOOD "uniform addition")."""
    sign = site.rng.choice((-1.0, 1.0))
    return _add(site, sign * site.contrast * site.sd * site.region.weight)


def noise(site: Site) -> Image:
    """White Gaussian noise added in the region (FPI/MOOD "noise addition")."""
    values = site.rng.standard_normal(site.region.weight.shape).astype(np.float32)
    return _add(site, site.contrast * site.sd * site.region.weight * values)


def sink(site: Site) -> Image:
    """Tissue pulled towards the centre: sampled at rho^(1/(1+c)) (FPI/MOOD "sink deformation"). The surface stays."""
    return _radial(site, 1 / (1 + site.contrast))


def source(site: Site) -> Image:
    """Tissue pushed away from the centre: sampled at rho^(1+c) (FPI/MOOD "source deformation"). The surface stays."""
    return _radial(site, 1 + site.contrast)


def shift(site: Site) -> Image:
    """The region shows the tissue c radii away in a random direction (FPI/MOOD "uniform shift")."""
    direction = site.rng.standard_normal(3)
    direction /= np.linalg.norm(direction)
    offset = site.contrast * site.region.radius_mm * direction / np.array(site.region.spacing)
    there = [_moved(site, site.region.voxels() + sign * offset[:, None, None, None]) for sign in (1, -1)]
    # Of the two opposite directions, the one with more tissue in it.
    value, known = max(there, key=lambda pair: float((pair[1] * site.region.weight).sum()))
    return _blend(site, value, known)


def reflection(site: Site) -> Image:
    """The region shows the volume mirrored about the foreground's middle along a random axis (FPI/MOOD "reflection").

    Of the three axes in random order the first is taken whose mirror image has tissue in most of the region.
    """
    extent = ndimage.find_objects(site.foreground.astype(np.uint8))[0]
    middle = [(part.start + part.stop - 1) / 2 for part in extent]
    best: tuple[Image, Image] | None = None
    for axis in site.rng.permutation(3):
        points = site.region.voxels()
        points[axis] = 2 * middle[axis] - points[axis]
        value, known = _moved(site, points)
        if best is None or (known * site.region.weight).sum() > 1.25 * (best[1] * site.region.weight).sum():
            best = value, known
    assert best is not None
    return _blend(site, best[0], best[1] * np.float32(min(site.contrast, 1)))


def blur(site: Site) -> Image:
    """Local loss of sharpness: Gaussian, sigma c/3 radii, foreground only (normalised convolution)."""
    sigma = site.contrast * site.region.radius_mm / 3 / np.array(site.region.spacing)
    margin = np.ceil(3 * sigma).astype(int)
    outer = tuple(
        slice(max(0, part.start - int(m)), min(n, part.stop + int(m)))
        for part, m, n in zip(site.region.box, margin, site.image.shape, strict=True)
    )
    inner = tuple(
        slice(part.start - wide.start, part.stop - wide.start)
        for part, wide in zip(site.region.box, outer, strict=True)
    )
    inside = site.foreground[outer].astype(np.float32)
    values = ndimage.gaussian_filter(inside * site.image[outer], sigma, mode="nearest", truncate=3)
    weight = ndimage.gaussian_filter(inside, sigma, mode="nearest", truncate=3)
    return _blend(site, (values / np.maximum(weight, 1e-6))[inner], inside[inner])


def shuffle(site: Site) -> Image:
    """Voxels trade places inside blocks of 3 × 3 × 3 (local shuffling, Zhou et al., Models Genesis, MICCAI 2019)."""
    voxels = site.region.voxels().astype(int)
    inside = ((site.region.weight > 0) & site.foreground[site.region.box]).ravel()
    grid = tuple(n // 3 + 1 for n in site.image.shape)
    blocks = np.ravel_multi_index(tuple(voxels.reshape(3, -1)[:, inside] // 3), grid)
    values = site.image[site.region.box].ravel().copy()
    old = values[inside]
    # Sorting by (block, random) against (block, position) permutes within each block and keeps its set of values.
    mixed = np.empty_like(old)
    mixed[np.argsort(blocks, kind="stable")] = old[np.lexsort((site.rng.random(old.size), blocks))]
    values[inside] = mixed
    full = np.full(site.region.weight.shape, min(site.contrast, 1), dtype=np.float32)
    return _blend(site, values.reshape(site.region.weight.shape), full)


def foreign_patch(site: Site) -> Image:
    """Linear interpolation with the same place of another scan, (1 − α) x + α y (Tan et al., FPI, eq. 1)."""
    value, known = _matched(site)
    return _blend(site, value, known * np.float32(min(site.contrast, 1)))


def poisson(site: Site) -> Image:
    """Seamless patch: gradients mixed with another scan's, the image as boundary (Tan et al., PII, MICCAI 2021).

    Solves the discrete Poisson equation Δf = div((1 − α)∇x + α∇y) in the region with f = x around it, for the
    difference f − x, so that α = 0 is exact.
    """
    value, known = _matched(site)
    here = site.image[site.region.box]
    difference = np.where(known > 0, value - here, 0) * min(site.contrast, 1)
    # A free layer around: the box may end at the region's surface.
    inside = np.pad((site.region.weight > 0) & (known > 0), 1)
    wanted = np.pad(difference, 1, mode="edge").astype(np.float64)
    usable = np.pad(known > 0, 1, mode="edge")
    number = np.full(inside.shape, -1)
    number[inside] = np.arange(inside.sum())
    rows, columns, entries = [], [], []
    right = np.zeros(int(inside.sum()))
    for axis in range(3):
        for direction in (-1, 1):
            neighbour = np.roll(number, -direction, axis)[inside]
            both = usable & np.roll(usable, -direction, axis)
            right += np.where(both, wanted - np.roll(wanted, -direction, axis), 0)[inside]
            linked = neighbour >= 0
            rows.append(number[inside][linked])
            columns.append(neighbour[linked])
            entries.append(np.full(int(linked.sum()), -1.0))
    system = sparse.csr_matrix(
        (np.concatenate(entries), (np.concatenate(rows), np.concatenate(columns))), shape=(right.size, right.size)
    ) + 6 * sparse.eye(right.size, format="csr")
    solution, _ = linalg.cg(system, right, rtol=1e-5, maxiter=2000)
    change = np.zeros(inside.shape, dtype=np.float32)
    change[inside] = solution
    return _add(site, change[1:-1, 1:-1, 1:-1])


def hypointense(site: Site) -> Image:
    """A dark, slightly uneven lesion as old infarcts on T1: down by c sd, not below the foreground's 1st percentile."""
    darkest = np.float32(np.percentile(site.image[site.foreground], 1))
    here = site.image[site.region.box]
    change = site.contrast * site.sd * site.region.weight * _texture(site)
    return _add(site, np.maximum(here - change, np.minimum(here, darkest)) - here)


def hyperintense(site: Site) -> Image:
    """A bright, slightly uneven lesion: up by c sd (as Meissen et al., MIDL 2022, for FLAIR)."""
    return _add(site, site.contrast * site.sd * site.region.weight * _texture(site))


def lesion(site: Site) -> Image:
    """A hypointense or hyperintense lesion, at random; :func:`implant` gives it a real lesion's form."""
    model = hypointense if site.rng.random() < 0.5 else hyperintense
    return model(site)


def twist(site: Site) -> Image:
    """Tissue turned about a random axis by up to c radians, most at the centre; the surface stays."""
    region = site.region
    axis = site.rng.standard_normal(3)
    axis /= np.linalg.norm(axis)
    step = np.array(region.spacing)[:, None, None, None]
    arm = (region.voxels() - region.centre[:, None, None, None]) * step
    angle = site.contrast * np.clip(1 - region.rho, 0, 1)
    along = np.tensordot(axis, arm, axes=1) * axis[:, None, None, None]
    across = np.cross(axis, arm, axisb=0, axisc=0)
    turned = along + (arm - along) * np.cos(angle) + across * np.sin(angle)
    value, known = _moved(site, region.centre[:, None, None, None] + turned / step)
    return _add(site, np.where((known > 0) & (region.weight > 0), value - site.image[region.box], 0))


def sharpen(site: Site) -> Image:
    """Detail exaggerated by c times its own size: the difference from a Gaussian of one voxel (unsharp masking)."""
    inside = site.foreground.astype(np.float32)
    weight = np.maximum(ndimage.gaussian_filter(inside, 1.0, mode="nearest"), 1e-6)
    smooth = ndimage.gaussian_filter(site.image * inside, 1.0, mode="nearest") / weight
    detail = (site.image - smooth)[site.region.box]
    return _add(site, site.contrast * site.region.weight * detail)


def fade(site: Site) -> Image:
    """Contrast lost: deviations from the region's mean divided by 1 + c."""
    inside = (site.region.weight > 0) & site.foreground[site.region.box]
    here = site.image[site.region.box]
    mean = float(here[inside].mean()) if inside.any() else 0.0
    return _add(site, site.region.weight * inside * (mean - here) * (1 - 1 / (1 + site.contrast)))


def ramp(site: Site) -> Image:
    """A linear change across the region in a random direction, from −c to c sd."""
    direction = site.rng.standard_normal(3)
    direction /= np.linalg.norm(direction)
    arm = (site.region.voxels() - site.region.centre[:, None, None, None]) * np.array(site.region.spacing)[
        :, None, None, None
    ]
    slope = np.clip(np.tensordot(direction, arm, axes=1) / site.region.radius_mm, -1, 1)
    return _add(site, site.contrast * site.sd * site.region.weight * slope)


def _add(site: Site, change: NDArray[np.floating]) -> Image:
    result = site.image.copy()
    result[site.region.box] += change.astype(np.float32)
    return result


def _blend(site: Site, value: NDArray[np.floating], known: NDArray[np.floating]) -> Image:
    """Mix ``value`` in with the region's weight, where it is ``known`` (0 to 1)."""
    here = site.image[site.region.box]
    return _add(site, site.region.weight * known * np.where(known > 0, value - here, 0))


def _moved(site: Site, points: NDArray[np.float64]) -> tuple[Image, Image]:
    """Image values at other voxel coordinates, and 1 where these lie in the foreground, else 0."""
    value: Image = ndimage.map_coordinates(site.image, points, order=1, mode="nearest")
    known = ndimage.map_coordinates(site.foreground, points, order=0, mode="constant", cval=0)
    return value, known.astype(np.float32)


def _radial(site: Site, exponent: float) -> Image:
    """Sample at rho^exponent along each ray from the centre: the surface rho = 1 stays where it is."""
    region = site.region
    centre = region.centre[:, None, None, None]
    stretch = np.clip(region.rho, 1e-3, 1) ** (exponent - 1)
    value, known = _moved(site, centre + (region.voxels() - centre) * stretch)
    # Continuous at the surface by construction: the soft edge would only hide part of the deformation.
    return _add(site, np.where((known > 0) & (region.weight > 0), value - site.image[region.box], 0))


def _matched(site: Site) -> tuple[Image, Image]:
    """The foreign scan in the region, its median and sd in the foreground made this image's; 1 where it is finite."""
    if site.foreign is None:
        raise ConfigError("this implant mixes in another scan; pass it as foreign=, on the same grid")
    common = site.foreground & np.isfinite(site.foreign)
    if not common.any():
        raise DataError("the foreign scan has no finite voxel in this scan's foreground; choose another one")
    gain = site.sd / robust_sd(site.foreign, common)
    value = (site.foreign[site.region.box] - np.median(site.foreign[common])) * gain
    value = value + np.median(site.image[site.foreground])
    return value.astype(np.float32), common[site.region.box].astype(np.float32)


def _texture(site: Site) -> Image:
    """Smooth unevenness around 1, within ±0.3, so that no lesion is one flat value."""
    sigma = np.maximum(site.region.radius_mm / 3 / np.array(site.region.spacing), 0.5)
    field = ndimage.gaussian_filter(site.rng.standard_normal(site.region.weight.shape), sigma, mode="wrap")
    texture: Image = (1 + 0.3 * np.tanh(field / max(float(field.std()), 1e-6))).astype(np.float32)
    return texture
