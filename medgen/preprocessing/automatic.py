"""A preprocessing recipe that fits a cohort, for users who have not chosen one."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.axes import assigned, margin
from medgen.config import parse_config
from medgen.data.cases import Case, Manifest
from medgen.data.faces import may_show_face
from medgen.errors import ConfigError, DataError, MedgenError
from medgen.io.hounsfield import measured
from medgen.preprocessing.brain_extraction import is_stripped_brain
from medgen.preprocessing.cleaning import clean, is_to_be_stripped
from medgen.preprocessing.intensity_landmarks import fit_landmarks
from medgen.preprocessing.modality import (
    WINDOWS,
    check_one_modality,
    modality_of,
    tomogram_window,
    uptake_window,
    window_words,
)
from medgen.preprocessing.recipe import Preprocess
from medgen.transforms.affine_registration import thinnest
from medgen.transforms.foreground import foreground_mask
from medgen.volume import Grid, Volume

logger = logging.getLogger(__name__)

Axes = tuple[NDArray[np.float64], NDArray[np.float64], bool]

# Scans looked at: enough for a median, few enough to be quick.
_SCANS = 12
# Whole heads whose brains are looked for to choose a grid: each takes half a minute at 1 mm, and brains differ little.
_HEADS = 4
# The space-to-depth stem and two further halvings divide every side by eight.
_MULTIPLE = 8
# A scan that is filled by tissue to this share is a crop inside the body, which has no outline to register.
_CROP = 0.9
# Where the nearest order of a scan's axes beats another by less (in cosines), scans of one protocol fall on both sides.
_UNDECIDED = 0.3
# Voxels of a stack of thick slices, as volumes mostly lie.
_STACK = (1.0, 1.0, 8.0)
# Slices this much thicker than the finest voxel side stay thick: voxels between them would be invented.
_THICK = 1.5


def fit_preprocess(manifest: Manifest, wanted: Mapping[str, Any], max_side: int) -> Preprocess:
    """Complete a recipe: what ``wanted`` leaves out is chosen from the cohort's own scans.

    The grid covers 95 % of the scans' fields of view (of their foreground for scans with air around the organ, plus 5 %
    margin; of the brains of a few where whole heads are stripped). Voxels have the median of the scans' finest spacing,
    or are coarser where ``max_side`` voxels would not reach; an axis whose own spacing is more than 1.5 times the
    finest, as that of thick slices, keeps it. Whole organs are registered to the cohort template; crops inside the
    body, and slabs too thin to register, are centred.

    Where scans lie so obliquely that it is arbitrary which of their axes is nearest to R, A or S, as in short-axis
    views of the heart, axes are ordered by those of the scan that is most like all others (``frame``).

    The ``modality`` is that of :func:`medgen.preprocessing.modality.modality_of`. Hounsfield units are scaled by one
    ``window`` for all scans, from the 1st to the 99th percentile inside the body of a typical scan; where the
    configuration says ``modality: CT``, by the window ``brain`` for whole heads and ``soft tissue`` for all else. PET
    is scaled from 0 to what the hottest 0.5 % of a typical scan exceed. Where all scans are stripped brains, whole
    heads are stripped like them (``brain: auto``). What was chosen is logged.

    Args:
        manifest: The cohort; up to 12 scans spread over it are read.
        wanted: Keys of :class:`~medgen.preprocessing.recipe.Preprocess` that are already decided.
        max_side: Most voxels along any axis; 64 suits two CPU cores, 96 to 160 a GPU.

    Returns:
        The complete recipe.

    Raises:
        DataError: If no scan can be read, some hold Hounsfield units and others not, or no brain is found in a head.
        ConfigError: If ``wanted`` has a wrong key or value.
    """
    wanted = {key: value for key, value in wanted.items() if value is not None}
    # What is wrong with the user's own keys is said before any scan is read.
    _check_keys(wanted)
    cases, scans = _some(manifest) if _open(wanted) else ((), ())
    if scans:
        wanted = _of_modality(cases, scans, wanted)
    if not {"shape", "spacing", "align"} <= set(wanted):
        reference = None if wanted.get("frame") else _reference([scan.grid for scan in scans])
        frame, steps = (wanted.get("frame"), None) if reference is None else _frame(reference)
        axes = [_axes(scan, frame, steps) for scan in _stripped(cases, scans, wanted)]
        field = min(min(np.array(scan.grid.shape) * scan.grid.spacing) for scan in scans)
        wanted = {
            **_measure(axes, float(field), wanted, max_side),
            **({} if frame is None else {"frame": frame}),
            **wanted,
        }
        chosen = f"shape {wanted['shape']}, spacing {wanted['spacing']} mm, align {wanted['align']}"
        logger.info("preprocess: %s", chosen)
    return parse_config(Preprocess, wanted, source="preprocess")


def _check_keys(wanted: Mapping[str, Any]) -> None:
    """Say what is wrong with the user's own keys; a window that is still to be chosen is not."""
    trial = {"shape": (1, 1, 1), "spacing": (1, 1, 1), **wanted}
    if wanted.get("modality") in ("CT", "PET") and "percentiles" not in wanted:
        trial = {"window": (0, 1), **trial}
    parse_config(Preprocess, trial, source="preprocess")


