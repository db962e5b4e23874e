"""Channels of one scan that lie on each other only roughly, because the patient moved between them: rigid correction.

Mattes mutual information (Mattes et al., "PET-CT image registration in the chest using free-form deformations", IEEE
TMI 2003) as SimpleITK computes it, coarse to fine, from the position that the headers say: scans of one session are
off by a few millimetres, and a registration that wants more has gone astray.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medgen import affines
from medgen.errors import DataError
from medgen.transforms.foreground import foreground_mask
from medgen.volume import Grid, Volume

if TYPE_CHECKING:
    import SimpleITK

# Voxels that registration works on (mm), bins and share of them that are looked at.
_STEP_MM, _BINS, _SHARE = 2.0, 32, 0.5
_LEVELS = ((4, 2.0), (2, 1.0), (1, 0.0))
# What movement within a session is believed.
_FARTHEST_MM, _STEEPEST_DEG = 25.0, 20.0
# Mutual information in nats below which two images do not show the same anatomy. T1, T2 and FLAIR of a patient share
# 0.65 to 1.12 inside the brain; two patients, as well as a rigid motion can bring them onto each other, 0.12 to 0.21.
_LEAST = 0.25
# Movements in voxels that are left alone: an interpolation costs more detail than they do harm.
_STILL = 0.5


@dataclass(frozen=True)
class Movement:
    """How a channel had to be moved.

    Attributes:
        millimetres: Mean distance by which voxels of the foreground move.
        degrees: Angle of the rotation.
        information: Mutual information with the first channel after it, in nats.
        corrected: Whether it was moved.
    """

    millimetres: float
    degrees: float
    information: float
    corrected: bool


def coregister(scan: Volume) -> tuple[Volume, tuple[Movement, ...]]:
    """Bring every further channel onto the first by a rigid motion, one linear interpolation each.

    Args:
        scan: (c, i, j, k); all channels on one grid, as the headers say.

    Returns:
        The scan with its channels aligned, and the movement of each but the first. A channel that is off by less than
        half a voxel stays as it is.

    Raises:
        DataError: If a channel would have to move or turn farther than a patient does in a session, or does not show
            the first one's anatomy afterwards.
    """
    if len(scan.data) < 2:
        return scan, ()
    small = scan.resample(_coarse(scan.grid))
    body = foreground_mask(small.data[:1])
    fixed = _image(small.data[0], small.grid)
    data, moves = [scan.data[0].astype(np.float32)], []
    for number in range(1, len(scan.data)):
        # Both images lie in a frame whose axes are those of the voxels: a rigid motion there is one in the world.
        found = _register(fixed, _image(small.data[number], small.grid))
        world = _in_world(found, small.grid)
        moved = small.with_data(small.data[number][None]).resample(small.grid.moved(world))
        movement = _measure(small, body, world, moved.data[0], _STILL * min(scan.grid.spacing))
        _check(movement, number)
        moves.append(movement)
        channel = scan.with_data(scan.data[number][None])
        if movement.corrected:
            low = float(channel.data.min())
            channel = channel.resample(scan.grid.moved(world), fill=low)
        data.append(channel.data[0].astype(np.float32))
    return scan.with_data(np.stack(data)), tuple(moves)


def mutual_information(first: NDArray[Any], second: NDArray[Any], mask: NDArray[np.bool_]) -> float:
    """Mutual information in nats of two images inside a mask, from a histogram of 32 equally filled bins each.

    What a histogram of so many voxels has by chance, (32 − 1)² / 2n, is taken off (Miller 1955).
    """
    ranks = []
    for image in (first, second):
        values = image[mask].astype(np.float64)
        edges = np.unique(np.quantile(values, np.linspace(0, 1, _BINS + 1)[1:-1]))
        ranks.append(np.searchsorted(edges, values, side="right"))
    joint = np.zeros((_BINS, _BINS))
    np.add.at(joint, tuple(ranks), 1.0)
    chance = (_BINS - 1) ** 2 / (2 * max(joint.sum(), 1.0))
    joint /= max(joint.sum(), 1.0)
    apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    some = joint > 0
    return float((joint[some] * np.log(joint[some] / apart[some])).sum() - chance)


def _coarse(grid: Grid) -> Grid:
    i, j, k = (max(_STEP_MM, step) for step in grid.spacing)
    sides = np.array(grid.shape) * grid.spacing
    a, b, c = (int(n) for n in np.maximum(np.ceil(sides / (i, j, k)), 8))
    return grid.centred((a, b, c), (i, j, k), grid.directions)


def _image(data: NDArray[Any], grid: Grid) -> SimpleITK.Image:
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(np.ascontiguousarray(data.astype(np.float32).transpose(2, 1, 0)))
    image.SetSpacing([float(step) for step in grid.spacing])
    return image


def _register(fixed: SimpleITK.Image, moving: SimpleITK.Image) -> SimpleITK.Euler3DTransform:
    import SimpleITK as sitk

    centre = [0.5 * (n - 1) * step for n, step in zip(fixed.GetSize(), fixed.GetSpacing(), strict=True)]
    start = sitk.Euler3DTransform()
    start.SetCenter(centre)
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(_BINS)
    method.SetMetricSamplingStrategy(method.REGULAR)
    # Which voxels are looked at is drawn, and the same each time.
    method.SetMetricSamplingPercentage(_SHARE, seed=1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 0.005, 100, relaxationFactor=0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([shrink for shrink, _ in _LEVELS])
    method.SetSmoothingSigmasPerLevel([sigma for _, sigma in _LEVELS])
    method.SetSmoothingSigmasAreSpecifiedInPhysicalUnits(True)
    method.SetInitialTransform(start, inPlace=True)
    # One thread: sums over threads in another order give another last digit.
    method.SetNumberOfThreads(1)
    try:
        method.Execute(fixed, moving)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise DataError(f"its contrasts cannot be registered to each other: {reason}") from None
    return start


def _in_world(found: SimpleITK.Euler3DTransform, grid: Grid) -> NDArray[np.float64]:
    """4 × 4: a place in the world of the first channel → where the other channel shows it."""
    inner = np.eye(4)
    inner[:3, :3] = np.array(found.GetMatrix()).reshape(3, 3)
    centre = np.array(found.GetCenter())
    inner[:3, 3] = np.array(found.GetTranslation()) + centre - inner[:3, :3] @ centre
    frame = grid.affine @ np.diag([*(1 / np.array(grid.spacing)), 1.0])
    return affines.product(frame, affines.product(inner, affines.inverse(frame)))


def _measure(
    scan: Volume, body: NDArray[np.bool_], world: NDArray[np.float64], moved: NDArray[Any], still: float
) -> Movement:
    places = np.argwhere(body) @ scan.grid.affine[:3, :3].T + scan.grid.affine[:3, 3]
    shift = places @ (world[:3, :3] - np.eye(3)).T + world[:3, 3]
    angle = np.degrees(np.arccos(np.clip((np.trace(world[:3, :3]) - 1) / 2, -1, 1)))
    information = mutual_information(scan.data[0], moved, body)
    distance = float(np.linalg.norm(shift, axis=1).mean())
    return Movement(distance, float(angle), information, distance > still)


def _check(movement: Movement, number: int) -> None:
    what = ""
    if movement.millimetres > _FARTHEST_MM or movement.degrees > _STEEPEST_DEG:
        what = f"would have to move by {movement.millimetres:.0f} mm and turn by {movement.degrees:.0f} degrees"
    elif not movement.information >= _LEAST:
        what = f"shares {movement.information:.2f} nats with the first one, expected at least {_LEAST:g}"
    if what:
        raise DataError(
            f"contrast {number + 1} does not lie on the first: it {what}; check that both show the same patient in the "
            "same session, or register them first"
        )
