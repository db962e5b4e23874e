"""Bringing a head to the model grid against the chains of MONAI and TorchIO, arrays in and arrays out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from medgen import affines
from medgen.data.simulation import SubjectDrawer, cohort_grid
from medgen.preprocessing.percentiles import percentiles
from medgen.preprocessing.recipe import Preprocess
from medgen.volume import Grid, Volume

from ..contest import Contender, Contest, Demand, Entry, Rows, Settings
from ..peers import absent

_SEED = 0
_MONAI, _TORCHIO = 7.0, 3.5
_LOW, _HIGH = 1.0, 99.0
Array = NDArray[np.float32]


def entries(settings: Settings) -> Iterator[Entry]:
    """The same steps as the peers', then the whole recipe, which also finds the patient."""
    scan = _posterior_first(SubjectDrawer(cohort_grid(6.0 if settings.quick else 1.0)).draw(_SEED, 0).image)
    # Of half the resolution, and of a little more than the scan's own.
    targets = {"1.5 mm": ((128, 144, 128), 1.5), "0.9 mm": ((192, 224, 192), 0.9)}
    if settings.quick:
        targets = {"9 mm": ((24, 28, 24), 9.0)}
    gone = absent("torchio", "TorchIO")
    for name, (shape, size) in targets.items():
        grid = scan.grid.centred(shape, (size,) * 3)
        ways: dict[str, Callable[[], Any]] = {"medgen": partial(_steps, scan, grid), "MONAI": _monai(scan, shape, size)}
        if not gone:
            ways["TorchIO"] = _torchio(scan, shape, size)
        goals = {"medgen": None, "MONAI": _MONAI, "TorchIO": _TORCHIO}
        demand = Demand(0, 4.0 * (scan.data.size + np.prod(shape)), "the scan once, the result once")
        yield Contest(
            f"orientation, resampling, crop and percentiles, to {name}",
            tuple(Contender(own, way, goals[own]) for own, way in ways.items()),
            demand=demand,
            equal=partial(_errors, scan, grid, ways),
            without=gone,
            notes=(
                "The steps that all have: to RAS+, to the grid, scaled so that the percentiles 1 and 99 of the result "
                "become 0 and 1. Errors are mean absolute differences from the same steps in double precision by SciPy:"
                " medgen blurs before it samples more coarsely, the others do not, and each is compared with exact "
                "numbers for what it does on its own grid.",
            ),
        )
        recipe = Preprocess(shape=shape, spacing=(size,) * 3, modality="MR")
        yield Contest(
            f"the whole recipe, to {name}",
            (
                Contender("medgen", partial(recipe.apply, scan)),
                *(Contender(own, way) for own, way in ways.items() if own != "medgen"),
            ),
            demand=demand,
            without=gone,
            notes=(
                "Here medgen also finds the patient (connected parts, air, holes) and scales by what lies inside, "
                "which the peers' chains leave out: the work is not equal, and no ratio is promised.",
            ),
        )


def _posterior_first(volume: Volume) -> Volume:
    """The same scan with its axes stored as P, S, R, as sagittal acquisitions are."""
    data = np.ascontiguousarray(volume.data[0].transpose(1, 2, 0)[::-1].astype(np.float32))
    turn = np.array([[0, 0, 1, 0], [-1, 0, 0, volume.grid.shape[1] - 1], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=np.float64)
    return Volume(data[None], Grid((data.shape[0], data.shape[1], data.shape[2]), volume.grid.affine @ turn))


def _steps(scan: Volume, grid: Grid) -> Array:
    image = scan.resample(grid).data[0]
    low, high = percentiles(image, (_LOW, _HIGH))
    result = image - np.float32(low)
    result *= np.float32(1 / (high - low))
    return np.clip(result, 0, 1, out=result)


def _monai(scan: Volume, shape: tuple[int, int, int], size: float) -> Callable[[], Array]:
    from monai.data import MetaTensor
    from monai.transforms import (
        CenterSpatialCrop,
        Compose,
        Orientation,
        ScaleIntensityRangePercentiles,
        Spacing,
        SpatialPad,
    )

    chain = Compose(
        [
            Orientation("RAS"),
            Spacing(pixdim=(size,) * 3, mode="bilinear"),
            SpatialPad(shape),
            CenterSpatialCrop(shape),
            ScaleIntensityRangePercentiles(_LOW, _HIGH, 0, 1, clip=True),
        ]
    )
    image, affine = torch.from_numpy(scan.data.copy()), torch.from_numpy(scan.grid.affine.copy())
    return lambda: np.asarray(chain(MetaTensor(image, affine=affine))[0])


def _torchio(scan: Volume, shape: tuple[int, int, int], size: float) -> Callable[[], Array]:
    import torchio

    chain = torchio.Compose(
        [
            torchio.ToCanonical(),
            torchio.Resample(size),
            torchio.CropOrPad(shape),
            torchio.RescaleIntensity((0, 1), percentiles=(_LOW, _HIGH)),
        ]
    )
    image = torch.from_numpy(scan.data.copy())
    return lambda: np.asarray(chain(torchio.ScalarImage(tensor=image, affine=scan.grid.affine)).data[0])


def _errors(scan: Volume, grid: Grid, ways: dict[str, Callable[[], Any]]) -> Rows:
    """Mean difference from exact steps; of peers only the mean, since their grids are shifted against medgen's."""
    exact = _exact(scan, grid)
    rows: dict[str, dict[str, float | str]] = {"voxels": {}, "mean difference from exact": {}, "mean": {}}
    for name, way in ways.items():
        found = way()
        rows["voxels"][name] = int(found.size)
        rows["mean"][name] = float(found.mean())
    rows["mean difference from exact"]["medgen"] = float(np.abs(ways["medgen"]() - exact).mean())
    rows["mean"]["exact"] = float(exact.mean())
    return rows


def _exact(scan: Volume, grid: Grid) -> NDArray[np.float64]:
    """Blur, trilinear interpolation and percentiles in double precision, by SciPy and NumPy alone."""
    mapping = affines.product(affines.inverse(scan.grid.affine), grid.affine)
    factor = np.linalg.norm(mapping[:3, :3], axis=1)
    sigma = np.sqrt(np.maximum(factor**2 - 1, 0)) / (2 * np.sqrt(2 * np.log(2)))
    data = scan.data[0].astype(np.float64)
    smooth = ndimage.gaussian_filter(data, np.where(sigma < 0.05, 0, sigma), mode="nearest", truncate=3)
    options = {"offset": mapping[:3, 3], "output_shape": grid.shape, "order": 1}
    image = ndimage.affine_transform(smooth, mapping[:3, :3], mode="nearest", **options)
    inside = ndimage.affine_transform(np.ones(data.shape), mapping[:3, :3], mode="constant", cval=0, **options)
    image[inside == 0] = 0
    low, high = np.percentile(image, (_LOW, _HIGH))
    return np.asarray(np.clip((image - low) / (high - low), 0, 1))
