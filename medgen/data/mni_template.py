"""The MNI ICBM152 2009a template that nilearn ships in its wheel: T1 and tissue probabilities at 1 mm.

Fonov et al., "Unbiased average age-appropriate atlases for pediatric studies", NeuroImage 2011. Read from the installed
package's files; nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medgen import io
from medgen.errors import DataError
from medgen.volume import Grid

# Boxes in MNI mm (x, y, z): around the lateral ventricles, and in each frontal horn.
_VENTRICLES = ((-36, 36), (-58, 36), (-12, 34))
_FRONTAL_HORNS = (((-16, -3), (4, 22), (4, 20)), ((3, 16), (4, 22), (4, 20)))


@dataclass(frozen=True, eq=False)
class BrainTemplate:
    """A skull-stripped brain on a 1 mm grid; all arrays (i, j, k), float32, read-only.

    Attributes:
        grid: RAS+ grid of the arrays, cropped to the brain with a margin of 4 mm.
        t1: T1 intensity, 0 outside the brain, at most 1.
        csf: Probability of cerebrospinal fluid: the part of the brain mask that is neither of the others.
        gm: Probability of grey matter.
        wm: Probability of white matter.
        ventricles: 1 in the lateral ventricles, else 0.
        brain: 1 in the brain mask, else 0.
    """

    grid: Grid
    t1: NDArray[np.float32]
    csf: NDArray[np.float32]
    gm: NDArray[np.float32]
    wm: NDArray[np.float32]
    ventricles: NDArray[np.float32]
    brain: NDArray[np.float32]


@lru_cache(maxsize=1)
def brain_template() -> BrainTemplate:
    """Read the template (about a second), once per process.

    Raises:
        DataError: If nilearn's files are not where its wheel puts them.
    """
    volumes = {name: io.read(_file(name)) for name in ("t1", "gm", "wm")}
    t1, gm, wm = (volumes[name].data[0].astype(np.float32) / 255 for name in ("t1", "gm", "wm"))
    brain = ndimage.binary_fill_holes(t1 > 0)
    extent = ndimage.find_objects(brain.astype(np.uint8))[0]
    crop = tuple(slice(max(part.start - 4, 0), part.stop + 4) for part in extent)
    t1, gm, wm, brain = (array[crop] for array in (t1, gm, wm, brain))
    gm, wm = gm * brain, wm * brain
    total = np.maximum(gm + wm, 1)
    gm, wm = gm / total, wm / total
    csf = brain * np.clip(1 - gm - wm, 0, 1)

    affine = volumes["t1"].grid.affine.copy()
    affine[:3, 3] = volumes["t1"].grid.to_world([part.start for part in crop])
    grid = Grid(t1.shape, affine)
    arrays = (t1, csf, gm, wm, _ventricles(csf, grid), brain)
    frozen = [np.ascontiguousarray(array, dtype=np.float32) for array in arrays]
    for array in frozen:
        array.setflags(write=False)
    return BrainTemplate(grid, *frozen)


def _ventricles(csf: NDArray[np.float32], grid: Grid) -> NDArray[np.bool_]:
    """The connected parts of certain fluid that reach a frontal horn; cisterns are apart from these at 60 %."""
    fluid = np.zeros(csf.shape, dtype=bool)
    box = _box(grid, _VENTRICLES)
    fluid[box] = csf[box] > 0.6
    labels, _ = ndimage.label(fluid)
    ventricles = np.zeros(csf.shape, dtype=bool)
    for horn in _FRONTAL_HORNS:
        inside = np.bincount(labels[_box(grid, horn)].ravel())
        if inside.size < 2:
            raise DataError("the MNI template has no ventricles where they are expected; reinstall nilearn")
        ventricles |= labels == 1 + inside[1:].argmax()
    return ventricles


def _box(grid: Grid, limits: Sequence[tuple[float, float]]) -> tuple[slice, ...]:
    corners = grid.to_voxel(np.array(limits, dtype=np.float64).T).round().astype(int)
    return tuple(slice(int(low), int(high)) for low, high in corners.T)


def _file(name: str) -> Path:
    spec = find_spec("nilearn")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("the MNI template comes with the package nilearn, which is not installed; install nilearn")
    folder = Path(spec.submodule_search_locations[0]) / "datasets" / "data"
    found = sorted(folder.glob(f"mni_icbm152_{name}_tal_nlin_sym_09a*.nii.gz"))
    if not found:
        raise DataError(
            f"{folder}: no MNI template file for {name}; expected one from nilearn 0.11 or later; reinstall it"
        )
    return found[0]
