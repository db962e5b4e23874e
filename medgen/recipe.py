"""A preprocessing recipe that fits a cohort, for users who have not chosen one."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.cases import Case, Manifest
from medgen.config import parse_config
from medgen.errors import DataError, MedgenError
from medgen.foreground import foreground_mask
from medgen.preprocess import Preprocess
from medgen.volume import Volume

logger = logging.getLogger(__name__)

Axes = tuple[NDArray[np.float64], NDArray[np.float64], bool]

# Scans looked at: enough for a median, few enough to be quick.
_SCANS = 12
# The space-to-depth stem and two further halvings divide every side by eight.
_MULTIPLE = 8
# A scan that is filled by tissue to this share is a crop inside the body, which has no outline to register.
_CROP = 0.9
# Slices this much thicker than the finest voxel side stay thick: voxels between them would be invented.
_THICK = 1.5


def fit_preprocess(manifest: Manifest, wanted: Mapping[str, Any], max_side: int) -> Preprocess:
    """Complete a recipe: what ``wanted`` leaves out is chosen from the cohort's own scans.

    The grid covers 95 % of the scans' fields of view (of their foreground for scans with air around the organ, plus 5 %
    margin). Voxels have the median of the scans' finest spacing, or are coarser where ``max_side`` voxels would not
    reach; an axis whose own spacing is more than 1.5 times the finest, as that of thick slices, keeps it. Whole organs
    are registered to the cohort template, crops inside the body are centred.

    Args:
        manifest: The cohort; up to 12 scans spread over it are read.
        wanted: Keys of :class:`~medgen.preprocess.Preprocess` that are already decided.
        max_side: Most voxels along any axis; 64 suits two CPU cores, 96 to 160 a GPU.

    Returns:
        The complete recipe.

    Raises:
        DataError: If no scan can be read.
        ConfigError: If ``wanted`` has a wrong key or value.
    """
    wanted = {key: value for key, value in wanted.items() if value is not None}
    if not {"shape", "spacing", "align"} <= set(wanted):
        wanted = {**_measure([_axes(scan) for scan in _some(manifest)], wanted, max_side), **wanted}
        chosen = f"shape {wanted['shape']}, spacing {wanted['spacing']} mm, align {wanted['align']}"
        logger.info("preprocess: %s", chosen)
    return parse_config(Preprocess, wanted, source="preprocess")


def _measure(axes: Sequence[Axes], wanted: Mapping[str, Any], max_side: int) -> dict[str, Any]:
    extents = np.array([extent for extent, _, _ in axes])
    crop = np.mean([filled for _, _, filled in axes]) > 0.5
    extent = np.percentile(extents, 95, axis=0) * (1.0 if crop else 1.05)
    spacings = np.array([spacing for _, spacing, _ in axes])
    finest = float(np.median(spacings.min(axis=1)))
    own = np.median(spacings, axis=0)
    thick = own > _THICK * finest
    step = max(finest, float(np.where(thick, 0, extent).max()) / max_side)
    chosen = np.where(thick, np.maximum(own, np.maximum(step, extent / max_side)), step).round(2)
    spacing = np.array(wanted.get("spacing") or chosen, dtype=float)
    shape = (np.ceil(extent / spacing / _MULTIPLE) * _MULTIPLE).astype(int)
    align = "center" if crop else "affine"
    return {
        "shape": np.clip(shape, _MULTIPLE * 2, max(max_side, _MULTIPLE * 2)).tolist(),
        "spacing": spacing.tolist(),
        "align": align,
        **({} if crop else {"center_on": "foreground"}),
    }


def _axes(scan: Volume) -> Axes:
    """Extent of what is worth covering and spacing, both along R, A, S in mm, and whether the scan is a crop."""
    mask = foreground_mask(scan.data)
    crop = bool(mask.mean() > _CROP)
    corners = np.argwhere(mask) if not crop else np.array([[0, 0, 0], np.array(mask.shape) - 1])
    size = (corners.max(axis=0) - corners.min(axis=0) + 1).astype(float)
    # Size along each array axis, seen along the world axis it is nearest to.
    order = np.abs(scan.grid.affine[:3, :3] / np.array(scan.grid.spacing)).argmax(axis=0)
    extent, spacing = np.zeros(3), np.zeros(3)
    spacing[order] = scan.grid.spacing
    extent[order] = size * np.array(scan.grid.spacing)
    return extent, spacing, crop


def _some(manifest: Manifest) -> list[Volume]:
    cases: list[Case] = list(manifest)
    if not cases:
        raise DataError(f"{manifest.name}: no scan can be read; the cohort is empty")
    rows: NDArray[np.int_] = np.unique(np.linspace(0, len(cases) - 1, _SCANS).round().astype(int))
    scans, reasons = [], []
    for row in rows:
        try:
            scans.append(cases[row].read_image())
        except MedgenError as error:
            reasons.append(str(error))
    if not scans:
        raise DataError(f"{manifest.name}: no scan can be read; {reasons[0]}")
    return scans
