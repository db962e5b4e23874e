"""The geometry of a stack of slices: where they lie, in which order, and everything that stops them being one grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medgen.faults import Fault
from medgen.volume import Grid

# DICOM's world is LPS+, ours RAS+.
_LPS_TO_RAS = np.diag((-1.0, -1.0, 1.0, 1.0))
# Below this, rows and columns that are not quite perpendicular to the stack are rounding; the affine keeps the shear.
_TILT_DEGREES = 0.25
# Positions written with fewer decimals than these are rounded on purpose, not by a program.
_COARSEST_ROUNDING, _ROUNDED_SHARE = 0.1, 0.1
_GAPS, _ONE_EACH = "irregular spacing", "one slice per position"


@dataclass(frozen=True)
class Slice:
    """One frame of a DICOM series, as far as geometry goes (LPS+ mm, as in the file).

    Attributes:
        name: File name, with the frame number where a file has several.
        size: Rows and columns.
        spacing: Distance between rows and between columns in mm.
        orientation: Direction cosines of a row, then of a column.
        position: Centre of the first voxel.
    """

    name: str
    size: tuple[int, int]
    spacing: tuple[float, float]
    orientation: tuple[float, float, float, float, float, float]
    position: tuple[float, float, float]


@dataclass(frozen=True)
class Stack:
    """What a series of slices makes: an order and a grid, or faults (then the grid is None).

    Attributes:
        order: Indices of the slices in ascending order along the normal (row × column).
        grid: Shape (columns, rows, slices) and affine in RAS+ mm.
        faults: Every reason why the slices are not one regular grid.
    """

    order: tuple[int, ...]
    grid: Grid | None
    faults: tuple[Fault, ...]


def stacked(slices: Sequence[Slice], source: str, *, complete: bool = True, hint: str = "") -> Stack:
    """Order slices along their normal and find the grid they make.

    Slices must share size, spacing and orientation, lie at distinct and regular positions (each gap within 1 % or
    0.01 mm of the median gap, or all positions where rounding to the decimals they are written with puts them), and be
    stacked along their normal (within 0.25 degrees, or what that rounding makes).

    Args:
        slices: The slices in any order.
        source: Name of the folder or file, for the faults.
        complete: Whether these are all slices; gaps are not reported if some could not be read.
        hint: What may explain that a place is taken twice.
    """
    if len(slices) < 2:
        found = "a single slice" if slices else "no slices"
        fault = Fault(source, found, "a 3D series of at least two slices", "give the folder of the whole series")
        return Stack((), None, (fault,))
    faults = _mixed(slices, source)
    orientations = np.array([item.orientation for item in slices], dtype=np.float64)
    if np.abs(orientations - orientations[0]).max() > 1e-3:
        # Positions of differently turned slices cannot be compared.
        return Stack(tuple(range(len(slices))), None, tuple(faults))
    row, column = orientations[0, :3], orientations[0, 3:]
    if abs(np.linalg.norm(row) - 1) > 1e-3 or abs(np.linalg.norm(column) - 1) > 1e-3 or abs(row @ column) > 1e-3:
        found = "row and column directions that are not perpendicular unit vectors"
        faults.append(Fault(source, found, "direction cosines", "export the series again"))
        return Stack(tuple(range(len(slices))), None, tuple(faults))
    normal = np.cross(row, column)
    positions = np.array([item.position for item in slices], dtype=np.float64)
    order = np.argsort(positions @ normal, kind="stable")
    ordered = [slices[index] for index in order]
    faults += [
        replace(fault, found=fault.found + hint * (fault.expected == _ONE_EACH))
        for fault in _irregular(ordered, positions[order], normal, source)
        if complete or not fault.found.startswith(_GAPS)
    ]
    if faults:
        return Stack(tuple(order.tolist()), None, tuple(faults))
    affine = np.eye(4)
    affine[:3, 0] = row * slices[0].spacing[1]
    affine[:3, 1] = column * slices[0].spacing[0]
    # The mean step, not the normal: it also places the last slice where the file says it is.
    step = (positions[order[-1]] - positions[order[0]]) / (len(slices) - 1)
    # A tilt that is rounding would shear the grid.
    affine[:3, 2] = normal * (step @ normal) if _rounding(positions) and _tilt(step, normal) > 0.01 else step
    affine[:3, 3] = positions[order[0]]
    rows, columns = slices[0].size
    return Stack(tuple(order.tolist()), Grid((columns, rows, len(slices)), _LPS_TO_RAS @ affine), ())


def _mixed(slices: Sequence[Slice], source: str) -> list[Fault]:
    """Faults for slices that differ in what they must share."""
    faults = []
    for name, tolerance, values in (
        ("slice sizes", 0.0, [item.size for item in slices]),
        ("pixel spacings", 1e-4, [item.spacing for item in slices]),
        ("slice orientations", 1e-3, [item.orientation for item in slices]),
    ):
        table = np.array(values, dtype=np.float64)
        kinds: list[NDArray[np.float64]] = []
        counts: list[int] = []
        for line in table:
            for number, kind in enumerate(kinds):
                if np.abs(line - kind).max() <= tolerance:
                    counts[number] += 1
                    break
            else:
                kinds.append(line)
                counts.append(1)
        if len(kinds) > 1:
            shown = ", ".join(
                f"{count} x ({' '.join(f'{value:.4g}' for value in kind)})"
                for kind, count in list(zip(kinds, counts, strict=True))[:4]
            )
            action = "separate the stacks (localizers, several acquisitions) into folders"
            faults.append(Fault(source, f"{len(kinds)} {name}: {shown}", "one for the whole series", action))
    if min(min(item.spacing) for item in slices) <= 0:
        faults.append(Fault(source, "a pixel spacing that is not positive", "mm between pixels", "export it again"))
    return faults


def _irregular(
    ordered: Sequence[Slice], positions: NDArray[np.float64], normal: NDArray[np.float64], source: str
) -> list[Fault]:
    """Faults for slices that share size and orientation but are no regular, straight stack."""
    faults = []
    heights = positions @ normal
    gaps = np.diff(heights)
    same = gaps < 0.005
    if same.any():
        first = int(np.argmax(same))
        found = (
            f"{int(same.sum())} of {len(ordered)} slices at a position that is already taken, "
            f"first {ordered[first].name} and {ordered[first + 1].name}"
        )
        action = "remove copies, or separate time points, echoes or reconstructions into folders"
        faults.append(Fault(source, found, _ONE_EACH, action))
    if same.all():
        return faults
    # Along the stack as it is, so that a tilt does not change what is said about the gaps.
    steps = np.diff(positions[np.concatenate([[True], ~same])], axis=0)
    names = [item.name for item, keep in zip(ordered, np.concatenate([[True], ~same]), strict=True) if keep]
    lengths = np.linalg.norm(steps, axis=1)
    median = float(np.median(lengths))
    wrong = np.abs(lengths - median) > max(0.01, 0.01 * median)
    unit = _rounding(positions)
    if wrong.any() and not same.any() and _evenly_rounded(positions, unit, median):
        wrong[:] = False
    if wrong.any():
        first = int(np.argmax(wrong))
        missing = round(float(lengths[first]) / median) - 1
        whole = missing > 0 and abs(lengths[first] / median - missing - 1) < 0.02
        found = (
            f"{_GAPS}: {int(wrong.sum())} of {len(lengths)} gaps differ, first {lengths[first]:.3f} mm "
            f"between {names[first]} and {names[first + 1]}" + (f" ({missing} missing?)" if whole else "")
        )
        action = "add the missing slices" if whole else "export it with even spacing, or resample it to one knowingly"
        faults.append(Fault(source, found, f"{median:.3f} mm between all slices", action))
    total = steps.sum(axis=0)
    degrees = _tilt(total, normal)
    if degrees > max(_TILT_DEGREES, float(np.degrees(np.arctan2(1.5 * unit, np.linalg.norm(total))))):
        found = f"gantry tilt of {degrees:.1f} degrees: slices are not stacked along their normal"
        action = "resample the series to a regular grid knowingly, for example with dcm2niix"
        faults.append(Fault(source, found, "slices stacked along their normal", action))
    elif not wrong.any():
        line = positions[0] + np.linspace(0, 1, len(positions))[:, None] * (positions[-1] - positions[0])
        drift = float(np.linalg.norm(positions - line, axis=1).max())
        if drift > max(0.05, 0.05 * median, 1.5 * min(unit, _ROUNDED_SHARE * median)) and not same.any():
            found = f"slices that leave a straight line by {drift:.2f} mm"
            faults.append(Fault(source, found, "a straight stack", "resample the series to a regular grid knowingly"))
    return faults


def _tilt(step: NDArray[np.float64], normal: NDArray[np.float64]) -> float:
    """Degrees between the direction of a stack and the normal of its slices."""
    cosine = float(np.clip(step @ normal / np.linalg.norm(step), -1, 1))
    return float(np.degrees(np.arccos(cosine)))


def _rounding(positions: NDArray[np.float64]) -> float:
    """The unit (mm) that positions are rounded to where it is 0.1 or 0.01 mm; 0 where they are finer, or all whole."""
    moving = positions[:, np.ptp(positions, axis=0) > 1e-6]
    if moving.size == 0 or np.allclose(moving, moving.round(), rtol=0, atol=1e-6):
        return 0.0
    for unit in (_COARSEST_ROUNDING, _COARSEST_ROUNDING / 10):
        if np.allclose(moving, (moving / unit).round() * unit, rtol=0, atol=1e-6):
            return unit
    return 0.0


def _evenly_rounded(positions: NDArray[np.float64], unit: float, step: float) -> bool:
    """Whether some even positions, rounded to the unit, are these: rounding does not add up, wrong gaps do."""
    if unit == 0:
        return False
    rows = np.arange(len(positions))
    design = np.stack([rows, np.ones(len(rows))], axis=1)
    line = design @ np.linalg.lstsq(design, positions, rcond=None)[0]
    # Half a unit by rounding itself, and a little for the line, which is fitted to the rounded places.
    return bool(np.abs(positions - line).max() <= min(0.75 * unit, _ROUNDED_SHARE * step))