def _open(wanted: Mapping[str, Any]) -> bool:
    """Whether the scans have to be looked at: a key is missing, or is to be decided by them."""
    decided = {"shape", "spacing", "align", "brain"} <= set(wanted) and wanted.get("modality", "auto") != "auto"
    if wanted.get("intensity") == "nyul" and "landmarks" not in wanted:
        return True
    return not decided or (wanted["modality"] in ("CT", "PET") and "window" not in wanted)


def _of_modality(cases: Sequence[Case], scans: Sequence[Volume], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The user's keys with what follows from the modality: a window, and whether whole heads are stripped."""
    named = wanted.get("modality", "auto")
    if named == "auto":
        check_one_modality(cases, scans)
    modality = modality_of(cases, scans) if named == "auto" else named
    chosen: dict[str, Any] = {}
    if modality in ("CT", "PET") and "window" not in wanted and "percentiles" not in wanted:
        if modality == "PET":
            chosen["window"] = uptake_window(scans)
        elif named == "CT":
            heads = np.mean([may_show_face(scan) for scan in scans]) > 0.5
            chosen["window"] = WINDOWS["brain" if heads else "soft tissue"]
        else:
            chosen["window"] = tomogram_window([measured(scan) for scan in scans])
        logger.info("preprocess: window %s", window_words(chosen["window"], "HU" if modality == "CT" else ""))
    if modality == "MR" and "brain" not in wanted and all(is_stripped_brain(scan) for scan in scans):
        chosen["brain"] = "auto"
        logger.info("preprocess: brain auto: all scans are stripped brains, and whole heads will be stripped like them")
    if wanted.get("intensity") == "nyul" and "landmarks" not in wanted:
        chosen["landmarks"] = _landmarks(scans, {**chosen, **wanted, "modality": modality})
    # A change of scale by what the scans are is checked with the keys that the user has set.
    return {**chosen, **wanted, "modality": modality}


def _stripped(cases: Sequence[Case], scans: Sequence[Volume], keys: Mapping[str, Any]) -> list[Volume]:
    """The scans as the grid has to cover them: of whole heads that are to be stripped, the brains of a few."""
    brain = keys.get("brain", "keep")
    heads = [row for row, scan in enumerate(scans) if brain != "keep" and is_to_be_stripped(scan, brain)]
    found, reasons = [scan for row, scan in enumerate(scans) if row not in heads], []
    for place in np.unique(np.linspace(0, len(heads) - 1, _HEADS).round().astype(int)) if heads else ():
        row = heads[place]
        try:
            found.append(clean(scans[row], keys.get("modality", "auto"), brain, "none").scan)
        except DataError as error:
            reasons.append(f"{cases[row].images[0]}: {error}")
    if not found:
        raise DataError(f"preprocess.brain: {brain}: no brain in {len(reasons)} of {len(heads)} heads; {reasons[0]}")
    return found


def _landmarks(scans: Sequence[Volume], keys: Mapping[str, Any]) -> tuple[float, ...]:
    """Landmarks of the scans after the steps that come before them; those that cannot be cleaned take no part."""
    trial = {"shape": (1, 1, 1), "spacing": (1, 1, 1), **keys, "intensity": "percentiles"}
    recipe, cleaned, reasons = parse_config(Preprocess, trial, source="preprocess"), [], []
    for scan in scans:
        try:
            cleaned.append(recipe.clean(scan).scan)
        except DataError as error:
            reasons.append(str(error))
    if not cleaned:
        raise DataError(f"intensity: nyul: no scan to find landmarks in; {reasons[0]}")
    return fit_landmarks(cleaned)


def _measure(axes: Sequence[Axes], field: float, wanted: Mapping[str, Any], max_side: int) -> dict[str, Any]:
    """Shape, spacing and alignment; ``field`` is the thinnest side of any scan's field of view in mm."""
    extents = np.array([extent for extent, _, _ in axes])
    crop = np.mean([filled for _, _, filled in axes]) > 0.5
    extent = np.percentile(extents, 95, axis=0) * (1.0 if crop else 1.05)
    spacings = np.array([spacing for _, spacing, _ in axes])
    finest = float(np.median(spacings.min(axis=1)))
    own = np.median(spacings, axis=0)
    thick = own > _THICK * finest
    step = max(finest, float(np.where(thick, 0, extent).max()) / max_side)
    chosen = np.where(thick, np.maximum(own, np.maximum(step, extent / max_side)), step)
    # Two decimals are enough in millimetres, and too few for small animals: three digits.
    chosen = chosen.round(max(2, 2 - int(np.floor(np.log10(chosen.min())))))
    spacing = np.array(wanted.get("spacing") or chosen, dtype=float)
    shape = (np.ceil(extent / spacing / _MULTIPLE) * _MULTIPLE).astype(int)
    # Too thin for a registration: centred, as is decided here and not when a run has begun.
    least = thinnest(float(extent.max()))
    thin = field < least
    align = "center" if crop or thin else "affine"
    if thin and wanted.get("align") == "affine":
        raise ConfigError(
            f"preprocess.align: affine needs fields of view of at least {least:.3g} mm along every side for organs of "
            f"{extent.max():.3g} mm, found {field:.3g} mm; set preprocess.align=center"
        )
    return {
        "shape": np.clip(shape, _MULTIPLE * 2, max(max_side, _MULTIPLE * 2)).tolist(),
        "spacing": spacing.tolist(),
        "align": align,
        **({} if crop else {"center_on": "foreground"}),
    }


def _reference(grids: Sequence[Grid]) -> Grid | None:
    """The grid whose axes are nearest to those of all others; None where R, A and S order them without doubt."""
    if min(margin(grid.directions) for grid in grids) >= _UNDECIDED:
        return None

    def likeness(grid: Grid) -> float:
        return sum(_along(other, grid) for other in grids)

    return max(grids, key=likeness)


def _along(grid: Grid, other: Grid) -> float:
    """Sum of the cosines between the axes of two grids, as they are assigned to each other."""
    order = assigned(grid.directions, other.directions, spacing=grid.spacing, wanted=other.spacing)
    cosines = grid.directions.T @ other.directions
    return float(sum(abs(cosines[axis, target]) for axis, (target, _) in enumerate(order)))


def _frame(grid: Grid) -> tuple[list[list[float]], list[float]]:
    """Directions of a grid's axes, each a line, and their spacing: thick slices last, the others near to R, A, S."""
    order = assigned(grid.directions, spacing=grid.spacing, wanted=_STACK)
    lines, spacing = np.zeros((3, 3)), np.zeros(3)
    for axis, (target, flip) in enumerate(order):
        lines[target], spacing[target] = grid.directions[:, axis] * flip, grid.spacing[axis]
    return lines.round(6).tolist(), spacing.tolist()


def _axes(scan: Volume, frame: Sequence[Sequence[float]] | None, wanted: Sequence[float] | None) -> Axes:
    """Extent of what is worth covering and spacing, both along the model's axes in mm, and whether it is a crop."""
    mask = foreground_mask(scan.data)
    crop = bool(mask.mean() > _CROP)
    corners = np.argwhere(mask) if not crop else np.array([[0, 0, 0], np.array(mask.shape) - 1])
    size = (corners.max(axis=0) - corners.min(axis=0) + 1).astype(float)
    columns = None if frame is None else np.array(frame).T
    order = assigned(scan.grid.directions, columns, spacing=scan.grid.spacing, wanted=wanted)
    targets = [target for target, _ in order]
    extent, spacing = np.zeros(3), np.zeros(3)
    spacing[targets] = scan.grid.spacing
    extent[targets] = size * np.array(scan.grid.spacing)
    return extent, spacing, crop


def _some(manifest: Manifest) -> tuple[list[Case], list[Volume]]:
    cases: list[Case] = list(manifest)
    if not cases:
        raise DataError(f"{manifest.name}: no scan can be read; the cohort is empty")
    rows: NDArray[np.int_] = np.unique(np.linspace(0, len(cases) - 1, _SCANS).round().astype(int))
    found, scans, reasons = [], [], []
    for row in rows:
        try:
            scan = cases[row].read_image()
            if scan.data.min() == scan.data.max():
                raise DataError("the image has one constant value; there is nothing to find in it")
        except MedgenError as error:
            own = str(cases[row].images[0])
            reasons.append(str(error) if str(error).startswith(own) else f"{own}: {error}")
        else:
            scans.append(scan)
            found.append(cases[row])
    if not scans:
        raise DataError(
            f"{manifest.name}: none of {len(rows)} scans looked at can be used; the first: {reasons[0]}; correct the "
            "scans, or leave them out (`medgen data check` names every fault)"
        )
    return found, scans
